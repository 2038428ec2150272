"""What the intervals that servers have by default bear: half a minute without a network, and a line of 4 Mbit/s."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from vantage.testing import inprocess
from vantage.testing.outpost import NODE, Outpost
from vantage.testing.proxy import Proxy
from vantage.testing.station import IMAGE

MIB = 1024 * 1024
LINE = 4e6


async def thirty_seconds_without_a_network(directory: Path) -> None:
    async with Outpost.running(directory) as outpost, Proxy.to(outpost.server.address) as proxy:
        await outpost.start_node({"address": proxy.address})
        asking = asyncio.create_task(outpost.ask("hold", gate="dark"))
        await inprocess.gates["dark"].entered.wait()
        proxy.black_out(lose=True)
        await asyncio.sleep(30)
        inprocess.gates["dark"].leave.set()
        proxy.let_through()
        run = await asking
        assert json.loads(run.result.inline) == {"gate": "dark"}, run
        assert inprocess.gates["dark"].count == 1
        assert json.loads((await outpost.ask("echo", value=7)).result.inline) == {"value": 7}
        assert (await outpost.node()).name == NODE


async def a_long_upload_is_not_taken_for_a_dead_connection(directory: Path) -> None:
    """Longer than the keep-alive of connections bears silence."""
    size = 21 * MIB
    async with (
        Outpost.running(directory) as outpost,
        Proxy.to(outpost.server.address, bits_per_second=LINE) as proxy,
    ):
        await outpost.start_node({"address": proxy.address})
        async with asyncio.timeout(110):
            run = await outpost.researcher.ask(IMAGE, "large", {"size": size}, timeout=110)
        assert run.result.size_bytes == size, run.failure
        assert proxy.up.carried < 1.2 * size  # nothing was sent again
        assert not any("not connected" in line for line in outpost.said)


@pytest.mark.slow
async def test_a_lost_network_and_a_slow_line(tmp_path: Path) -> None:
    """Each with a server and a node of its own; both do nothing but wait, so they wait together."""
    async with asyncio.TaskGroup() as both:
        for what in (thirty_seconds_without_a_network, a_long_upload_is_not_taken_for_a_dead_connection):
            (directory := tmp_path / what.__name__).mkdir()
            both.create_task(what(directory), name=what.__name__)
