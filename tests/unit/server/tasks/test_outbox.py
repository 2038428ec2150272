"""A node that says much and reads nothing fills nothing."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from vantage.common.clock import ManualClock
from vantage.server.domain.leases import LeaseBook
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.session import HeartbeatReply, SessionSettings, Welcome
from vantage.server.services.node_session import NodeSession

HEARTBEATS = 3_000


async def test_replies_wait_for_a_node_that_does_not_read() -> None:
    async def trust_version() -> int:
        return 1

    board: Any = SimpleNamespace(book=LeaseBook(), trust_version=trust_version)
    settings = SessionSettings()
    node = NodePrincipal("organizations/alpha/nodes/one", "organizations/alpha", frozenset())
    commits: Any = None
    session = NodeSession(node, board, commits, ManualClock(datetime(2026, 11, 24, tzinfo=UTC)), settings)
    session.outbox.welcome(Welcome(settings, (), (), 1, ""))

    async def beat() -> None:
        for _ in range(HEARTBEATS):
            await session._renew(())

    beating = asyncio.create_task(beat())
    for _ in range(2 * HEARTBEATS):
        await asyncio.sleep(0)
    assert not beating.done()
    assert len(session.outbox._messages) < HEARTBEATS / 2
    replies = 0
    while replies < HEARTBEATS:
        found = await session.outbox.next()
        assert found is not None
        replies += isinstance(found[1], HeartbeatReply)
    await beating
    # The end of the session lets go of whoever waits.
    again = asyncio.create_task(beat())
    for _ in range(2 * HEARTBEATS):
        await asyncio.sleep(0)
    session.outbox.end()
    await again
