"""Ports of a run, where no node is needed to see what they do."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from vantage.algorithm.forwarding import lead
from vantage.algorithm.streams import PeerError, Stream
from vantage.common.errors import Reason


async def refused() -> Stream:
    raise PeerError(Reason.EGRESS_REFUSED, "not allowed")


async def test_a_program_that_has_gone_before_it_is_refused_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    led: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with pytest.raises(ConnectionResetError):
            await reader.read()
        try:
            await lead(refused(), "there", reader, writer)
        except OSError as problem:
            led.set_exception(problem)
        else:
            led.set_result(None)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        _reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        async with asyncio.timeout(10):
            await led
    assert "no connection to there" in capsys.readouterr().err
