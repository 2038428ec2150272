"""Connections that stay open and carry nothing: noticed within a stated time on both sides, and nothing is hurt."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vantage.testing import inprocess
from vantage.testing.outpost import Outpost
from vantage.testing.proxy import Proxy

HEARTBEAT, LEASE = 1, 3
NODE_BOUND = HEARTBEAT + LEASE / 2
"""Seconds after the last answered heartbeat at which the node gives a connection up; the server after LEASE."""
SLACK = 5.0
"""For a machine with other work."""


@pytest.fixture
async def outpost(tmp_path: Path) -> AsyncIterator[Outpost]:
    async with Outpost.running(tmp_path, heartbeat=HEARTBEAT, lease=LEASE) as running:
        yield running


async def offline(outpost: Outpost) -> None:
    """Wait until the server has noticed."""
    async with asyncio.timeout(30):
        while (await outpost.node()).online:  # noqa: ASYNC110  # it tells nobody
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("transport", ["stream", "sync"])
async def test_both_sides_notice_a_half_open_connection_in_time(outpost: Outpost, transport: str) -> None:
    loop = asyncio.get_running_loop()
    async with Proxy.to(outpost.server.address) as proxy:
        await outpost.start_node({"address": proxy.address, "transport": transport})
        assert (await outpost.node()).online
        proxy.black_out(lose=True)
        began = loop.time()
        await outpost.heard("half open")
        assert loop.time() - began < NODE_BOUND + SLACK
        await offline(outpost)
        assert loop.time() - began < LEASE + SLACK
        proxy.let_through()
        assert json.loads((await outpost.ask("echo", value=7)).result.inline) == {"value": 7}
        assert proxy.connections >= 2


@pytest.mark.parametrize("lose", [False, True])
async def test_a_run_goes_on_through_a_black_out(outpost: Outpost, lose: bool) -> None:
    """Longer than a lease: the run is given up by the server, and its answer is believed nevertheless."""
    async with Proxy.to(outpost.server.address) as proxy:
        await outpost.start_node({"address": proxy.address})
        asking = asyncio.create_task(outpost.ask("hold", gate="dark"))
        await inprocess.gates["dark"].entered.wait()
        proxy.black_out(lose=lose)
        await outpost.heard("half open")
        await offline(outpost)
        inprocess.gates["dark"].leave.set()
        proxy.let_through()
        run = await asking
        assert json.loads(run.result.inline) == {"gate": "dark"}, run
        assert run.attempt == 1
        assert inprocess.gates["dark"].count == 1


async def test_a_half_open_connection_costs_no_lease(tmp_path: Path) -> None:
    """The node is back before the leases of its runs end: the server never gives the run back to the queue."""
    async with (
        Outpost.running(tmp_path, heartbeat=1, lease=8) as outpost,
        Proxy.to(outpost.server.address) as proxy,
    ):
        await outpost.start_node({"address": proxy.address})
        asking = asyncio.create_task(outpost.researcher.events(outpost.question("hold", gate="dark")))
        await inprocess.gates["dark"].entered.wait()
        proxy.black_out(lose=True)
        proxy.let_through()  # new connections only
        await outpost.heard("half open")
        async with asyncio.timeout(20):
            assert outpost.agent is not None
            await outpost.agent.connected.wait()
        inprocess.gates["dark"].leave.set()
        events = await asking
        states = [each.run_changed.run.state for each in events if each.HasField("run_changed")]
        assert states == sorted(states)  # never QUEUED again
        assert inprocess.gates["dark"].count == 1
