"""A stream of bytes to a peer, and messages on top of it."""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Self

import grpc

from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.patience import lost
from vantage.algorithm.values import decode, encode
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.common.data_field import decode_data, encode_data
from vantage.common.errors import Reason
from vantage.common.media_types import ARROW
from vantage.common.rpc import error_from_rpc

if TYPE_CHECKING:
    import pyarrow

_AHEAD = 512 * 1024
"""Bytes that are read ahead, and that may wait to be written."""
_BATCH = 256 * 1024
"""Small writes that wait leave together, up to this size."""
_FINISHED = pb.DialRequest(finished=pb.DialFinished()).SerializeToString()
_LENGTH = struct.Struct("!Q")
DEFAULT_MAX_MESSAGE = 256 * 1024 * 1024

RawCall = grpc.aio.StreamStreamCall[bytes, bytes]


class PeerError(AlgorithmError):
    """A peer cannot be reached, or the connection broke.

    Attributes:
        code: why, e.g. ``Reason.PEER_ENDED``.
    """

    def __init__(self, code: Reason, message: str) -> None:
        super().__init__(f"{message} [{code.name}]")
        self.code = code

    @classmethod
    def of(cls, problem: grpc.aio.AioRpcError) -> PeerError:
        """The error of a call to the node."""
        if lost(problem):
            return cls(
                Reason.PEER_LOST, "the node was restarted, which ends the connections of its runs: connect again"
            )
        cause = error_from_rpc(problem)
        return cls(cause.reason, cause.message)


class Stream:
    """Bytes to a peer and from it. An asynchronous context manager, which closes it.

    Written bytes leave in order; many small writes leave together. ``write`` waits while the peer does not read.
    Cancelling a ``read``, ``read_exactly`` or ``write`` does not harm the stream.
    """

    def __init__(self, call: RawCall) -> None:
        self._call = call
        self._incoming: deque[bytes] = deque()
        self._ahead = 0
        self._outgoing: deque[bytes] = deque()
        self._waiting = 0
        self._changed = asyncio.Event()
        self._to_write = asyncio.Event()
        self._to_read = asyncio.Event()
        self._peer_finished = False
        self._finished = False
        self._sent = False
        self._problem: PeerError | None = None
        # Tasks of their own do the calls: one that is cancelled in the middle of a call would end the stream.
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._send())]

    @classmethod
    async def open(cls, call: RawCall, target: pb.DialTarget) -> Stream:
        """Open a stream over a call of ``Dial``.

        Raises:
            PeerError: it cannot be opened.
        """
        try:
            await call.write(pb.DialRequest(target=target).SerializeToString())
            opened = await call.read()
        except asyncio.InvalidStateError:
            opened = grpc.aio.EOF
        except grpc.aio.AioRpcError as problem:
            raise PeerError.of(problem) from None
        except asyncio.CancelledError:
            call.cancel()
            raise
        if not isinstance(opened, bytes) or not pb.DialResponse.FromString(opened).HasField("opened"):
            call.cancel()
            raise PeerError(Reason.INTERNAL, "the node did not open the stream")
        return cls(call)

    async def read(self) -> bytes:
        """The next bytes, as many as there are; none when the peer has finished.

        Raises:
            PeerError: the connection broke.
        """
        while not self._incoming:
            if self._peer_finished:
                return b""
            if self._problem is not None:
                raise self._problem
            await self._change()
        data = self._incoming.popleft()
        self._took(len(data))
        return data

    async def read_exactly(self, size: int) -> bytes:
        """So many bytes.

        Raises:
            EOFError: the peer finished before.
            PeerError: the connection broke.
        """
        parts: list[bytes] = []
        left = size
        try:
            while left:
                data = await self.read()
                if not data:
                    raise EOFError(f"the peer finished {left} bytes too early")
                if len(data) > left:
                    self._put_back(data[left:])
                    data = data[:left]
                parts.append(data)
                left -= len(data)
        except asyncio.CancelledError:
            self._put_back(*parts)
            raise
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            PeerError: the connection broke; it may be a later call that tells.
        """
        view = memoryview(data).cast("B")
        while view:
            if self._finished:
                raise ValueError("the stream was finished: nothing can be sent any more")
            while self._waiting >= _AHEAD and self._problem is None:
                await self._change()
            if self._problem is not None:
                raise self._problem
            self._queue(view[:_BATCH])
            view = view[_BATCH:]

    async def finish(self) -> None:
        """Send what was written and say that no more comes; reading goes on. What was written is safe afterwards.

        Raises:
            PeerError: the connection broke.
        """
        self._finished = True
        self._to_write.set()
        while not self._sent:
            if self._problem is not None:
                raise self._problem
            await self._change()

    async def close(self) -> None:
        """End the stream: breaks it unless both sides have finished. May be called again."""
        self._call.cancel()
        if not all(task.done() for task in self._tasks):
            # They may wait for a reader or a writer who will not come any more: the call's end does not wake them.
            self._fail(PeerError(Reason.CANCELLED, "the stream was closed here"))
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def messages(self, max_size: int = DEFAULT_MAX_MESSAGE) -> MessageChannel:
        """Whole messages instead of bytes; both sides must use it."""
        return MessageChannel(self, max_size)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _queue(self, data: memoryview) -> None:
        """Let bytes leave, whether or not there is room for them."""
        while data:
            part = bytes(data[:_BATCH])
            data = data[len(part) :]
            self._outgoing.append(part)
            self._waiting += len(part)
        self._to_write.set()

    def _put_back(self, *parts: bytes) -> None:
        self._incoming.extendleft(reversed(parts))
        self._ahead += sum(map(len, parts))

    async def _receive(self) -> None:
        try:
            while True:
                while self._ahead >= _AHEAD and self._problem is None:
                    self._to_read.clear()
                    await self._to_read.wait()
                message = await self._call.read()
                if not isinstance(message, bytes):
                    break
                data = decode_data(message)
                if data is not None:
                    self._incoming.append(bytes(data))
                    self._ahead += len(data)
                else:
                    response = pb.DialResponse.FromString(message)
                    self._peer_finished |= response.HasField("finished")
                    self._sent |= response.HasField("sent")
                self._changed.set()
            if not (self._peer_finished and self._sent):
                self._fail(PeerError(Reason.PEER_LOST, "the node ended the stream"))
        except grpc.aio.AioRpcError as problem:
            self._fail(PeerError.of(problem))
        except asyncio.CancelledError:
            self._fail(PeerError(Reason.CANCELLED, "the stream was closed here"))

    async def _send(self) -> None:
        try:
            while self._problem is None:
                while self._outgoing:
                    parts, size = [self._outgoing.popleft()], 0
                    size = len(parts[0])
                    while self._outgoing and size + len(self._outgoing[0]) <= _BATCH:
                        parts.append(self._outgoing.popleft())
                        size += len(parts[-1])
                    await self._call.write(encode_data(parts[0] if len(parts) == 1 else b"".join(parts)))
                    self._waiting -= size
                    self._changed.set()
                if self._finished:
                    await self._call.write(_FINISHED)
                    await self._call.done_writing()
                    return
                self._to_write.clear()
                await self._to_write.wait()
        except grpc.aio.AioRpcError as problem:
            self._fail(PeerError.of(problem))
        except (asyncio.InvalidStateError, asyncio.CancelledError):
            # The call has ended: the other task tells why.
            await asyncio.wait({self._tasks[0]})
            self._fail(PeerError(Reason.PEER_LOST, "the node ended the stream"))

    def _took(self, size: int) -> None:
        self._ahead -= size
        if self._ahead < _AHEAD:
            self._to_read.set()

    def _fail(self, problem: PeerError) -> None:
        if self._problem is None:
            self._problem = problem
        self._changed.set()
        self._to_write.set()
        self._to_read.set()

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


class MessageChannel:
    """Whole messages over a stream: eight bytes of length, big-endian, then the message.

    Cancelling a ``receive`` does not harm the stream: the next one gets the message. Nor does cancelling a ``send``:
    the peer gets the whole message or nothing of it. Several may send at the same time.

    Args:
        stream: what carries them.
        max_size: largest message that is received.
    """

    def __init__(self, stream: Stream, max_size: int = DEFAULT_MAX_MESSAGE) -> None:
        self.stream = stream
        self._max_size = max_size
        self._size: int | None = None  # of the message whose length has been read
        self._sending = asyncio.Lock()

    async def send(self, message: bytes) -> None:
        """Send a message.

        Raises:
            PeerError: the connection broke.
        """
        rest = memoryview(message).cast("B")
        async with self._sending:
            # A single small write is queued whole or not at all.
            await self.stream.write(_LENGTH.pack(len(rest)))
            try:
                while rest:
                    await self.stream.write(rest[:_BATCH])  # type: ignore[arg-type]  # any buffer
                    rest = rest[_BATCH:]
            except asyncio.CancelledError:
                # The peer has the length, or will have it: without the rest it would take the next message for it.
                self.stream._queue(rest)
                raise

    async def receive(self) -> bytes | None:
        """The next message; None when the peer has finished.

        Raises:
            EOFError: the peer finished in the middle of a message.
            PeerError: the connection broke, or the message is too large.
        """
        if self._size is None:
            first = await self.stream.read()
            if not first:
                return None
            self.stream._put_back(first)
            (self._size,) = _LENGTH.unpack(await self.stream.read_exactly(_LENGTH.size))
        if self._size > self._max_size:
            raise PeerError(Reason.OUT_OF_RANGE, f"a message of {self._size} bytes, at most {self._max_size} are taken")
        message = await self.stream.read_exactly(self._size)
        self._size = None
        return message

    async def send_table(self, table: pyarrow.Table | Any) -> None:
        """Send a ``pyarrow.Table`` or ``pandas.DataFrame`` as an Arrow stream."""
        media_type, content = encode(table)
        if media_type != ARROW:
            raise TypeError(f"a table is a pyarrow.Table or pandas.DataFrame, not {type(table).__name__}")
        await self.send(content)

    async def receive_table(self) -> pyarrow.Table | Any:
        """The next message as a ``pyarrow.Table``; None when the peer has finished."""
        content = await self.receive()
        return None if content is None else decode(ARROW, content)

    async def finish(self) -> None:
        """No more messages come from here, but those that are being sent."""
        async with self._sending:
            await self.stream.finish()

    async def close(self) -> None:
        """See ``Stream.close``."""
        await self.stream.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (message := await self.receive()) is not None:
            yield message
