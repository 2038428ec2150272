"""How much of a stream comes before it is read: as much as is said, however fast the connection is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import chain
from pathlib import Path

import grpc

from vantage.common.rpc import CLIENT_WINDOW, SERVER_WINDOW, open_channel
from vantage.testing.relay import running_relay
from vantage.testing.server import running_server

MIB = 1024 * 1024
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING = 4, 6
INITIAL_WINDOW_SIZE = 4
UNKNOWN_FIELD = b"\xfa\x01\x80\x80\x80\x04" + bytes(8 * MIB)
"""Of any message: number 31, 8 MiB."""


class Tap:
    """What both sides of HTTP/2 say, connection by connection."""

    def __init__(self) -> None:
        self.clients: list[bytearray] = []
        self.servers: list[bytearray] = []
        self.address = ""

    @classmethod
    @asynccontextmanager
    async def before(cls, address: str) -> AsyncIterator[Tap]:
        """Stand in front of a server without TLS."""
        tap = cls()
        host, _, port = address.rpartition(":")

        async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, said: bytearray) -> None:
            while data := await reader.read(MIB):
                said += data
                writer.write(data)
                await writer.drain()
            writer.close()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(host, int(port))
            tap.clients.append(bytearray())
            tap.servers.append(bytearray())
            try:
                await asyncio.gather(copy(reader, back, tap.clients[-1]), copy(there, writer, tap.servers[-1]))
            except ConnectionError:
                writer.close()
                back.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            tap.address = f"127.0.0.1:{listening.sockets[0].getsockname()[1]}"
            yield tap


def frames(said: bytearray) -> Iterator[tuple[int, int, bytearray]]:
    """Kind, flags and content."""
    at = len(PREFACE) if said.startswith(PREFACE) else 0
    while at + 9 <= len(said):
        size = int.from_bytes(said[at : at + 3], "big")
        yield said[at + 3], said[at + 4], said[at + 9 : at + 9 + size]
        at += 9 + size


def windows(said: Sequence[bytearray]) -> set[int]:
    """What the windows of streams were said to be."""
    found = set()
    for kind, flags, content in chain.from_iterable(map(frames, said)):
        if kind == SETTINGS and not flags:
            pairs = {content[at + 1]: content[at + 2 : at + 6] for at in range(0, len(content), 6)}
            found.add(int.from_bytes(pairs.get(INITIAL_WINDOW_SIZE, bytearray()), "big"))
    return found


def probes(said: Sequence[bytearray]) -> int:
    """How often the speed of a connection was measured."""
    return sum(kind == PING and not flags for kind, flags, _ in chain.from_iterable(map(frames, said)))


async def test_windows_are_as_large_as_said_however_fast_the_connection_is(tmp_path: Path) -> None:
    async with running_server(tmp_path / "server", tls=False) as server, Tap.before(server.address) as tap:
        async with open_channel(tap.address, None) as channel:
            ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(
                "/vantage.api.identity.v1.AuthService/GetServerInfo"
            )
            await ask(UNKNOWN_FIELD)
        assert (windows(tap.servers), probes(tap.servers)) == ({SERVER_WINDOW}, 0)

    async with running_relay(tmp_path / "relay") as relay, Tap.before(relay.relay.address) as tap:
        relay.relay.address = tap.address
        left, right = await relay.pair()
        for _ in range(8):
            await left.write(bytes(MIB))
            await right.read()
        assert (windows(tap.servers), probes(tap.servers)) == ({SERVER_WINDOW}, 0)

    async def give(_request: bytes, _context: object) -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(MIB)

    bare = grpc.aio.server()
    bare.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("t.T", {"Give": grpc.unary_stream_rpc_method_handler(give)}),)
    )
    port = bare.add_insecure_port("127.0.0.1:0")
    await bare.start()
    try:
        async with Tap.before(f"127.0.0.1:{port}") as tap, open_channel(tap.address, None) as channel:
            method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/t.T/Give")
            assert sum([len(each) async for each in method(b"")]) == 8 * MIB
            assert (windows(tap.clients), probes(tap.clients)) == ({CLIENT_WINDOW}, 0)
    finally:
        await bare.stop(None)
