"""How long a node waits before its next session."""

from __future__ import annotations

import asyncio
import random
from types import SimpleNamespace
from typing import Any, cast

import pytest

from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, error
from vantage.node.connection import Connection
from vantage.node.keeper import SessionKeeper
from vantage.node.session import Ending, Session
from vantage.node.transport_choice import TransportChoice


class Longest(random.Random):
    """Always the longest of what may be."""

    def uniform(self, a: float, b: float) -> float:
        return b


def build(session: Session | None = None) -> SessionKeeper:
    unused: Any = None

    async def prepare() -> None:
        """Nothing is to be done."""

    return SessionKeeper(
        cast(Connection, unused),
        TransportChoice("auto"),
        Backoff(random=Longest()),
        lambda _transport: cast(Session, session),
        prepare,
        unused,
        asyncio.Event(),
    )


def ended(ending: Ending, *, welcomed: bool) -> Session:
    return cast(Session, SimpleNamespace(ending=ending, welcomed=welcomed, spread=5.0))


@pytest.mark.parametrize(
    ("ending", "reason", "delay"),
    [
        (Ending.CUT, Reason.UNAVAILABLE, 5.0),
        (Ending.TOLD, Reason.SERVER_STOPPING, 5.0),
        (Ending.TOLD, Reason.DATABASE_UNAVAILABLE, 0.2),
        (Ending.STALLED, Reason.UNAVAILABLE, 0.2),  # one connection, not one server; leases are running out
    ],
)
async def test_nodes_of_a_server_that_may_have_ended_spread(ending: Ending, reason: Reason, delay: float) -> None:
    keeper = build()
    assert keeper._delay(ended(ending, welcomed=True), error(reason, "over")) == delay


async def test_a_server_that_went_away_is_looked_for_often_and_then_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    keeper, over = build(), error(Reason.UNAVAILABLE, "over")
    assert keeper._delay(ended(Ending.CUT, welcomed=True), over) == 5.0
    refused = ended(Ending.CUT, welcomed=False)
    assert [keeper._delay(refused, over) for _ in range(7)] == [0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0]
    monkeypatch.setattr("vantage.node.keeper._EXPECTED_SECONDS", 0.0)
    assert keeper._delay(refused, over) == 30.0


async def test_a_server_that_was_never_there_is_not_hurried() -> None:
    keeper, over = build(), error(Reason.UNAVAILABLE, "over")
    delays = [keeper._delay(ended(Ending.CUT, welcomed=False), over) for _ in range(9)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0]


async def test_a_last_session_that_is_lost_is_not_followed_by_a_wait() -> None:
    """As when a machine goes down with server and node: nobody waits for a session that will not be."""

    class Last:
        def __init__(self) -> None:
            self.closed = asyncio.Event()

        async def run(self) -> None:
            keeper._connected.set()
            await self.closed.wait()
            raise error(Reason.SERVER_STOPPING, "over")

        def close(self) -> None:
            self.closed.set()

    keeper = build(cast(Session, Last()))
    running = asyncio.create_task(keeper.run())
    await keeper._connected.wait()
    await keeper.close()
    assert running.done()
    await running
