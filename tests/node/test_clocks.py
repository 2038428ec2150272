"""A node's clock that is set while an algorithm runs ends no run, no session and no answer."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.node.test_orders import certify
from vantage.common.attestation import verify_result
from vantage.common.backoff import Backoff
from vantage.common.clock import ManualClock
from vantage.common.dsse import digest_of, peek
from vantage.common.statements import Order
from vantage.node import config as node_config
from vantage.node.agent import Agent
from vantage.node.assembly import assemble
from vantage.testing import inprocess
from vantage.testing.orders import Asker
from vantage.testing.station import ORGANIZATION, Station, send


@pytest.mark.parametrize("days", [1, -1])
async def test_a_run_goes_on_and_its_answer_is_believed(station: Station, tmp_path: Path, days: int) -> None:
    message = Asker(tmp_path / "asking", station).ask("hold", '{"gate": "a"}')
    loaded = node_config.load(station.write())
    clock = ManualClock(datetime.now(UTC))
    agent = Agent(loaded, assemble(loaded), clock=clock, backoff=Backoff(base=0.01, cap=0.1), say=station._say)
    task = asyncio.create_task(agent.run())
    try:
        session = await station.session(heartbeat=0.05, lease=20.0)
        send(session, message)
        for kind in ("accepted", "started"):
            await session.receive(kind)
        clock.jump(timedelta(days=days))
        for _ in range(len(session.heartbeats) + 2):
            await session.receive("heartbeat")
        assert list((await session.receive("heartbeat")).heartbeat.leases) == [message.lease]
        assert not session.ended.is_set()
        inprocess.gates["a"].leave.set()
        completed = (await session.receive("completed")).completed
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    order = peek(message.spec.order)
    verified = verify_result(
        completed.statement,
        certify(station),
        order=digest_of(order),
        asked=Order.decode(order).created,
        run=message.lease.run,
        organization=ORGANIZATION,
        node="",
        digest=digest_of(completed.result.inline),
    )
    assert verified.statement.outcome == "succeeded"
