"""One session of one node: carries out the effects of its messages and hands it work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol, assert_never

from vantage.common.clock import Clock
from vantage.server.domain.jobs import RelayAnswer
from vantage.server.domain.leases import LeaseBook, Reconciliation
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.runs import Lease, RunEvent
from vantage.server.domain.session import (
    Apply,
    Effect,
    HeartbeatReply,
    Hello,
    NodeMessage,
    Open,
    Renew,
    SessionSettings,
    SessionState,
    Tell,
    Welcome,
    step,
)
from vantage.server.services.commits import Commits
from vantage.server.services.outbox import Outbox
from vantage.server.storage import assignment

log = logging.getLogger(__name__)

MAX_CLAIM = 64
"""Runs per commit."""
MAX_REPORTS = 256
"""Reports that wait for their commit; the stream is not read further until it is done."""
MAX_REPORT_BYTES = 4 * 1024 * 1024
"""Bytes of what these reports bring along, reached by the last one of them."""
_LINGER = 0.005
"""How long the news that an algorithm started waits for what follows: a short run then costs one commit, not two."""
_NOTHING = Reconciliation((), (), (), ())


@dataclass(frozen=True)
class _Claim:
    """A search for work: how much was asked for, and how much there was."""

    free: int
    taken: asyncio.Future[int]


class Board(Protocol):
    """What a session needs from all sessions."""

    book: LeaseBook

    async def opened(self, session: NodeSession, hello: Hello) -> str:
        """A session begins: fence the older one of the same node, note what the node says of itself.

        Returns the instance of the fenced session, or nothing.
        """
        ...

    def stops(self, session: NodeSession) -> None:
        """The node is being stopped: it takes what is new no more."""
        ...

    async def trust_version(self) -> int:
        """Version of the trust bundle."""
        ...

    def spread(self) -> float:
        """Seconds over which nodes shall spread when all come back at once."""
        ...

    def relay_answered(self, answer: RelayAnswer) -> None:
        """The node has answered an offer of the broker."""
        ...

    def tell(self, node: str, effect: Tell) -> None:
        """Tell those who watch."""
        ...


class NodeSession:
    """A stream of one node.

    Args:
        node: whose stream it is.
        board: all sessions.
        commits: where units of work are committed.
        clock: the time.
        settings: what the node is told.
    """

    def __init__(
        self, node: NodePrincipal, board: Board, commits: Commits, clock: Clock, settings: SessionSettings
    ) -> None:
        self.node = node
        self._vacancy = asyncio.Event()
        self.outbox = Outbox(self._vacancy.set)
        self.instance_id = ""
        self.heard = clock.now()
        self.heard_at = clock.monotonic()
        self._board = board
        self._commits = commits
        self._clock = clock
        self._settings = settings
        self._state = SessionState()
        self._reports: list[Apply] = []
        self._report_bytes = 0
        self._reported = asyncio.Event()
        self._room = asyncio.Event()
        self._claim: _Claim | None = None
        self._more = True
        self._ready = False
        self._silent = False

    @property
    def stopping(self) -> bool:
        """Whether the node is being stopped."""
        return self._state.stopping

    def offer(self) -> None:
        """There may be work for the node: look for it now, behind what has been submitted so far."""
        self._more = True
        if self._claim is None:
            self._claim = self._look()
        self._vacancy.set()

    def released(self) -> None:
        """The node holds one run less; look for more if there may be any."""
        if self._more:
            self._vacancy.set()

    async def receive(self, incoming: AsyncIterator[NodeMessage]) -> None:
        """Carry out what the node says until it says no more.

        Raises:
            InvalidArgumentError: PROTOCOL_VIOLATION.
        """
        async with asyncio.TaskGroup() as workers:
            helpers: list[asyncio.Task[None]] = []
            async for message in incoming:
                self.heard, self.heard_at = self._clock.now(), self._clock.monotonic()
                before = self._state
                self._state, effect = step(before, message)
                if before.greeted and self._state.stopping and not before.stopping:
                    self._board.stops(self)
                if isinstance(effect, Open):
                    await self._open(effect.hello)
                    workers.create_task(self._apply())
                    helpers = [workers.create_task(self._assign())]
                else:
                    await self._carry_out(effect)
            # What was said last counts as well: only the search for work ends at once.
            self._silent = True
            self._reported.set()
            for helper in helpers:
                helper.cancel()

    async def _open(self, hello: Hello) -> None:
        self.instance_id = hello.instance_id
        # In this order: from now on cancels go to this session, and wait in its outbox behind the welcome.
        fenced = await self._board.opened(self, hello)
        now = self._clock.now()
        # The book knows every lease that was granted, and what is granted from now on comes to this session.
        found = _NOTHING
        if hello.leases or self._board.book.count(self.node.name):
            found = await self._commits.commit(assignment.come_back, self.node.name, hello.leases, now)
        self.outbox.welcome(
            Welcome(
                self._settings,
                found.revoked,
                tuple(sorted(self.node.collaborations)),
                await self._board.trust_version(),
                fenced,
                self._board.spread(),
            )
        )
        log.info(
            "node connected",
            extra={
                "node": self.node.name,
                "instance": hello.instance_id,
                "version": hello.version,
                "transport": hello.transport.name.lower(),
                "kept": len(found.kept) + len(found.resumed),
                "revoked": len(found.revoked),
                "resent": len(found.resent),
            },
        )
        self._ready = True
        self.offer()

    async def _carry_out(self, effect: Effect) -> None:
        match effect:
            case Apply():
                self._reports.append(effect)
                self._report_bytes += effect.report.weight
                self._reported.set()
                while len(self._reports) >= MAX_REPORTS or self._report_bytes >= MAX_REPORT_BYTES:
                    self._room.clear()
                    await self._room.wait()
            case Renew(leases):
                await self._renew(leases)
            case Tell():
                self._board.tell(self.node.name, effect)
            case RelayAnswer():
                self._board.relay_answered(effect)
            case Open():
                raise AssertionError("handled by the caller")
            case _:
                assert_never(effect)

    async def _renew(self, leases: tuple[Lease, ...]) -> None:
        now = self._clock.now()
        expires = self._clock.monotonic() + self._settings.lease_seconds
        revoked: list[Lease] = []
        # Known leases cost no look at the database.
        if unknown := self._board.book.renew(self.node.name, leases, expires):
            revoked = await self._commits.commit(assignment.check_leases, self.node.name, unknown, now)
        await self.outbox.room()
        self.outbox.put(HeartbeatReply(tuple(revoked), now, await self._board.trust_version()))

    async def _apply(self) -> None:
        """Let reports take effect, all that wait in one commit, and acknowledge them after it."""
        while self._reports or not self._silent:
            await self._reported.wait()
            self._reported.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LINGER):
                    while self._only_beginnings() and not self._silent:
                        await self._reported.wait()
                        self._reported.clear()
            batch, self._reports, self._report_bytes = self._reports, [], 0
            self._room.set()
            if not batch:
                continue
            reports = [each.report for each in batch if each.report.event is not None]
            if reports:
                stale = await self._commits.commit(assignment.apply_reports, self.node.name, reports, self._clock.now())
                if stale:
                    log.warning(
                        "reports without a valid lease ignored", extra={"node": self.node.name, "reports": len(stale)}
                    )
            self.outbox.acknowledge(max(each.sequence for each in batch))

    def _only_beginnings(self) -> bool:
        return all(each.report.event in (RunEvent.START, None) for each in self._reports)

    async def _assign(self) -> None:
        """Claim runs whenever there may be some and the node has room."""
        while True:
            await self._vacancy.wait()
            self._vacancy.clear()
            if self._claim is None and self._more:
                self._claim = self._look()
            if (claim := self._claim) is None:
                continue
            # The runs reach the outbox with the changes of the commit.
            taken = await asyncio.shield(claim.taken)
            self._claim = None
            if taken == claim.free:
                self._more = True
            if self._more:
                self._vacancy.set()

    def _look(self) -> _Claim | None:
        """Begin to claim runs, as many as the node has room for; one claim at a time."""
        free = min(self._state.slots - self._board.book.count(self.node.name), MAX_CLAIM)
        if free < 1 or self.outbox.ended or not self.outbox.has_room_for_work or not self._ready:
            return None
        self._more = False
        now, subtasks = self._clock.now(), self._state.stopping
        return _Claim(free, self._commits.submit(assignment.claim, self.node, free, now, subtasks))
