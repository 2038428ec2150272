"""A line of 4 Mbit/s: what is urgent is not behind what is large, and nothing is given up that is only slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from vantage.testing import inprocess
from vantage.testing.outpost import NODE, Outpost
from vantage.testing.proxy import Proxy

MIB = 1024 * 1024
LINE = 4e6
SIZE = 3 * MIB
"""Takes 6.3 seconds."""
HEARTBEAT = 1
DELAY = 3.0
"""Seconds that a heartbeat or a cancel may be late; behind the payload it would be six."""


@asynccontextmanager
async def silence(outpost: Outpost) -> AsyncIterator[list[float]]:
    """The longest time for which the server has not heard of the node, in the end."""
    longest = [0.0]

    async def look() -> None:
        server = outpost.server.server
        while True:
            heard = server.sessions.presence(NODE).last_seen
            assert heard is not None
            longest[0] = max(longest[0], (server.clock.now() - heard).total_seconds())
            await asyncio.sleep(0.02)

    looking = asyncio.create_task(look())
    try:
        yield longest
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@pytest.mark.parametrize("transport", ["stream", "sync"])
async def test_heartbeats_and_cancels_overtake_a_result(tmp_path: Path, transport: str) -> None:
    async with (
        Outpost.running(tmp_path, heartbeat=HEARTBEAT, lease=6, max_inline_payload_bytes=4 * MIB) as outpost,
        Proxy.to(outpost.server.address, bits_per_second=LINE) as proxy,
    ):
        await outpost.start_node({"address": proxy.address, "transport": transport}, slots=2)
        other = await outpost.create("hold", gate="slow")
        await inprocess.gates["slow"].entered.wait()
        before = proxy.up.carried
        async with silence(outpost) as longest:
            asking = asyncio.create_task(outpost.ask("large", size=SIZE))
            await proxy.up.has_carried(before + SIZE // 3)
            async with asyncio.timeout(DELAY):
                await outpost.cancel(other)
                await inprocess.gates["slow"].done.wait()
            assert proxy.up.carried < before + SIZE  # it was in the middle
            run = await asking
        assert run.result.size_bytes == SIZE, run.failure
        assert longest[0] < HEARTBEAT + DELAY
        assert not any("not connected" in line for line in outpost.said)
