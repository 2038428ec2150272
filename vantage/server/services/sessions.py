"""All sessions of nodes: who is connected, who holds what until when, and what must reach whom."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial

from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError
from vantage.server.domain.jobs import OpenRelay, RelayAnswer
from vantage.server.domain.leases import LeaseBook
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.runs import Run, RunState
from vantage.server.domain.session import (
    CancelRun,
    Goodbye,
    Hello,
    Logged,
    NodeMessage,
    Progressed,
    SessionSettings,
    Tell,
    Transport,
)
from vantage.server.domain.task_events import Event, RunLogged, RunProgressed
from vantage.server.events.bus import Bus
from vantage.server.events.timers import Timers
from vantage.server.services.commits import Commits
from vantage.server.services.node_session import NodeSession
from vantage.server.services.outbox import ServerMessage
from vantage.server.storage import lifecycle, presence_store, run_store
from vantage.server.storage.lifecycle import Changes, Vacancy
from vantage.server.storage.presence_store import UNKNOWN, Presence

log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
_SECONDS_PER_NODE = 0.005
"""What a node that comes back takes of a core, with TLS."""

Reaffirm = Callable[[NodePrincipal], Awaitable[object]]
"""Looks a node up once more."""

_FENCED = Goodbye(
    Reason.SESSION_FENCED,
    "a newer session of this node took over: two processes with one identity must not run; stop one of them",
)
_DELETED = Goodbye(Reason.PRINCIPAL_UNKNOWN, "the node was deleted on the server")
_CHANGED = Goodbye(Reason.UNAVAILABLE, "what the node serves may have changed: reconnect")
_STOPPING = Goodbye(Reason.SERVER_STOPPING, "the server stops: reconnect with back-off")


class Sessions:
    """The open sessions.

    Args:
        commits: where units of work are committed.
        clock: the time.
        bus: where progress and log lines go.
        settings: what nodes are told.
        reaffirm: looks a node up once more when its session opens; raises when it is no longer admitted.
        trust_version: version of the trust bundle.
    """

    def __init__(
        self,
        commits: Commits,
        clock: Clock,
        bus: Bus,
        settings: SessionSettings | None = None,
        *,
        reaffirm: Reaffirm | None = None,
        trust_version: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._reaffirm = reaffirm
        self._trust_version = trust_version
        self.settings = settings or SessionSettings()
        self.book = LeaseBook()
        self.leases = Timers(clock, self._lose)
        self.on_attendance: Callable[[str], None] | None = None
        self.on_relay_answer: Callable[[RelayAnswer], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self._commits = commits
        self._clock = clock
        self._bus = bus
        self._open: dict[str, NodeSession] = {}
        self._by_organization: dict[str, set[str]] = {}
        self._presence: dict[str, Presence] = {}
        self._progress: dict[str, float] = {}
        self._streams: set[asyncio.Task[None]] = set()
        self._watch_leases: asyncio.Task[None] | None = None
        self._stopping = False
        commits.listen(self._on_changes)
        commits.herald(self._seek)

    async def start(self) -> None:
        """Take up what a former process left: every node that holds runs gets a full lease to come back."""
        self._presence = await self._commits.database.read(presence_store.load)
        expires = self._clock.monotonic() + self.settings.lease_seconds
        for node in await self._commits.database.read(run_store.nodes_with_leases):
            for run in await self._commits.database.read(partial(run_store.leased_to, node=node)):
                self.book.grant(node, run.lease, expires)
            self._watch(node)
        self._watch_leases = asyncio.create_task(self.leases.run(), name="leases")

    async def stop(self) -> None:
        """Say goodbye to every node and end the streams; leases stay, the nodes come back to the next process."""
        self._stopping = True
        for session in self._open.values():
            session.outbox.end(_STOPPING)
        if self._streams:
            # A node that does not read must not keep the server from stopping.
            await asyncio.wait(set(self._streams), timeout=_STOP_SECONDS)
        if self._watch_leases is not None:
            self._watch_leases.cancel()
            await asyncio.gather(self._watch_leases, return_exceptions=True)
        await self._commits.settle()

    async def serve(
        self, node: NodePrincipal, incoming: AsyncIterator[NodeMessage]
    ) -> AsyncGenerator[tuple[int, ServerMessage], None]:
        """Serve one stream: yields (acknowledgement, message) until the session is over.

        Raises:
            InvalidArgumentError: PROTOCOL_VIOLATION.
        """
        session = NodeSession(node, self, self._commits, self._clock, self.settings)
        receiver = asyncio.create_task(session.receive(incoming), name="node session")
        self._streams.add(receiver)
        receiver.add_done_callback(self._streams.discard)
        receiver.add_done_callback(lambda _receiver: session.outbox.end())
        try:
            while (message := await session.outbox.next()) is not None:
                yield message
            if receiver.done() and not receiver.cancelled() and (problem := receiver.exception()) is not None:
                raise _first(problem)
        finally:
            # A call may be cancelled while it ends by itself: that the node is gone is told all the same.
            leaving = asyncio.create_task(self._leave(session, receiver), name="session end")
            self._streams.add(leaving)
            leaving.add_done_callback(self._streams.discard)
            await asyncio.shield(leaving)

    async def _leave(self, session: NodeSession, receiver: asyncio.Task[None]) -> None:
        receiver.cancel()
        await asyncio.gather(receiver, return_exceptions=True)
        await self._closed(session)

    def presence(self, node: str) -> Presence:
        """What is known of a node."""
        known = self._presence.get(node, UNKNOWN)
        session = self._open.get(node)
        return known if session is None else replace(known, last_seen=session.heard)

    def can_take(self, run: Run) -> bool:
        """Whether a node that can take the run, or has it, is connected."""
        if run.state is not RunState.QUEUED:
            return self._is_open(run.node)
        takers = self.takers(run.organization)
        if run.wanted_node:
            return any(node.name == run.wanted_node for node in takers)
        return any(run.collaboration in node.collaborations for node in takers)

    def _is_open(self, node: str) -> bool:
        # A session that was told to end is there for a moment still, and takes nothing any more.
        return (session := self._open.get(node)) is not None and not session.outbox.ended

    def progress(self, run: str) -> float:
        """Latest progress of a run, 0 to 1."""
        return self._progress.get(run, 0.0)

    def dismiss(self, node: str, why: Goodbye = _DELETED) -> None:
        """End the session of a node, by default because it was deleted."""
        if (session := self._open.get(node)) is not None:
            session.outbox.end(why)

    @property
    def connected(self) -> int:
        """How many nodes have an open session."""
        return len(self._open)

    def of_organization(self, organization: str) -> list[NodePrincipal]:
        """Nodes of an organization that are connected, as they authenticated."""
        nodes = self._by_organization.get(organization, ())
        return [self._open[node].node for node in nodes if self._is_open(node)]

    def takers(self, organization: str) -> list[NodePrincipal]:
        """Those of an organization's connected nodes that are not being stopped."""
        return [node for node in self.of_organization(organization) if not self._open[node.name].stopping]

    def stops(self, session: NodeSession) -> None:
        """See ``Board``."""
        self._tell_attendance(session)

    async def trust_version(self) -> int:
        """See ``Board``."""
        return 0 if self._trust_version is None else await self._trust_version()

    def spread(self) -> float:
        """See ``Board``."""
        return min(len(self._open) * _SECONDS_PER_NODE, self.settings.lease_seconds / 2)

    def refresh(self, nodes: Iterable[str]) -> None:
        """End the sessions of nodes whose collaborations may have changed: they come back at once and learn of it."""
        for node in nodes:
            if (session := self._open.get(node)) is not None:
                session.outbox.end(_CHANGED)

    async def opened(self, session: NodeSession, hello: Hello) -> str:
        """See ``Board``."""
        node = session.node.name
        older = self._open.get(node)
        if older is not None:
            log.warning(
                "older session of the node fenced",
                extra={"node": node, "older_instance": older.instance_id, "newer_instance": session.instance_id},
            )
            older.outbox.end(_FENCED)
        self._open[node] = session
        self._by_organization.setdefault(session.node.organization, set()).add(node)
        known = Presence(
            True,
            self._clock.now(),
            hello.version[:80],
            hello.datasets,
            hello.transport,
            hello.catalogue,
            hello.executor,
        )
        self._presence[node] = known
        self._watch(node)
        if self._stopping:
            session.outbox.end(_STOPPING)
        await self._commits.database.write(partial(presence_store.save, node=node, known=known))
        if self._reaffirm is not None:
            # Whoever revokes looks at the open sessions; this one was not among them when its call was admitted.
            try:
                await self._reaffirm(session.node)
            except VantageError as problem:
                session.outbox.end(Goodbye(problem.reason, problem.message))
        self._tell_attendance(session)
        return "" if older is None else older.instance_id

    def _tell_attendance(self, session: NodeSession) -> None:
        if self.on_attendance is not None and not self._stopping:
            self.on_attendance(session.node.organization)

    def _watch(self, node: str) -> None:
        """Look at a node again when its first lease ends, or when it has been silent for as long as a lease lasts."""
        if node in self.leases:
            return
        moments = [] if (expiry := self.book.next_expiry(node)) is None else [expiry]
        if (session := self._open.get(node)) is not None and not session.outbox.ended:
            moments.append(session.heard_at + self.settings.lease_seconds)
        if moments:
            self.leases.set(node, timedelta(seconds=min(moments) - self._clock.monotonic()))

    def push(self, node: str, message: OpenRelay) -> bool:
        """Send the broker's message on a node's session; False when it has none."""
        session = self._open.get(node)
        if session is None or session.outbox.ended:
            return False
        session.outbox.put(message)
        return True

    def relay_answered(self, answer: RelayAnswer) -> None:
        """See ``Board``."""
        if self.on_relay_answer is not None:
            self.on_relay_answer(answer)

    def tell(self, node: str, effect: Tell) -> None:
        """See ``Board``: only what a node holds may it speak of."""
        lease = effect.about.lease
        if not self.book.has(node, lease):
            return
        organization, task = node.rpartition("/nodes/")[0], lease.run.rpartition("/runs/")[0]
        body: RunProgressed | RunLogged
        match effect.about:
            case Progressed(_, fraction, message):
                self._progress[lease.run] = fraction
                body = RunProgressed(lease.run, organization, fraction, message)
            case Logged(_, lines, dropped):
                body = RunLogged(lease.run, organization, lines, dropped)
        self._bus.publish([Event(task, 0, self._clock.now(), body)])

    async def _closed(self, session: NodeSession) -> None:
        node = session.node.name
        if self.on_end is not None:
            self.on_end(node)
        if self._open.get(node) is not session:
            return  # never opened, or fenced: the node belongs to the newer one
        del self._open[node]
        self._by_organization[session.node.organization].discard(node)
        now = self._clock.now()
        self._presence[node] = replace(
            self.presence(node), online=False, last_seen=now, transport=Transport.UNKNOWN, executor=""
        )
        log.info("node disconnected", extra={"node": node, "instance": session.instance_id})
        if not self._stopping:
            await self._commits.database.write(partial(presence_store.seen, node=node, at=now))
        self._tell_attendance(session)

    async def _lose(self, due: Sequence[str]) -> None:
        now, moment = self._clock.now(), self._clock.monotonic()
        for node in due:
            session = self._open.get(node)
            if session is not None and moment - session.heard_at >= self.settings.lease_seconds:
                # The connection is half open, or the node hangs: online is who gives signs of life. Before the leases,
                # whose runs would otherwise be handed to this session again.
                log.warning("silent session ended", extra={"node": node, "instance": session.instance_id})
                session.outbox.end()
            if expired := self.book.expired(node, moment):
                log.warning("leases ended without a sign of life", extra={"node": node, "runs": len(expired)})
                await self._commits.commit(lifecycle.lose, node, expired, now)
                for lease in expired:
                    self.book.drop(node, lease.run)
            self._watch(node)  # the rest was renewed meanwhile

    def _on_changes(self, changes: Changes) -> None:
        # Commits are told in their order, and only here, so that book and streams agree with the database: a lease
        # that was granted and cancelled at once is sent and cancelled in that order.
        for node, lease in changes.released:
            self.book.drop(node, lease.run)
            self._progress.pop(lease.run, None)
            if (session := self._open.get(node)) is not None:
                session.released()
        expires = self._clock.monotonic() + self.settings.lease_seconds
        for node, lease in changes.granted:
            self.book.grant(node, lease, expires)
            self._watch(node)
        for node, work in changes.assigned:
            if (session := self._open.get(node)) is not None:
                session.outbox.put(work)
        for node, lease, reason in changes.revoked:
            if (session := self._open.get(node)) is not None:
                session.outbox.put(CancelRun(lease, reason))
        self._seek(changes.queued)

    def _seek(self, vacancies: Iterable[Vacancy]) -> None:
        """Let the nodes that can take these runs look for them."""
        for vacancy in vacancies:
            nodes = (vacancy.node,) if vacancy.node else tuple(self._by_organization.get(vacancy.organization, ()))
            for node in nodes:
                if (session := self._open.get(node)) is not None:
                    session.offer()


def _first(problem: BaseException) -> BaseException:
    """The error that ended a group of tasks."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return problem
