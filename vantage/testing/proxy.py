"""A TCP proxy that loses connections, or falls silent, when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

_BUFFER = 64 * 1024


class Proxy:
    """Forwards bytes to an address until it is told to break.

    Attributes:
        address: ``host:port`` that clients use.
        connections: how many there have been.
        allowance: bytes that pass to the client on each connection; None for all.
        cuts: whether a connection whose allowance is used up is lost; otherwise it falls silent.
    """

    def __init__(self, target: str) -> None:
        self.lead_to(target)
        self._writers: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.address = ""
        self.connections = 0
        self.allowance: int | None = None
        self.cuts = False

    @classmethod
    @asynccontextmanager
    async def to(cls, target: str) -> AsyncIterator[Self]:
        """A proxy on a loopback port that the system picks."""
        proxy = cls(target)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving = asyncio.create_task(proxy._accept(reader, writer))
            proxy._serving.add(serving)
            serving.add_done_callback(proxy._serving.discard)

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        proxy.address = f"{host}:{port}"
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
            await asyncio.gather(*proxy._serving, return_exceptions=True)
            await server.wait_closed()

    def cut(self) -> None:
        """Lose all connections at once; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def lead_to(self, target: str) -> None:
        """Forward new connections to another address."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(_pump(reader, far_writer))
                pumps.create_task(_pump(far_reader, writer, self.allowance, cuts=self.cuts))
        finally:
            self._writers -= both
            for each in both:
                each.close()


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, allowance: int | None = None, *, cuts: bool = False
) -> None:
    with contextlib.suppress(OSError):
        while content := await reader.read(_BUFFER):
            if allowance is not None:
                content = content[:allowance]
                allowance -= len(content)
            writer.write(content)
            await writer.drain()
            if allowance == 0 and cuts:
                break
    writer.transport.abort()
