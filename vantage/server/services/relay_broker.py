"""Brings two runs of one job together: checks, chooses a relay, asks the other node, issues tickets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from vantage.common import names
from vantage.common.errors import Reason, error
from vantage.server.domain.jobs import Job, OpenRelay, Peer, RelayAnswer, RelayEndpoint, held, reachable
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.runs import LEASED, Lease
from vantage.server.relay.tickets import Side, TicketIssuer
from vantage.server.services.commits import Commits
from vantage.server.storage import job_store
from vantage.server.storage.lifecycle import Changes

log = logging.getLogger(__name__)

ANSWER_SECONDS = 15.0
"""How long the other node has to answer; it may wait for its run to begin meanwhile."""
MAX_OFFERS = 512
"""Offers of one node that wait for an answer."""


class Nodes(Protocol):
    """The sessions of nodes, as the broker needs them."""

    def push(self, node: str, message: OpenRelay) -> bool:
        """Send a message on a node's session; False when it has none."""
        ...


class Relays(Protocol):
    """The relays that there are."""

    def choose(self) -> RelayEndpoint:
        """The one for the next pair.

        Raises:
            UnavailableError: RELAY_UNAVAILABLE.
        """
        ...


class Opened:
    """What the asking node gets."""

    def __init__(self, relay: RelayEndpoint, ticket: str, peer_node: str, job: str) -> None:
        self.relay = relay
        self.ticket = ticket
        self.peer_node = peer_node
        self.job = job


@dataclass(frozen=True)
class _Offer:
    """What a node was asked, and by whom."""

    asker: str
    node: str
    answer: asyncio.Future[RelayAnswer]


class RelayBroker:
    """The broker.

    Args:
        commits: tells what changes; its database is read.
        nodes: the sessions.
        relays: what to choose from.
        issuer: signs tickets.
    """

    def __init__(self, commits: Commits, nodes: Nodes, relays: Relays, issuer: TicketIssuer) -> None:
        self._database = commits.database
        self._nodes = nodes
        self._relays = relays
        self._issuer = issuer
        self._offers: dict[str, _Offer] = {}
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._closed = False
        commits.listen(self._on_changes)

    async def open_pair(self, node: NodePrincipal, lease: Lease, peer_run: str, pair: str) -> Opened:
        """Let a run of the calling node talk to another run of its job.

        Raises:
            VantageError: as RelayBrokerService.OpenPair.
        """
        names.parse(peer_run, "tasks/runs", field="peer_run")
        pair = names.parse_request_id(pair)
        job = await self._job(lease)
        asking = held(job, node.name, lease)
        assert job is not None  # noqa: S101  # held would have raised
        peer = reachable(job, asking, peer_run)
        if sum(1 for each in self._offers.values() if each.asker == node.name) >= MAX_OFFERS:
            raise error(Reason.RATE_LIMITED, f"{MAX_OFFERS} connections are being opened", retry_after_seconds="1")
        relay = self._relays.choose()
        # New for each attempt: a side that is late for one must not meet a side of the next.
        offer = names.new_id()
        ticket = self._issuer.issue(relay.name, offer, Side.ANSWERS, job.root, peer.node)
        answer = await self._ask(
            node.name,
            peer.node,
            OpenRelay(offer, pair, peer.lease, relay, ticket, asking.name, node.name, job.root),
        )
        if answer.refusal is not None:
            raise answer.refusal
        ticket = self._issuer.issue(relay.name, offer, Side.OPENS, job.root, node.name)
        return Opened(relay, ticket, peer.node, job.root)

    def close(self) -> None:
        """The server stops: end all who watch, so that nobody has to be waited for."""
        self._closed = True
        for watchers in self._watchers.values():
            for watcher in watchers:
                watcher.set()

    def answered(self, answer: RelayAnswer) -> None:
        """A node has answered an offer; what nobody waits for any more is forgotten."""
        if (offer := self._offers.get(answer.offer)) is not None and not offer.answer.done():
            offer.answer.set_result(answer)

    def gone(self, node: str) -> None:
        """A session of a node has ended, and with it what was asked and answered there."""
        for offer in self._offers.values():
            if offer.node == node and not offer.answer.done():
                offer.answer.set_exception(error(Reason.PEER_LOST, f"{node} lost its connection to the server"))

    async def watch(self, node: NodePrincipal, lease: Lease) -> AsyncGenerator[tuple[str, tuple[Peer, ...]], None]:
        """The root and the runs of a run's job, again whenever one has changed, until the run has ended.

        Raises:
            ConflictError: LEASE_INVALID.
        """
        changed = asyncio.Event()
        watched: frozenset[str] = frozenset()
        told: tuple[Peer, ...] | None = None
        try:
            while True:
                # Cleared before reading: what changes meanwhile is read the next time.
                changed.clear()
                job = await self._job(lease)
                if told is not None and (job is None or (run := job.run(lease.run)) is None or run.state not in LEASED):
                    return
                held(job, node.name, lease)
                assert job is not None  # noqa: S101  # held would have raised
                if not job.tasks <= watched:
                    for task in job.tasks - watched:
                        self._watchers.setdefault(task, set()).add(changed)
                    watched |= job.tasks
                    continue  # a change before the subscription would have been missed
                if job.peers != told:
                    told = job.peers
                    yield job.root, told
                await changed.wait()
                if self._closed:
                    raise error(Reason.SERVER_STOPPING, "the server stops: watch again when it is back")
        finally:
            for task in watched:
                self._watchers[task].discard(changed)
                if not self._watchers[task]:
                    del self._watchers[task]

    async def _job(self, lease: Lease) -> Job | None:
        if not names.is_valid(lease.run, "tasks/runs"):
            return None
        return await self._database.read(partial(job_store.job_of, name=lease.run))

    async def _ask(self, asker: str, node: str, message: OpenRelay) -> RelayAnswer:
        answer: asyncio.Future[RelayAnswer] = asyncio.get_running_loop().create_future()
        self._offers[message.offer] = _Offer(asker, node, answer)
        try:
            if not self._nodes.push(node, message):
                raise error(Reason.PEER_LOST, f"{node} is not connected to the server")
            async with asyncio.timeout(ANSWER_SECONDS):
                return await answer
        except TimeoutError:
            raise error(Reason.PEER_LOST, f"{node} did not answer within {ANSWER_SECONDS:g} s") from None
        finally:
            del self._offers[message.offer]

    def _on_changes(self, changes: Changes) -> None:
        if not self._watchers:
            return
        tasks = {event.task for event in changes.events}
        # A subtask that was unknown begins: its parent's job has grown.
        tasks.update(work.spec.parent_run.partition("/runs/")[0] for _node, work in changes.assigned)
        for task in tasks:
            for watcher in self._watchers.get(task, ()):
                watcher.set()
