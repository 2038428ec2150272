"""Peers: the runs of the same job at other nodes, and how to talk to them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from vantage.algorithm.forwarding import Forwarder
from vantage.algorithm.patience import CHANNEL_OPTIONS, lost
from vantage.algorithm.streams import PeerError, RawCall, Stream
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.algorithm.v1 import algorithm_service_pb2_grpc
from vantage.common.errors import Reason

_DIAL = "/vantage.api.algorithm.v1.AlgorithmService/Dial"
_MAX_MESSAGE = 16 * 1024 * 1024
DEFAULT_TIMEOUT = 60.0
_NODE_SECONDS = 5.0
"""What the node may take in addition to say that the time is over."""

_STATES = {pb.PEER_STATE_WAITING: "waiting", pb.PEER_STATE_ACTIVE: "active", pb.PEER_STATE_ENDED: "ended"}


@dataclass(frozen=True)
class Peer:
    """A run of the job.

    Attributes:
        organization: id, e.g. "clara".
        run: name of the run, for ``connect`` when an organization has several.
        node: name of the node; empty while the run waits for one.
        state: "waiting", "active" or "ended".
        same_task: whether it belongs to the task of this run.
        self: whether it is this run.
    """

    organization: str
    run: str
    node: str
    state: str
    same_task: bool
    self: bool


class Peers:
    """Talk to the other runs of the job. An asynchronous context manager; everything is closed at its end.

    Args:
        target: of the node's local API, ``unix:PATH``.
        token: of the run.
    """

    def __init__(self, target: str, token: str) -> None:
        options = [
            *CHANNEL_OPTIONS,
            ("grpc.max_receive_message_length", _MAX_MESSAGE),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._channel = grpc.aio.insecure_channel(target, options=options)
        self._stub = algorithm_service_pb2_grpc.AlgorithmServiceStub(self._channel)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._open: set[Stream] = set()
        self._forwarders: list[Forwarder] = []

    async def connect(self, peer: str, label: str, *, timeout: float = DEFAULT_TIMEOUT) -> Stream:  # noqa: ASYNC109
        """Open a stream to a peer that listens on ``label``, or will in time.

        Args:
            peer: organization, node or run.
            label: 1 to 63 characters of a-z, 0-9, '.', '_' and '-'.
            timeout: seconds for the peer to begin and to listen.

        Raises:
            PeerError: it cannot be reached; ``code`` says why.
        """
        target = pb.PeerTarget(peer=peer, label=label)
        target.timeout.FromMilliseconds(max(int(timeout * 1000), 1))
        try:
            # The node keeps the time; but it may be away.
            async with asyncio.timeout(timeout + _NODE_SECONDS):
                return await self._dial(pb.DialTarget(peer=target))
        except TimeoutError:
            raise PeerError(Reason.PEER_NOT_READY, f"the node did not answer within {timeout:g} s") from None

    @contextlib.asynccontextmanager
    async def listen(self, label: str) -> AsyncIterator[AsyncGenerator[Stream, None]]:
        """Listen on a label: ``async with peers.listen("ring") as streams: stream = await anext(streams)``.

        When the node is restarted, it goes on listening there.

        Raises:
            PeerError: something listens there already, or the node does not allow it.
        """
        call = self._listen(label)
        try:
            await call.read()  # the listener is ready
        except grpc.aio.AioRpcError as problem:
            raise PeerError.of(problem) from None
        incoming = self._incoming(call, label)
        try:
            yield incoming
        finally:
            await incoming.aclose()
            call.cancel()

    async def list(self) -> tuple[Peer, ...]:
        """All runs of the job, this one included."""
        async with aclosing(self.watch()) as snapshots:
            return await anext(snapshots)

    async def watch(self) -> AsyncGenerator[tuple[Peer, ...], None]:
        """All runs of the job at once, and again whenever one has changed, or the node was restarted.

        Raises:
            PeerError: the node does not allow peers.
        """
        while True:
            call = self._stub.WatchPeers(pb.WatchPeersRequest(), metadata=self._metadata, wait_for_ready=True)
            try:
                while isinstance(answer := await call.read(), pb.WatchPeersResponse):
                    yield tuple(_peer(each) for each in answer.peers)
                return
            except grpc.aio.AioRpcError as problem:
                if not lost(problem):
                    raise PeerError.of(problem) from None
            finally:
                call.cancel()

    async def wait_for(
        self,
        organizations: Sequence[str] | None = None,
        *,
        timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109
    ) -> tuple[str, ...]:
        """Wait until runs at all of these organizations are active; of this run's task when none are given.

        Returns:
            Their ids with this run's own, sorted: the same on all sides.

        Raises:
            PeerError: PEER_ENDED or NOT_FOUND, or PEER_NOT_READY when time is up.
        """
        peers: tuple[Peer, ...] = ()
        try:
            async with asyncio.timeout(timeout), aclosing(self.watch()) as snapshots:
                async for peers in snapshots:
                    found = _all_active(peers, organizations)
                    if found is not None:
                        return found
        except TimeoutError:
            pass
        missing = {each.organization for each in peers if each.state == "waiting"}
        raise PeerError(
            Reason.PEER_NOT_READY, f"not all peers began within {timeout:g} s: {', '.join(sorted(missing))} did not"
        )

    async def forward(
        self,
        port: int,
        *,
        organizations: Sequence[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,  # noqa: ASYNC109
    ) -> dict[str, int]:
        """Let a program that knows only TCP talk to the same program at the peers.

        Whoever connects to this run's ``port`` from a peer reaches 127.0.0.1:``port`` here, and for each peer there is
        a port on 127.0.0.1 here that reaches 127.0.0.1:``port`` there. All sides call this with the same port.

        Args:
            port: that the program here listens on, or will.
            organizations: of the peers; all of this run's task when left out.
            timeout: seconds for a peer to begin and to forward, for each connection.

        Returns:
            For each organization, this one included, the port on 127.0.0.1 that reaches its program.

        Raises:
            PeerError: the node does not allow it, or the port is forwarded already.
        """
        peers = await self.list()
        (own,) = (each for each in peers if each.self)
        if organizations is None:
            organizations = [each.organization for each in peers if each.same_task and not each.self]
        forwarder = Forwarder(self, port, timeout)
        self._forwarders.append(forwarder)
        ports = await forwarder.start([each for each in organizations if each != own.organization])
        return {own.organization: port, **ports}

    async def close(self) -> None:
        """End everything."""
        for forwarder in self._forwarders:
            await forwarder.stop()
        for stream in list(self._open):
            await stream.close()
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _listen(self, label: str) -> Any:
        return self._stub.Listen(pb.ListenRequest(label=label), metadata=self._metadata, wait_for_ready=True)

    async def _incoming(self, call: Any, label: str) -> AsyncGenerator[Stream, None]:
        # The call is read by a task of its own: cancelling whoever waits here must not end the listener.
        arrived: asyncio.Queue[pb.ListenResponse | PeerError] = asyncio.Queue()

        async def read(call: Any) -> None:
            while True:
                try:
                    while isinstance(answer := await call.read(), pb.ListenResponse):
                        if answer.connection:
                            arrived.put_nowait(answer)
                    arrived.put_nowait(PeerError(Reason.PEER_LOST, "the node ended the listener"))
                    return
                except grpc.aio.AioRpcError as problem:
                    if not lost(problem):
                        arrived.put_nowait(PeerError.of(problem))
                        return
                finally:
                    call.cancel()
                call = self._listen(label)

        reader = asyncio.create_task(read(call))
        try:
            while True:
                answer = await arrived.get()
                if isinstance(answer, PeerError):
                    raise answer
                incoming = pb.IncomingTarget(connection=answer.connection)
                try:
                    yield await self._dial(pb.DialTarget(incoming=incoming))
                except PeerError as problem:
                    if problem.code not in (Reason.NOT_FOUND, Reason.PEER_LOST):  # broken before it was taken
                        raise
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _dial(self, target: pb.DialTarget) -> Stream:
        call: RawCall = self._channel.stream_stream(_DIAL)(metadata=self._metadata, wait_for_ready=True)
        stream = await Stream.open(call, target)
        self._open.add(stream)
        call.add_done_callback(lambda _call: self._open.discard(stream))
        return stream


def _peer(message: pb.Peer) -> Peer:
    return Peer(
        message.organization.removeprefix("organizations/"),
        message.run,
        message.node,
        _STATES.get(message.state, "waiting"),
        message.same_task,
        message.self,
    )


def _all_active(peers: Sequence[Peer], organizations: Sequence[str] | None) -> tuple[str, ...] | None:
    """Ids of those who take part, sorted; None while somebody is missing."""
    if organizations is None:
        wanted = [each for each in peers if each.same_task]
    else:
        wanted = []
        for organization in organizations:
            found = [each for each in peers if each.organization == organization and not each.self]
            # Those of the own task come first, as in ``connect``.
            found = [each for each in found if each.same_task] or [each for each in found if each.state != "ended"]
            if not found:
                raise PeerError(Reason.NOT_FOUND, f"{organization} has no run in this job")
            wanted += found[:1]
    for each in wanted:
        if each.state == "ended":
            raise PeerError(Reason.PEER_ENDED, f"the run at {each.organization} has ended")
        if each.state != "active":
            return None
    return tuple(sorted({each.organization for each in [*wanted, *(each for each in peers if each.self)]}))
