"""Forwards TCP ports on 127.0.0.1, so that programs that know nothing of vantage talk to peers, datasets and hosts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from vantage.algorithm.streams import PeerError, Stream

_HOST = "127.0.0.1"
_CHUNK = 256 * 1024
_RETRY = 0.05
"""Seconds between attempts to connect to a program that does not listen yet: nothing tells when it does."""


class Opener(Protocol):
    """What a forwarder needs of ``Peers``."""

    async def connect(self, peer: str, label: str, *, timeout: float = ...) -> Stream:  # noqa: ASYNC109
        """See ``Peers``."""

    def listen(self, label: str) -> AbstractAsyncContextManager[Any]:
        """See ``Peers``."""


class Forwarder:
    """Forwards one port in both directions. ``start``, then ``stop`` once.

    Args:
        peers: opens streams.
        port: of the program here, and of the same program at the peers.
        timeout: for each connection.
    """

    def __init__(self, peers: Opener, port: int, timeout: float) -> None:
        self._peers = peers
        self._port = port
        self._timeout = timeout
        self._label = f"tcp-{port}"
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, organizations: Sequence[str]) -> dict[str, int]:
        """Forward; returns the local port for each peer.

        Raises:
            PeerError: the node does not allow it, or the port is forwarded already.
        """
        listening = asyncio.get_running_loop().create_future()
        self._spawn(self._accept(listening))
        await listening
        ports = {}
        for organization in organizations:

            async def serve(
                reader: asyncio.StreamReader, writer: asyncio.StreamWriter, organization: str = organization
            ) -> None:
                await self._outgoing(organization, reader, writer)

            server = await asyncio.start_server(serve, _HOST, 0, limit=_CHUNK)
            self._servers.append(server)
            ports[organization] = int(server.sockets[0].getsockname()[1])
        return ports

    async def stop(self) -> None:
        """End everything."""
        for server in self._servers:
            server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listening: asyncio.Future[None]) -> None:
        try:
            async with self._peers.listen(self._label) as streams:
                listening.set_result(None)
                async for stream in streams:
                    self._spawn(self._incoming(stream))
        except PeerError as problem:
            if listening.done():
                print(f"port {self._port} is not forwarded any more: {problem.message}", file=sys.stderr)
            else:
                listening.set_exception(problem)

    async def _incoming(self, stream: Stream) -> None:
        """A peer has connected: connect to the program here, which may be about to listen."""
        try:
            async with asyncio.timeout(self._timeout):
                reader, writer = await self._reach()
        except (TimeoutError, OSError):
            print(f"nothing listens on port {self._port}: a peer's connection is closed", file=sys.stderr)
            await stream.close()
            return
        await join(stream, reader, writer)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to the program here; whoever calls bounds how long that is tried.

        By trying again: it is any program that knows TCP, and the kernel tells nobody that a port is listened to.
        """
        while True:
            try:
                return await asyncio.open_connection(_HOST, self._port, limit=_CHUNK)
            except ConnectionRefusedError:
                await asyncio.sleep(_RETRY)

    async def _outgoing(self, organization: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The program here has connected."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that runs has one
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        opening = self._peers.connect(organization, self._label, timeout=self._timeout)
        await lead(opening, f"port {self._port} of {organization}", reader, writer)


async def lead(
    opening: Awaitable[Stream], where: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Lead a TCP connection of a program here through a stream; a stream that cannot be opened breaks it."""
    try:
        stream = await opening
    except PeerError as problem:
        print(f"no connection to {where}: {problem.message}", file=sys.stderr)
        _reset(writer)
        return
    await join(stream, reader, writer)


async def join(stream: Stream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy both ways until both have ended; when one breaks, the other is broken."""

    async def there() -> None:
        while data := await reader.read(_CHUNK):
            await stream.write(data)
        await stream.finish()

    async def back() -> None:
        while data := await stream.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    ways = [asyncio.create_task(there()), asyncio.create_task(back())]
    try:
        await asyncio.gather(*ways)
    except (PeerError, OSError):
        _reset(writer)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        await stream.close()
        writer.close()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Break a TCP connection so that the other program sees a broken one, not an end."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):  # it is broken already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
