"""TCP connections of runs, on both event loops that nodes have."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

import pytest
import uvloop

from vantage.common.errors import Reason, VantageError
from vantage.node import tcp


async def broken_by_the_other_side() -> None:
    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        stream = await tcp.connect(["127.0.0.1"], server.sockets[0].getsockname()[1])
        for again in (stream.read(), stream.write(b"x"), stream.finish(), stream.read()):
            with pytest.raises(VantageError) as caught:
                await again
            assert caught.value.reason is Reason.CONNECTION_LOST
        stream.close()


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_that_the_other_side_broke_is_lost_and_can_be_closed(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(broken_by_the_other_side())
