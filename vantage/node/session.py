"""The node's side of its stream: what each message of the server means, and one session from Hello to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Protocol

import grpc

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import Reason, UnauthenticatedError, VantageError, error
from vantage.common.rpc import error_from_rpc, told_by_server
from vantage.node.connection import Connection, FatalError, is_fatal
from vantage.node.journal import Journal
from vantage.node.reporting import News
from vantage.node.transport import Transport, first_of

log = logging.getLogger(__name__)

DEFAULT_HEARTBEAT = timedelta(seconds=10)
DEFAULT_LEASE = timedelta(seconds=30)
DEFAULT_INLINE = 1024 * 1024
MAX_INLINE = 256 * 1024
"""Bytes of a result that travel on the session, whatever the server allows: heartbeats wait behind them."""
WELCOME_TIMEOUT = 20.0
PATIENCE = 0.5
"""Share of a lease that the answer to a heartbeat may take: what comes after it keeps the leases."""
_LOST = frozenset({Reason.UNAVAILABLE, Reason.INTERNAL, Reason.CANCELLED, Reason.DEADLINE_EXCEEDED})
"""What a session that something in between has ended can look like."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the server told in its welcome."""

    heartbeat: timedelta = DEFAULT_HEARTBEAT
    lease: timedelta = DEFAULT_LEASE
    collaborations: tuple[str, ...] = ()
    max_inline_bytes: int = DEFAULT_INLINE
    trust_version: int = 0
    fenced_instance: str = ""
    spread: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Effect: the server has everything up to a sequence."""

    sequence: int


@dataclass(frozen=True, slots=True)
class Welcomed:
    """Effect: the session is open."""

    settings: Settings


@dataclass(frozen=True, slots=True)
class Revoked:
    """Effect: stop these runs and drop what they produce."""

    leases: tuple[pb.Lease, ...]


@dataclass(frozen=True, slots=True)
class Assigned:
    """Effect: take a run on, or refuse it."""

    assign: pb.Assign


@dataclass(frozen=True, slots=True)
class CancelWanted:
    """Effect: stop a run and say so."""

    lease: pb.Lease
    reason: str


@dataclass(frozen=True, slots=True)
class Alive:
    """Effect: the server answered a heartbeat."""

    server_time: datetime
    trust_version: int


@dataclass(frozen=True, slots=True)
class Dismissed:
    """Effect: the session is over."""

    cause: VantageError


@dataclass(frozen=True, slots=True)
class PeerOffered:
    """Effect: a run of another node wants to talk to one of this node's."""

    offer: pb.OpenRelay


Effect = Acknowledged | Welcomed | Revoked | Assigned | CancelWanted | Alive | Dismissed | PeerOffered


@dataclass(frozen=True, slots=True)
class State:
    """Where a session is."""

    welcomed: bool = False
    ack: int = 0


def step(state: State, message: pb.ConnectResponse) -> tuple[State, list[Effect]]:
    """What a message of the server leads to, in order.

    Raises:
        InvalidArgumentError: PROTOCOL_VIOLATION; the session is over.
    """
    effects: list[Effect] = []
    if message.ack > state.ack:
        effects.append(Acknowledged(message.ack))
        state = replace(state, ack=message.ack)
    kind = message.WhichOneof("message")
    if not state.welcomed and kind not in ("welcome", "goodbye"):
        raise error(
            Reason.PROTOCOL_VIOLATION, f"the server must begin with Welcome, it sent {kind}: update server or node"
        )
    match kind:
        case "welcome":
            welcome = message.welcome
            settings = Settings(
                welcome.heartbeat_interval.ToTimedelta() or DEFAULT_HEARTBEAT,
                welcome.lease_duration.ToTimedelta() or DEFAULT_LEASE,
                tuple(welcome.collaborations),
                min(welcome.max_inline_payload_bytes or DEFAULT_INLINE, MAX_INLINE),
                welcome.trust_version,
                welcome.fenced_instance_id,
                welcome.reconnect_spread.ToTimedelta(),
            )
            # What is revoked is dropped before anything is sent again.
            effects += [Revoked(tuple(welcome.revoked)), Welcomed(settings)]
            state = replace(state, welcomed=True)
        case "heartbeat_reply":
            reply = message.heartbeat_reply
            effects += [Alive(reply.server_time.ToDatetime(UTC), reply.trust_version), Revoked(tuple(reply.revoked))]
        case "assign":
            effects.append(Assigned(message.assign))
        case "cancel_run":
            effects.append(CancelWanted(message.cancel_run.lease, message.cancel_run.reason))
        case "open_relay":
            effects.append(PeerOffered(message.open_relay))
        case "goodbye":
            effects.append(Dismissed(_goodbye(message.goodbye)))
        case _:
            pass  # an acknowledgement, or a kind that only newer servers know
    return state, effects


def _goodbye(message: pb.Goodbye) -> VantageError:
    try:
        reason = Reason[message.reason]
    except KeyError:
        reason = Reason.UNAVAILABLE
    return error(reason, message.message or "the server ended the session")


class Work(Protocol):
    """What a session needs from those who do the work. None of these may wait: the stream is read on."""

    def assigned(self, assign: pb.Assign) -> None:
        """Take a run on, or refuse it; may come again."""
        ...

    def cancel(self, lease: pb.Lease, reason: str) -> None:
        """Stop a run and say so; may come again, and for a run that is not here."""
        ...

    def revoke(self, lease: pb.Lease) -> None:
        """Stop a run and say nothing about it."""
        ...

    def offered(self, offer: pb.OpenRelay) -> None:
        """A run of another node wants to talk to one of this node's: answer on the session."""
        ...

    def welcomed(self, settings: Settings) -> None:
        """The session is open; with what the server told."""
        ...

    def trust_version(self, version: int) -> None:
        """The server has said which version of the trust bundle there is."""
        ...

    def free_slots(self) -> int:
        """How many runs could start now."""
        ...

    def stopping(self) -> bool:
        """Whether the node is being stopped, and takes on nothing but subtasks."""
        ...


class Ending(Enum):
    """How a session ended, seen from the transport."""

    TOLD = "told"
    """In order, or with a word of the server."""
    CUT = "cut"
    """In the middle, without a word."""
    STALLED = "stalled"
    """It was open, and nothing came."""


class Session:
    """One session with the server.

    Args:
        connection: the way there.
        transport: carries messages.
        journal: what must be said.
        news: what may be lost.
        work: who does what the server asks.
        hello: builds the first message.
    """

    def __init__(
        self,
        connection: Connection,
        transport: Transport,
        journal: Journal,
        news: News,
        work: Work,
        hello: Callable[[], pb.Hello],
    ) -> None:
        self.ending = Ending.TOLD
        self._connection = connection
        self._transport = transport
        self._journal = journal
        self._news = news
        self._work = work
        self._hello = hello
        self._state = State()
        self._settings = Settings()
        self._wake = asyncio.Event()
        self._heartbeat_due = False
        self._closing = False
        self._heard = asyncio.Event()

    async def run(self) -> None:
        """Hold the session until it ends; returns when ``close`` was asked and the server ended the stream.

        Raises:
            FatalError: the server does not admit the node.
            VantageError: it ended for a reason that may pass.
        """
        await self._connection.metadata()  # here, so that the time for the welcome is the server's
        try:
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(self._watch(self._journal.changed), name="journal watcher"),
                    group.create_task(self._watch(self._news.ready), name="news watcher"),
                    group.create_task(self._beat(), name="heartbeat"),
                ]
                await self._receive()
                for helper in helpers:
                    helper.cancel()
        except* grpc.aio.AioRpcError as problems:
            raise self._translate(first_of(problems)) from problems
        except* (VantageError, FatalError) as problems:
            raise first_of(problems) from problems

    @property
    def welcomed(self) -> bool:
        """Whether the server has admitted the session."""
        return self._state.welcomed

    @property
    def spread(self) -> float:
        """Seconds over which the server wants its nodes to spread when all come back at once."""
        return self._settings.spread.total_seconds()

    def close(self) -> None:
        """Say what is to be said and end the stream from this side."""
        self._closing = True
        self._wake.set()

    def beat(self) -> None:
        """Give a sign of life now, once the session is open."""
        self._heartbeat_due = True
        self._wake.set()

    async def _receive(self) -> None:
        try:
            async with asyncio.timeout(WELCOME_TIMEOUT) as limit:
                async with aclosing(self._transport.carry(self._outgoing())) as messages:
                    async for message in messages:
                        limit.reschedule(None)
                        self._state, effects = step(self._state, message)
                        for effect in effects:
                            self._apply(effect)
        except TimeoutError:
            self.ending = Ending.STALLED
            raise error(Reason.UNAVAILABLE, "the server accepted the session but sent no welcome") from None
        if not self._closing:
            self.ending = Ending.CUT
            raise error(Reason.UNAVAILABLE, "the server ended the session")

    def _apply(self, effect: Effect) -> None:
        match effect:
            case Acknowledged(sequence):
                self._journal.acknowledge(sequence)
            case Welcomed(settings):
                self._settings = settings
                self._connection.welcomed()
                self._heard.set()
                self._work.welcomed(settings)
                self._wake.set()
            case Revoked(leases):
                for lease in leases:
                    self._work.revoke(lease)
            case Assigned(assign):
                self._work.assigned(assign)
            case CancelWanted(lease, reason):
                self._work.cancel(lease, reason)
            case PeerOffered(offer):
                self._work.offered(offer)
            case Alive(_server_time, trust_version):
                self._heard.set()
                self._work.trust_version(trust_version)
            case Dismissed(cause):
                if is_fatal(cause):
                    raise FatalError(cause)
                raise cause

    async def _outgoing(self) -> AsyncGenerator[pb.ConnectRequest, None]:
        """What the session says: heartbeats first, then the journal in order, then news."""
        yield pb.ConnectRequest(hello=self._hello())
        sent = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._state.welcomed:
                if self._closing:
                    return
                continue
            if self._heartbeat_due:
                yield self._heartbeat()
            # News before the journal: what a run printed comes before its end.
            for news in self._news.take():
                yield news
            for message in self._journal.unsent(sent):
                if self._heartbeat_due:
                    yield self._heartbeat()
                sent = message.sequence
                yield message
            if self._closing:
                return

    def _heartbeat(self) -> pb.ConnectRequest:
        self._heartbeat_due = False
        return pb.ConnectRequest(
            heartbeat=pb.Heartbeat(
                leases=self._journal.leases(), free_slots=self._work.free_slots(), stopping=self._work.stopping()
            )
        )

    async def _watch(self, event: asyncio.Event) -> None:
        while True:
            await event.wait()
            event.clear()
            self._wake.set()

    async def _beat(self) -> None:
        """Give a sign of life in time, and notice when the server gives none: the connection is then half open."""
        await self._heard.wait()
        while True:
            await asyncio.sleep(self._settings.heartbeat.total_seconds())
            self._heard.clear()
            self.beat()
            try:
                async with asyncio.timeout(self._settings.lease.total_seconds() * PATIENCE):
                    await self._heard.wait()
            except TimeoutError:
                self.ending = Ending.STALLED
                raise error(
                    Reason.UNAVAILABLE, "the server did not answer a heartbeat: the connection is half open"
                ) from None

    def _translate(self, problem: grpc.aio.AioRpcError) -> Exception:
        cause = error_from_rpc(problem)
        if cause.reason in _LOST and not told_by_server(problem):
            self.ending = Ending.CUT
        if isinstance(cause, UnauthenticatedError):
            # The token may have been revoked, or the server replaced: a fresh assertion decides.
            return FatalError(cause) if self._connection.token_refused() else cause
        return FatalError(cause) if is_fatal(cause) else cause
