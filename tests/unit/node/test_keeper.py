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
    unused: Any = None
    keeper = SessionKeeper(
        cast(Connection, unused),
        TransportChoice("auto"),
        Backoff(random=Longest()),
        unused,
        unused,
        unused,
        asyncio.Event(),
    )
    session = cast(Session, SimpleNamespace(ending=ending, spread=5.0))
    assert keeper._delay(session, error(reason, "over")) == delay
