"""Sessions of nodes in unary calls: what ``Sync`` brings and takes is put together to the stream that ``Connect`` has.

Nothing here knows what a message means: whoever serves streams serves these sessions as well.

A session lives while its messages do: the service ends it when the node is silent, fenced or dismissed, and its last
words stay to be fetched for a while. A process that dies forgets all sessions; their nodes learn SESSION_UNKNOWN and
begin anew, as after a stream that was cut.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import Reason, VantageError, error

log = logging.getLogger(__name__)

MAX_MESSAGES = 1_000
"""Messages of a call, and of an answer."""
MAX_BYTES = 8 * 1024 * 1024
"""Bytes of an answer, unless one message alone has more."""
MAX_WAIT = 60.0
"""Seconds that a call waits at most."""
LINGER = 60.0
"""Seconds that the last words of a session can be fetched, and that a node may leave a full answer unfetched."""
_PER_NODE = 4
"""Sessions that are remembered of a node; the latest is open, those before have ended."""
_WAITING = 64
"""Messages of a node that wait to be looked at; a call that brings more is answered later."""
_WAITING_BYTES = 4 * 1024 * 1024
"""Bytes of these messages, unless one alone has more."""

Serve = Callable[[AsyncIterator[pb.ConnectRequest]], AsyncGenerator[pb.ConnectResponse, None]]
"""What serves a stream."""


class SyncSession:
    """One session.

    Args:
        serve: gets the node's messages and gives the server's.
    """

    def __init__(self, serve: Serve) -> None:
        self._incoming: deque[pb.ConnectRequest] = deque()
        self._incoming_bytes = 0
        self._taken = 0
        self._silent = False
        self._came = asyncio.Event()
        self._room = asyncio.Event()
        self._outgoing: deque[pb.ConnectResponse] = deque()
        self._bytes = 0
        self._offset = 0
        self._said = asyncio.Event()
        self._fetched = asyncio.Event()
        self._waiting: object = None
        self._bringing: object = None
        self._problem: VantageError | None = None
        self.serving = asyncio.create_task(self._serve(serve), name="sync session")

    async def bring(self, offset: int, messages: Sequence[pb.ConnectRequest], *, last: bool) -> pb.SyncResponse:
        """Take messages of the node, those that were taken before left out; answers then, or when a newer call comes.

        Raises:
            InvalidArgumentError: PROTOCOL_VIOLATION: messages in between are missing.
            VantageError: as the service says.
        """
        if offset > self._taken:
            raise _violation(f"the session has {self._taken} messages, the next cannot be number {offset}")
        # One call alone waits for room: what it brings is held meanwhile.
        mine = self._bringing = object()
        self._room.set()
        for number, message in enumerate(messages, offset):
            if number < self._taken:  # it came by another call before
                continue
            size = message.ByteSize()
            while self._is_full(size) and self._bringing is mine and not self.serving.done():
                self._room.clear()
                await self._room.wait()
            if self._bringing is not mine:
                break
            self._taken += 1
            if not self.serving.done():  # nobody would take it
                self._incoming.append(message)
                self._incoming_bytes += size
                self._came.set()
        if last and self._bringing is mine:
            self._silent = True
            self._came.set()
        if self._problem is not None:
            raise self._problem
        return pb.SyncResponse(taken=self._taken, offset=self._offset)

    def _is_full(self, size: int) -> bool:
        return len(self._incoming) >= _WAITING or (
            bool(self._incoming) and self._incoming_bytes + size > _WAITING_BYTES
        )

    async def wait(self, received: int, seconds: float) -> pb.SyncResponse:
        """What the server has to say from there on, as soon as there is something, or nothing after so many seconds.

        Raises:
            InvalidArgumentError: PROTOCOL_VIOLATION: more was received than was sent.
            VantageError: as the service says.
        """
        if received > self._offset + len(self._outgoing):
            raise _violation(f"the server has not sent {received} messages yet")
        while self._offset < received:
            self._bytes -= self._outgoing.popleft().ByteSize()
            self._offset += 1
        self._fetched.set()
        mine = self._waiting = object()
        self._said.set()  # whoever waited before
        try:
            async with asyncio.timeout(seconds):
                while self._waiting is mine and not self._outgoing and not self.serving.done():
                    self._said.clear()
                    await self._said.wait()
        except TimeoutError:
            pass
        answer = pb.SyncResponse(taken=self._taken, offset=self._offset)
        if self._waiting is not mine:
            return answer
        size = 0
        for message in self._outgoing:
            size += message.ByteSize()
            if answer.messages and (size > MAX_BYTES or len(answer.messages) >= MAX_MESSAGES):
                return answer
            answer.messages.append(message)
        if self.serving.done():
            if self._problem is not None and not answer.messages:
                raise self._problem
            answer.ended = self._problem is None
        return answer

    async def _serve(self, serve: Serve) -> None:
        try:
            async with aclosing(serve(self._messages())) as responses:
                async for response in responses:
                    self._outgoing.append(response)
                    self._bytes += response.ByteSize()
                    self._said.set()
                    # The rest stays with the service, which bounds what waits there.
                    async with asyncio.timeout(LINGER):
                        while len(self._outgoing) >= MAX_MESSAGES or self._bytes >= MAX_BYTES:
                            self._fetched.clear()
                            await self._fetched.wait()
        except VantageError as problem:
            self._problem = problem
        except TimeoutError:
            self._problem = error(Reason.UNAVAILABLE, "the node fetched nothing: the session is over")
        except Exception as problem:  # the calls that come tell it; their request ids are not known here
            log.error("sync session failed", exc_info=problem)
            self._problem = error(Reason.INTERNAL, "the server failed; its log has the cause")
        finally:
            asyncio.get_running_loop().call_soon(self._said.set)  # when the task is done
            self._room.set()

    async def _messages(self) -> AsyncGenerator[pb.ConnectRequest, None]:
        while True:
            while self._incoming:
                message = self._incoming.popleft()
                self._incoming_bytes -= message.ByteSize()
                self._room.set()
                yield message
            if self._silent:
                return
            self._came.clear()
            await self._came.wait()


class SyncSessions:
    """The sessions that travel in unary calls, by the node and the name that it has chosen."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, SyncSession]] = {}

    async def stop(self) -> None:
        """End what has not ended; when no calls come any more."""
        serving = [session.serving for known in self._of.values() for session in known.values()]
        for each in serving:
            each.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def begins(self, node: str, request: pb.SyncRequest) -> bool:
        """Whether a call opens a session; one that is made again does not."""
        return bool(request.messages) and not request.offset and request.session not in self._of.get(node, {})

    async def exchange(self, node: str, request: pb.SyncRequest, serve: Serve) -> pb.SyncResponse:
        """Serve one call.

        Args:
            node: who calls.
            request: what it says.
            serve: serves the session, if the call opens one.

        Raises:
            NotFoundError: SESSION_UNKNOWN.
            InvalidArgumentError: PROTOCOL_VIOLATION, or a value that is not allowed.
            VantageError: as the service says.
        """
        _check_name(request.session)
        if len(request.messages) > MAX_MESSAGES or request.offset < 0 or request.received < 0:
            raise error(Reason.INVALID_ARGUMENT, f"a call has at most {MAX_MESSAGES} messages, and counts from 0")
        session = self._open(node, request, serve)
        if request.messages or request.last:
            return await session.bring(request.offset, request.messages, last=request.last)
        seconds = request.wait.ToTimedelta().total_seconds()
        return await session.wait(request.received, min(max(seconds, 0.0), MAX_WAIT))

    def _open(self, node: str, request: pb.SyncRequest, serve: Serve) -> SyncSession:
        begins = self.begins(node, request)
        known = self._of.setdefault(node, {}) if begins else self._of.get(node, {})
        session = known.get(request.session)
        if session is None:
            if not begins:
                raise error(Reason.SESSION_UNKNOWN, "the server holds no such session: begin a new one with Hello")
            session = known[request.session] = SyncSession(serve)
            session.serving.add_done_callback(lambda _: self._ended(node, request.session))
            while len(known) > _PER_NODE:
                known.pop(next(iter(known))).serving.cancel()
        return session

    def _ended(self, node: str, name: str) -> None:
        asyncio.get_running_loop().call_later(LINGER, self._forget, node, name)

    def _forget(self, node: str, name: str) -> None:
        known = self._of.get(node, {})
        known.pop(name, None)
        if not known:
            self._of.pop(node, None)


def _check_name(session: str) -> None:
    try:
        uuid.UUID(session)
    except ValueError:
        raise error(
            Reason.INVALID_ARGUMENT, "session must be a UUID that is new for each Hello", field="session"
        ) from None


def _violation(text: str) -> VantageError:
    return error(Reason.PROTOCOL_VIOLATION, f"{text}: begin a new session with Hello")
