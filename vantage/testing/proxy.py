"""A TCP proxy under the control of a test: it loses connections, swallows them, or is as slow as a bad line."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

_BUFFER = 64 * 1024
_SLOW_BUFFER = 16 * 1024
"""Bytes at a time, and in the buffers of the system, on a slow line: what waits here is not on the way."""


class Line:
    """One direction of the way, shared by all connections.

    Attributes:
        carried: bytes that have passed.
        rate: bytes per second; None for as many as come.
    """

    def __init__(self) -> None:
        self.carried = 0
        self.rate: float | None = None
        self._free = 0.0
        self._more = asyncio.Event()

    async def carry(self, size: int) -> None:
        """Take as long as the line takes for so many bytes."""
        if self.rate is not None:
            now = asyncio.get_running_loop().time()
            self._free = max(now, self._free) + size / self.rate
            await asyncio.sleep(self._free - now)
        self.carried += size
        self._more.set()

    async def has_carried(self, size: int) -> None:
        """Wait until so many bytes have passed in all."""
        while self.carried < size:
            self._more.clear()
            await self._more.wait()


class Proxy:
    """Forwards bytes to an address until it is told to break.

    Attributes:
        address: ``host:port`` that clients use.
        connections: how many there have been.
        up: towards the server.
        down: from the server.
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
        self.up, self.down = Line(), Line()
        self._through = asyncio.Event()
        self._through.set()
        self._lost: asyncio.Event = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def to(cls, target: str, *, bits_per_second: float | None = None) -> AsyncIterator[Self]:
        """A proxy on a loopback port that the system picks.

        Args:
            target: ``host:port`` to forward to.
            bits_per_second: of each direction, for all connections together.
        """
        proxy = cls(target)

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            serving = asyncio.create_task(proxy._accept(reader, writer))
            proxy._serving.add(serving)
            serving.add_done_callback(proxy._serving.discard)

        listener = socket.create_server(("127.0.0.1", 0))
        if bits_per_second is not None:
            proxy.up.rate = proxy.down.rate = bits_per_second / 8
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        server = await asyncio.start_server(accept, sock=listener)
        host, port = listener.getsockname()[:2]
        proxy.address = f"{host}:{port}"
        try:
            yield proxy
        finally:
            server.close()
            proxy.cut()
            proxy.let_through()
            await asyncio.gather(*proxy._serving, return_exceptions=True)
            await server.wait_closed()

    def cut(self) -> None:
        """Lose all connections at once; new ones are taken."""
        for writer in self._writers:
            writer.transport.abort()

    def black_out(self, *, lose: bool = False) -> None:
        """Forward nothing in either direction, with all connections open, new ones included, until ``let_through``.

        Args:
            lose: the connections that are open now stay so and never carry anything again, as after an address
                translation that has forgotten them; otherwise they go on afterwards with what was held back.
        """
        self._through.clear()
        if lose:
            self._lost.set()
            self._lost = asyncio.Event()

    def let_through(self) -> None:
        """End a black-out."""
        self._through.set()

    def lead_to(self, target: str) -> None:
        """Forward new connections to another address."""
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        lost = self._lost
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, far_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, far_writer, self.up, lost))
                pumps.create_task(self._pump(far_reader, writer, self.down, lost, self.allowance, cuts=self.cuts))
        finally:
            self._writers -= both
            for each in both:
                each.close()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        line: Line,
        lost: asyncio.Event,
        allowance: int | None = None,
        *,
        cuts: bool = False,
    ) -> None:
        size = _BUFFER if line.rate is None else _SLOW_BUFFER
        with contextlib.suppress(OSError):
            while content := await reader.read(size):
                await line.carry(len(content))
                await self._through.wait()
                if lost.is_set():
                    continue  # swallowed: whoever sent it learns nothing
                if allowance is not None:
                    content = content[:allowance]
                    allowance -= len(content)
                writer.write(content)
                await writer.drain()
                if allowance == 0 and cuts:
                    break
        if not lost.is_set():
            writer.transport.abort()
