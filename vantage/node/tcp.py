"""TCP connections that a node makes for its runs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence

from vantage.common.errors import Reason, VantageError, error

CONNECT_SECONDS = 10.0
"""For all addresses of a host together."""
_CHUNK = 256 * 1024


async def resolve(host: str, port: int) -> tuple[str, ...]:
    """Addresses of a host, each once.

    Raises:
        OSError: it is not known.
        TimeoutError: nobody says in time.
    """
    async with asyncio.timeout(CONNECT_SECONDS):
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


async def connect(addresses: Sequence[str], port: int) -> TcpStream:
    """Connect to the first of these addresses that answers; names are not resolved again.

    Raises:
        OSError: none answers.
        TimeoutError: none answers in time.
    """
    problem = OSError("there is no address")
    async with asyncio.timeout(CONNECT_SECONDS):
        for address in addresses:
            try:
                return TcpStream(*await asyncio.open_connection(address, port, limit=_CHUNK))
            except OSError as failure:
                problem = failure
    raise problem


class TcpStream:
    """Keeps ``ByteStream`` over a TCP connection.

    Attributes:
        sent: bytes that were written to the other side.
        received: bytes that were read from it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.sent = 0
        self.received = 0
        self._reader = reader
        self._writer = writer
        self._finished = False
        self._ended = False
        self._closed = False

    async def read(self) -> bytes:
        """See ``ByteStream``."""
        try:
            data = await self._reader.read(_CHUNK)
        except OSError as problem:
            raise _lost(problem) from problem
        if self._closed:
            raise _lost(ConnectionAbortedError("it was closed here"))
        self.received += len(data)
        self._ended |= not data
        return data

    async def write(self, data: bytes) -> None:
        """See ``ByteStream``."""
        self._check()
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as problem:
            raise _lost(problem) from problem
        self.sent += len(data)

    async def finish(self) -> None:
        """See ``ByteStream``."""
        self._check()
        self._finished = True
        try:
            self._writer.write_eof()
            await self._writer.drain()
        except OSError as problem:
            raise _lost(problem) from problem

    def close(self) -> None:
        """See ``ByteStream``."""
        if self._closed:
            return
        self._closed = True
        if self._finished and self._ended:
            self._writer.close()
            return
        # The other side must see a connection that broke, not one that ended.
        connection = self._writer.get_extra_info("socket")
        if connection is not None:
            with contextlib.suppress(OSError):  # it is broken already
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    def _check(self) -> None:
        # Of a transport that is closed uvloop says RuntimeError, and the standard loop nothing at first.
        if self._writer.is_closing():
            raise _lost(ConnectionResetError("it is closed"))


def _lost(problem: OSError) -> VantageError:
    return error(Reason.CONNECTION_LOST, f"the connection broke: {problem.strerror or problem}: connect again")
