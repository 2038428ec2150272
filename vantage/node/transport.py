"""How the messages of a session travel: one stream, or unary calls where something lets no streams through.

Both carry what the session says in its order and give what the server says in its order, each once; where that cannot
be they raise, and the session is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import uuid
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol, TypeVar

import grpc

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2_grpc as node_grpc
from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, error
from vantage.common.rpc import told_by_server

Problem = TypeVar("Problem", bound=BaseException)

_Call = grpc.aio.StreamStreamCall[pb.ConnectRequest, pb.ConnectResponse]
Outgoing = AsyncGenerator[pb.ConnectRequest, None]
Incoming = AsyncGenerator[pb.ConnectResponse, None]

BATCH_BYTES = 256 * 1024
"""Bytes of a call beyond which nothing more is put into it: a heartbeat waits no longer than they take."""
BATCH_MESSAGES = 500
PUSH_TIMEOUT = 60.0
"""Seconds for a call that brings messages: enough for 4 MiB over 1 Mbit/s. Heartbeats notice a dead server."""
ANSWER_TIMEOUT = 15.0
"""Seconds beyond its wait for the answer of a call that waits."""
SHORTEST_WAIT = 0.5
"""Seconds that a call waits at least, where calls that wait longer are cut."""
ATTEMPTS = 5
"""How often a call is made before the session is given up."""

_PASSES = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.CANCELLED,
    }
)
"""What a call that was cut can look like."""


class Way(Protocol):
    """The way to the server."""

    async def channel(self) -> grpc.aio.Channel:
        """An open channel."""
        ...

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """What a call is made with."""
        ...


class Transport(Protocol):
    """Carries sessions, one after the other."""

    kind: pb.Transport.ValueType

    def carry(self, outgoing: Outgoing) -> Incoming:
        """Carry one session until the server ends it; it ends in order when ``outgoing`` does.

        Raises:
            grpc.aio.AioRpcError: the server ended it with an error, or it was cut.
            FatalError: the server does not admit the node.
            VantageError: the server cannot be asked now.
        """
        ...


class StreamTransport:
    """A session is one call of ``Connect``."""

    kind = pb.TRANSPORT_STREAM

    def __init__(self, way: Way) -> None:
        self._way = way

    async def carry(self, outgoing: Outgoing) -> Incoming:
        """See ``Transport``."""
        metadata = await self._way.metadata()
        stub = node_grpc.NodeSessionServiceStub(await self._way.channel())
        call = stub.Connect(metadata=metadata)
        # Not handed to the library: it drops what it reads from when the call ends while it waits to send.
        writing = asyncio.create_task(self._write(call, outgoing), name="session writer")
        try:
            async for message in call:
                yield message
        finally:
            call.cancel()
            writing.cancel()
            (fault,) = await asyncio.gather(writing, return_exceptions=True)
            if isinstance(fault, Exception):
                raise fault

    async def _write(self, call: _Call, outgoing: Outgoing) -> None:
        async with aclosing(outgoing) as messages:
            with contextlib.suppress(
                grpc.aio.AioRpcError, asyncio.InvalidStateError
            ):  # it has ended: the reader says why
                async for message in messages:
                    await call.write(message)
                await call.done_writing()


class SyncTransport:
    """A session is many calls of ``Sync``: one at a time brings messages, another waits for those of the server."""

    kind = pb.TRANSPORT_SYNC

    def __init__(self, way: Way) -> None:
        self._way = way

    async def carry(self, outgoing: Outgoing) -> Incoming:
        """See ``Transport``."""
        answers: asyncio.Queue[pb.SyncResponse | Exception] = asyncio.Queue(1)
        exchange = _Exchange(self._way, outgoing)
        work = asyncio.create_task(exchange.run(answers), name="sync")
        try:
            while True:
                answer = await answers.get()
                if isinstance(answer, Exception):
                    raise answer
                for message in answer.messages:
                    yield message
                if answer.ended:
                    return
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


class _Exchange:
    """The calls of one session. Each may be lost, or its answer, and is then made again: both sides count messages."""

    def __init__(self, way: Way, outgoing: Outgoing) -> None:
        self._way = way
        self._outgoing = outgoing
        self._session = str(uuid.uuid4())
        self._pending: deque[pb.ConnectRequest] = deque()
        self._bytes = 0
        self._complete = False
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._opened = asyncio.Event()
        self._wait = 10.0

    async def run(self, answers: asyncio.Queue[pb.SyncResponse | Exception]) -> None:
        """Put answers, and in the end an error, into a queue."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._gather(), name="sync gather")
                group.create_task(self._push(), name="sync push")
                group.create_task(self._fetch(answers), name="sync fetch")
        except* Exception as problems:  # noqa: BLE001  # whoever takes the answers raises it
            await answers.put(first_of(problems))

    async def _gather(self) -> None:
        """Take what the session says, no more ahead than the next call can bring: what is urgent overtakes the rest."""
        async with aclosing(self._outgoing) as outgoing:
            async for message in outgoing:
                self._pending.append(message)
                self._bytes += message.ByteSize()
                self._came.set()
                while self._bytes >= BATCH_BYTES or len(self._pending) >= BATCH_MESSAGES:
                    self._room.clear()
                    await self._room.wait()
        self._complete = True
        self._came.set()

    async def _push(self) -> None:
        taken = 0
        while True:
            await self._came.wait()
            self._came.clear()
            while self._pending or self._complete:
                request = pb.SyncRequest(
                    session=self._session, offset=taken, messages=self._pending, last=self._complete
                )
                answer = await self._call(request)
                self._opened.set()
                for _ in range(min(answer.taken - taken, len(request.messages))):
                    self._bytes -= self._pending.popleft().ByteSize()
                    taken += 1
                self._room.set()
                if request.last:
                    return

    async def _fetch(self, answers: asyncio.Queue[pb.SyncResponse | Exception]) -> None:
        await self._opened.wait()
        received = 0
        while True:
            answer = await self._call(pb.SyncRequest(session=self._session, received=received))
            if answer.offset > received:
                raise error(Reason.PROTOCOL_VIOLATION, "the server has left out messages: update server or node")
            del answer.messages[: received - answer.offset]
            received += len(answer.messages)
            for message in answer.messages:
                if message.HasField("welcome"):
                    self._wait = message.welcome.heartbeat_interval.ToTimedelta().total_seconds() or self._wait
            if answer.messages or answer.ended:
                await answers.put(answer)
            if answer.ended:
                return

    async def _call(self, request: pb.SyncRequest) -> pb.SyncResponse:
        """Make a call, and make it again when it was lost, or its answer."""
        loop, backoff = asyncio.get_running_loop(), Backoff(cap=2.0)
        waits = not request.messages and not request.last
        for attempt in itertools.count(1):
            if waits:
                request.wait.FromMilliseconds(round(self._wait * 1000))
            metadata = await self._way.metadata()
            stub = node_grpc.NodeSessionServiceStub(await self._way.channel())
            timeout = self._wait + ANSWER_TIMEOUT if waits else PUSH_TIMEOUT
            began = loop.time()
            try:
                return await stub.Sync(request, metadata=metadata, timeout=timeout)
            except grpc.aio.AioRpcError as problem:
                if problem.code() is grpc.StatusCode.UNIMPLEMENTED:
                    raise error(Reason.UNAVAILABLE, "the server has no sessions in unary calls: update it") from problem
                if told_by_server(problem) or problem.code() not in _PASSES or attempt == ATTEMPTS:
                    raise
                held = loop.time() - began
                if waits and held > SHORTEST_WAIT:
                    # Something ends calls that are silent for so long: wait half of it from now on.
                    self._wait = max(SHORTEST_WAIT, min(self._wait, held) / 2)
            await asyncio.sleep(backoff.next_delay())
        raise AssertionError("the last attempt raises")


def first_of(problems: BaseExceptionGroup[Problem]) -> Problem:
    """The error that ended a group of tasks."""
    found = problems.exceptions[0]
    return first_of(found) if isinstance(found, BaseExceptionGroup) else found
