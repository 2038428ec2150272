"""The peers of one run: who they are, links to them, what listens here."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Protocol

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.api.relay.v1 import relay_broker_service_pb2 as broker_pb
from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, UnavailableError, VantageError, error
from vantage.common.names import new_id
from vantage.node.door import ByteStream, RunContext
from vantage.node.outside import not_offered
from vantage.node.tunnels import rules
from vantage.node.tunnels.channel import Budget, Channel
from vantage.node.tunnels.keepers import AnsweringKeeper, KeeperSettings, OpeningKeeper
from vantage.node.tunnels.link import FAREWELL_SECONDS, Link, Opening, Parties
from vantage.node.tunnels.wire import Wire

log = logging.getLogger(__name__)

DEFAULT_DIAL_SECONDS = 60.0
MAX_DIAL_SECONDS = 3600.0
MAX_WAITING = 128
"""Connections per listener that wait to be taken."""
WINDOW_BUDGET = 64 * 1024 * 1024
"""How far the windows of a run's channels may grow together."""
_LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Connector(Protocol):
    """How a run's peers are reached: the node's own doing."""

    settings: KeeperSettings
    max_channels: int

    def refusal_of(self, organization: str) -> VantageError | None:
        """Why the node's policy does not allow an organization; None when it does."""
        ...

    async def connect(self, lease: node_pb.Lease, parties: Parties, organization: str) -> Wire:
        """A sealed connection to the node of a peer.

        Raises:
            VantageError: there is none now, or there may be none.
        """
        ...

    def watch(self, lease: node_pb.Lease) -> AsyncGenerator[broker_pb.WatchPeersResponse, None]:
        """The runs of the job."""
        ...


@dataclass
class _Listener:
    arrived: asyncio.Queue[pb.ListenResponse] = field(default_factory=asyncio.Queue)
    announced: dict[str, Channel] = field(default_factory=dict)


@dataclass
class _Pending:
    """A channel that waits for a listener."""

    link: Link
    opening: Opening
    timer: asyncio.TimerHandle


class RunPeers:
    """Keeps ``Outside`` for the kinds of targets that are about peers.

    Args:
        lease: the attempt.
        context: the run.
        connector: how peers are reached.
    """

    def __init__(self, lease: node_pb.Lease, context: RunContext, connector: Connector) -> None:
        self.lease = lease
        self.context = context
        self._connector = connector
        self._budget = Budget(WINDOW_BUDGET)
        self._snapshot: broker_pb.WatchPeersResponse | None = None
        self._problem: VantageError | None = None
        self._changed = asyncio.Condition()
        self._watcher: asyncio.Task[None] | None = None
        self._outgoing: dict[str, tuple[Link, asyncio.Task[None]]] = {}
        self._incoming: dict[str, AnsweringKeeper] = {}
        self._listeners: dict[str, _Listener] = {}
        self._pending: dict[str, list[_Pending]] = {}
        self._closing = False

    # Outside

    async def dial(self, target: pb.DialTarget) -> ByteStream:
        """See ``RunCallbacks``."""
        match target.WhichOneof("target"):
            case "peer":
                return await self._dial_peer(target.peer)
            case "incoming":
                return self._take(target.incoming.connection)
            case _:
                raise not_offered(target)

    async def listen(self, label: str) -> AsyncGenerator[pb.ListenResponse, None]:
        """See ``RunCallbacks``."""
        _check_label(label)
        if label in self._listeners:
            raise error(Reason.IN_USE, f"something listens on {label!r} already", label=label)
        listener = self._listeners[label] = _Listener()
        try:
            yield pb.ListenResponse()
            for waiting in self._pending.pop(label, []):
                waiting.timer.cancel()
                self._announce(listener, waiting.link, waiting.opening)
            while True:
                yield await listener.arrived.get()
        finally:
            del self._listeners[label]
            for channel in listener.announced.values():
                channel.close()

    async def peers(self) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        """See ``RunCallbacks``."""
        told: broker_pb.WatchPeersResponse | None = None
        while True:
            async with self._changed:
                while (snapshot := await self._current()) is told:
                    await self._changed.wait()
            told = snapshot
            yield pb.WatchPeersResponse(
                peers=[
                    pb.Peer(
                        run=each.run,
                        organization=each.organization,
                        node=each.node,
                        state=pb.PeerState.ValueType(int(each.state)),
                        same_task=self._is_sibling(each),
                        self=each.run == self.context.run,
                    )
                    for each in snapshot.peers
                ]
            )

    # From the node.

    def stranger(self, organization: str) -> VantageError | None:
        """Why an organization has no part in this job; None when it has: see ``rules.stranger``."""
        order = self.context.order
        return rules.stranger(None if order is None else order.verified, organization)

    def check_offer(self, offer: node_pb.OpenRelay) -> None:
        """Say no at once where ``answer`` would lead to nothing: the run is ending, and keeps what it has.

        Raises:
            VantageError: PEER_ENDED.
        """
        keeper = self._incoming.get(offer.pair)
        if self._closing and (keeper is None or keeper.link.ended.is_set()):
            raise error(Reason.PEER_ENDED, f"the run at {self.context.organization} has ended")

    async def answer(self, offer: node_pb.OpenRelay, connect: Callable[[Parties], Awaitable[Wire]]) -> None:
        """Carry a connection that a peer asked for, until it is lost or the link has ended.

        Args:
            offer: what the server told.
            connect: gives the sealed connection.

        Raises:
            VantageError: it could not be made.
        """
        # Nobody comes back to a link that has ended.
        self._incoming = {pair: each for pair, each in self._incoming.items() if not each.link.ended.is_set()}
        keeper = self._incoming.get(offer.pair)
        if keeper is None:
            self.check_offer(offer)
            link = Link(
                self._parties(offer.pair, offer.job, offer.peer_run, offer.peer_node), self._budget, self._opened
            )
            keeper = self._incoming[offer.pair] = AnsweringKeeper(link, self._connector.settings)
        try:
            wire = await connect(keeper.link.parties)
        except VantageError:
            if not keeper.used and self._incoming.get(offer.pair) is keeper:
                del self._incoming[offer.pair]  # offers that lead to nothing take no room
            raise
        if self._incoming.setdefault(offer.pair, keeper) is not keeper:
            # Checked for the parties of a link that was given up meanwhile: another may have other ones.
            await wire.close()
            raise error(Reason.PEER_LOST, "the peer was offered twice at once")
        await keeper.carry(wire)
        if not keeper.link.ended.is_set():
            # Whether the peer comes back, only the server can tell: a run that has ended does not.
            self._watch_peers()
            self._leave_ended()

    async def close(self, *, in_order: bool) -> None:
        """The run has ended: say so to every peer, and keep nothing.

        Args:
            in_order: what it has written shall arrive, if a connection has to be resumed for that.
        """
        self._closing = True
        seconds = self._connector.settings.resume_seconds if in_order else FAREWELL_SECONDS
        try:
            await asyncio.gather(*(link.close(seconds) for link in self._links()))
        finally:
            for link in self._links():
                link.fail(error(Reason.CANCELLED, "the run has ended"))
            for waiting in self._pending.values():
                for each in waiting:
                    each.timer.cancel()
            tasks = [keeper for _link, keeper in self._outgoing.values()]
            if self._watcher is not None:
                tasks.append(self._watcher)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _links(self) -> list[Link]:
        return [link for link, _keeper in self._outgoing.values()] + [each.link for each in self._incoming.values()]

    # Dialling.

    async def _dial_peer(self, target: pb.PeerTarget) -> Channel:
        _check_label(target.label)
        seconds = target.timeout.ToTimedelta().total_seconds() if target.HasField("timeout") else DEFAULT_DIAL_SECONDS
        if not 0 < seconds <= MAX_DIAL_SECONDS:
            raise error(Reason.INVALID_ARGUMENT, "timeout must be above zero and at most an hour", field="timeout")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        try:
            async with asyncio.timeout_at(deadline):
                peer = await self._find(target.peer)
        except TimeoutError:
            raise error(
                Reason.PEER_NOT_READY, f"the run at {target.peer[:200]} did not begin within {seconds:g} s"
            ) from None
        self._check_room()
        link = self._link_to(peer, seconds)
        channel = link.open(target.label, max(deadline - loop.time(), 0.001))
        try:
            # A little longer than the other side waits, so that its answer arrives.
            async with asyncio.timeout_at(deadline + 5.0):
                await asyncio.shield(channel.opened)
        except TimeoutError:
            channel.close()
            raise error(Reason.PEER_NOT_READY, f"{peer.node} did not answer within {seconds:g} s") from None
        except asyncio.CancelledError:
            channel.close()
            raise
        return channel

    async def _find(self, wanted: str) -> broker_pb.Peer:
        """Wait until the run that is meant is held by a node."""
        async with self._changed:
            while True:
                snapshot = await self._current()
                others = [each for each in snapshot.peers if each.run != self.context.run]
                run = rules.choose(
                    wanted,
                    [
                        (each.run, each.organization, each.node, self._is_sibling(each))
                        for each in others
                        if each.state != broker_pb.PEER_STATE_ENDED or self._is_sibling(each) or each.run == wanted
                    ],
                )
                peer = next(each for each in others if each.run == run)
                refusal = self._connector.refusal_of(peer.organization) or self.stranger(peer.organization)
                if refusal is not None:
                    raise refusal
                if peer.state == broker_pb.PEER_STATE_ENDED:
                    raise error(Reason.PEER_ENDED, f"the run at {peer.organization} has ended")
                if peer.state == broker_pb.PEER_STATE_ACTIVE:
                    return peer
                await self._changed.wait()

    def _link_to(self, peer: broker_pb.Peer, seconds: float) -> Link:
        found = self._outgoing.get(peer.run)
        if found is not None and not found[0].ended.is_set():
            return found[0]
        assert self._snapshot is not None  # noqa: S101  # the peer was found in it
        parties = self._parties(new_id(), self._snapshot.job, peer.run, peer.node)
        link = Link(parties, self._budget, self._opened)

        async def connect() -> Wire:
            return await self._connector.connect(self.lease, parties, peer.organization)

        keeper = OpeningKeeper(link, connect, self._connector.settings, seconds)
        self._outgoing[peer.run] = link, asyncio.create_task(keeper.run(), name="link keeper")
        return link

    def _parties(self, pair: str, job: str, peer_run: str, peer_node: str) -> Parties:
        context = self.context
        order = "" if context.order is None else context.order.verified.root
        return Parties(pair, job, context.image, context.run, peer_run, peer_node, order)

    def _is_sibling(self, peer: broker_pb.Peer) -> bool:
        return peer.run.startswith(f"{self.context.task}/runs/")

    # Listening.

    def _opened(self, link: Link, opening: Opening) -> None:
        """See ``Link``: the other side opens a channel."""
        if self._closing:
            link.refuse(opening.channel, error(Reason.PEER_ENDED, f"the run at {self.context.organization} has ended"))
            return
        try:
            self._check_room(0)
        except VantageError as problem:
            link.refuse(opening.channel, problem)
            return
        if (listener := self._listeners.get(opening.label)) is not None:
            self._announce(listener, link, opening)
            return
        if _LABEL.fullmatch(opening.label) is None:
            link.refuse(opening.channel, error(Reason.PEER_NOT_READY, "nothing can listen on such a label"))
            return
        seconds = min(max(opening.timeout, 0.0), MAX_DIAL_SECONDS)
        timer = asyncio.get_running_loop().call_later(seconds, self._nobody_listens, opening.label, opening.channel)
        self._pending.setdefault(opening.label, []).append(_Pending(link, opening, timer))

    def _nobody_listens(self, label: str, channel: Channel) -> None:
        for each in self._pending.get(label, []):
            if each.opening.channel is channel:
                self._pending[label].remove(each)
                text = f"nothing listened on {label!r} at {self.context.organization} in time"
                each.link.refuse(channel, error(Reason.PEER_NOT_READY, text))
                break
        if not self._pending.get(label):
            self._pending.pop(label, None)

    def _announce(self, listener: _Listener, link: Link, opening: Opening) -> None:
        if len(listener.announced) >= MAX_WAITING:
            text = f"{MAX_WAITING} connections wait to be taken already"
            link.refuse(opening.channel, error(Reason.TOO_MANY_CHANNELS, text))
            return
        if opening.channel.broken:
            return  # whoever opened has given up meanwhile
        connection = new_id()
        listener.announced[connection] = opening.channel
        link.accept(opening.channel)
        parties = link.parties
        listener.arrived.put_nowait(
            pb.ListenResponse(connection=connection, run=parties.peer_run, node=parties.peer_node)
        )

    def _take(self, connection: str) -> Channel:
        for listener in self._listeners.values():
            if (channel := listener.announced.pop(connection, None)) is not None:
                return channel
        raise error(Reason.NOT_FOUND, "no such connection waits: it was taken already, or its listener has ended")

    def _check_room(self, more: int = 1) -> None:
        if sum(link.channels for link in self._links()) + more > self._connector.max_channels:
            raise error(
                Reason.TOO_MANY_CHANNELS,
                f"the run has {self._connector.max_channels} streams to peers, the node allows no more: close some, or "
                "ask its admin (limits.max_peer_channels)",
            )

    # Discovery.

    async def _current(self) -> broker_pb.WatchPeersResponse:
        """The latest snapshot; ``_changed`` is held."""
        self._watch_peers()
        while self._snapshot is None:
            if self._problem is not None:
                raise self._problem
            await self._changed.wait()
        return self._snapshot

    def _watch_peers(self) -> None:
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="peer watcher")

    async def _watch(self) -> None:
        backoff = Backoff(base=0.1, cap=5.0)
        while True:
            try:
                async with aclosing(self._connector.watch(self.lease)) as snapshots:
                    async for snapshot in snapshots:
                        backoff.reset()
                        await self._update(snapshot)
                return  # the run has ended
            except UnavailableError as problem:
                log.info("watching peers again", extra={"run": self.context.run, "reason": problem.reason.name})
            except VantageError as problem:
                async with self._changed:
                    self._problem = problem
                    self._changed.notify_all()
                return
            await asyncio.sleep(backoff.next_delay())

    async def _update(self, snapshot: broker_pb.WatchPeersResponse) -> None:
        async with self._changed:
            self._snapshot = snapshot
            self._changed.notify_all()
        self._leave_ended()

    def _leave_ended(self) -> None:
        peers = () if self._snapshot is None else self._snapshot.peers
        ended = {each.run for each in peers if each.state == broker_pb.PEER_STATE_ENDED}
        for link in self._links():
            # While there is a connection the peer's own farewell comes over it, behind its last data.
            if link.parties.peer_run in ended and not link.attached.is_set():
                link.fail(error(Reason.PEER_ENDED, f"the run at {link.parties.peer_node} has ended"))


def _check_label(label: str) -> None:
    if _LABEL.fullmatch(label) is None:
        raise error(
            Reason.INVALID_ARGUMENT,
            "a label has 1 to 63 characters of a-z, 0-9, '.', '_' and '-' and begins with a letter or digit",
            field="label",
        )
