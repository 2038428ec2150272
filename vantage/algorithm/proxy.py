"""An HTTP proxy for one program: CONNECT for what is encrypted, whole URLs for what is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

import h11

from vantage.algorithm.forwarding import join
from vantage.algorithm.streams import PeerError, Stream
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.common.hosts import split_host

Dial = Callable[[pb.DialTarget], Awaitable[Stream]]

_CHUNK = 64 * 1024
_HOP_BY_HOP = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"proxy-authorization", b"te", b"trailer", b"upgrade"}
)
"""Headers that are for the proxy and not for the host (RFC 9110, 7.6.1); framing is kept as it is."""


async def serve_proxy(dial: Dial, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection of a program: one request, after which it is closed."""
    client = h11.Connection(h11.SERVER)
    try:
        request = await _next(client, reader)
        if not isinstance(request, h11.Request):
            writer.close()  # it has gone without a word
            return
        host, port, path = _target(request)
        stream = await dial(pb.DialTarget(host=pb.HostTarget(host=host, port=port)))
    except (h11.RemoteProtocolError, ValueError):
        await _refuse(writer, 400, "not a request to a proxy: CONNECT HOST:PORT, or an http:// URL")
        return
    except PeerError as problem:
        await _refuse(writer, 403 if problem.code.name == "EGRESS_REFUSED" else 502, problem.message)
        return
    except OSError:
        writer.close()
        return
    if request.method == b"CONNECT":
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        early, _ = client.trailing_data
        await _join_after(stream, early, reader, writer)
        return
    await _forward(client, request, path, stream, reader, writer)


async def _join_after(stream: Stream, early: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(PeerError):  # ``join`` finds it broken, too
        if early:
            await stream.write(early)
    await join(stream, reader, writer)


async def _forward(
    client: h11.Connection,
    request: h11.Request,
    path: bytes,
    stream: Stream,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Hand on one request; the answer ends when the host closes, as it is asked to."""
    host = h11.Connection(h11.CLIENT)
    headers = [(name, value) for name, value in request.headers if name not in _HOP_BY_HOP]
    head = h11.Request(method=request.method, target=path, headers=[*headers, (b"connection", b"close")])

    async def there() -> None:
        await stream.write(host.send(head) or b"")
        while True:
            event = await _next(client, reader)
            if isinstance(event, h11.Data | h11.EndOfMessage):
                await stream.write(host.send(event) or b"")
            if not isinstance(event, h11.Data):
                return

    async def back() -> None:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()

    ways = [asyncio.create_task(there()), asyncio.create_task(back())]
    try:
        # The host may answer before it has all of the request; without the rest of a request it would never answer.
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if ways[0] in done:
            ways[0].result()
        await ways[1]
    except (PeerError, OSError, h11.ProtocolError):
        writer.transport.abort()
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await stream.close()
        writer.close()


def _target(request: h11.Request) -> tuple[str, int, bytes]:
    """Host, port and path.

    Raises:
        ValueError: there are none.
    """
    text = request.target.decode("ascii")
    if request.method == b"CONNECT":
        return *split_host(text), b""
    parts = urlsplit(text)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return parts.hostname, parts.port or 80, path.encode("ascii")


async def _next(connection: h11.Connection, reader: asyncio.StreamReader) -> object:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(await reader.read(_CHUNK))
    return event


async def _refuse(writer: asyncio.StreamWriter, status: int, why: str) -> None:
    body = f"{why}\n".encode()
    reason = {400: "Bad Request", 403: "Forbidden", 502: "Bad Gateway"}[status]
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
    with contextlib.suppress(OSError):
        writer.write(f"{head}Connection: close\r\n\r\n".encode() + body)
        await writer.drain()
    writer.close()
