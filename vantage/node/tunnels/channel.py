"""One stream of bytes between two runs, on a link that many share.

Flow control is by credit: a reader who stops does not stop the others, and what waits for it is bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from vantage.common.errors import Reason, VantageError, error
from vantage.node.tunnels.frames import MAX_PAYLOAD, Kind, encode, encode_number, encode_object, violation

WINDOW = 256 * 1024
"""Bytes that may be under way or wait to be read on a new channel."""
MAX_WINDOW = 4 * 1024 * 1024
_JOIN = 256 * 1024
"""Small pieces are handed out together up to this size."""


class Budget:
    """How far the windows of a run's channels may grow together."""

    def __init__(self, size: int) -> None:
        self._left = size

    def take(self, size: int) -> bool:
        """Take some of it, if there is as much."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """Return what was taken."""
        self._left += size


class Carrier(Protocol):
    """What a channel needs from its link."""

    def post(self, frame: bytes) -> None:
        """Send a frame, now or when there is a connection again."""
        ...

    async def room(self) -> None:
        """Wait until the link holds little enough for more data."""
        ...

    def forget(self, channel: int) -> None:
        """The channel has ended."""
        ...


class Channel:
    """Keeps ``ByteStream``.

    Args:
        number: of the channel on its link.
        carrier: the link.
        budget: for a larger window.
    """

    def __init__(self, number: int, carrier: Carrier, budget: Budget) -> None:
        self.number = number
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._carrier = carrier
        self._budget = budget
        self._incoming: deque[bytes] = deque()
        self._waiting = 0
        self._window = WINDOW
        self._grown = 0
        self._unreported = 0
        self._credit = WINDOW
        self._problem: VantageError | None = None
        self._peer_finished = False
        self._finished = False
        self._gone = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writing = asyncio.Lock()

    @property
    def broken(self) -> bool:
        """Whether nothing can come of it any more."""
        return self._problem is not None

    # ByteStream

    async def read(self) -> bytes:
        """See ``ByteStream``; what arrived before the end or a break is read first."""
        while not self._incoming:
            if self._peer_finished:
                return b""
            if self._problem is not None:
                raise self._problem
            self._readable.clear()
            await self._readable.wait()
        parts = [self._incoming.popleft()]
        size = len(parts[0])
        while self._incoming and size + len(self._incoming[0]) <= _JOIN:
            parts.append(self._incoming.popleft())
            size += len(parts[-1])
        self._waiting -= size
        self._consumed(size)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def write(self, data: bytes) -> None:
        """See ``ByteStream``."""
        view = memoryview(data)
        async with self._writing:
            while view:
                if self._finished:
                    raise error(Reason.INVALID_ARGUMENT, "the stream was finished: nothing can be sent any more")
                while not self._credit and self._problem is None:
                    self._writable.clear()
                    await self._writable.wait()
                if self._problem is None:
                    await self._carrier.room()
                if self._problem is not None:
                    raise self._problem
                part = view[: min(self._credit, MAX_PAYLOAD)]
                self._credit -= len(part)
                self._carrier.post(encode(Kind.DATA, self.number, part))
                view = view[len(part) :]

    async def finish(self) -> None:
        """See ``ByteStream``."""
        async with self._writing:
            if self._problem is not None:
                raise self._problem
            if not self._finished:
                self._finished = True
                self._carrier.post(encode(Kind.FINISH, self.number))
                self._check_done()

    def close(self) -> None:
        """See ``ByteStream``."""
        if self._gone:
            return
        text = "the other run broke the connection"
        self._carrier.post(encode_object(Kind.RESET, self.number, {"reason": Reason.PEER_LOST.name, "message": text}))
        self.fail(error(Reason.CANCELLED, "the stream was closed here"))

    # From the link.

    def take(self, data: bytes) -> None:
        """Data has arrived.

        Raises:
            InvalidArgumentError: PROTOCOL_VIOLATION, more than there was credit for, or nothing.
        """
        if not data:
            raise violation("data without bytes")  # no credit would bound how many of them wait
        self._waiting += len(data)
        if self._waiting > self._window or self._peer_finished:
            raise violation("more data than the channel has credit for")
        self._incoming.append(data)
        self._readable.set()

    def credit(self, size: int) -> None:
        """The other side has read so much."""
        self._credit += size
        self._writable.set()

    def end(self) -> None:
        """The other side sends no more."""
        self._peer_finished = True
        self._readable.set()
        self._check_done()

    def fail(self, problem: VantageError) -> None:
        """The channel is broken."""
        if self._problem is None:
            self._problem = problem
        if not self.opened.done():
            self.opened.set_exception(problem)
            self.opened.exception()  # whoever opened may have given up
        self._readable.set()
        self._writable.set()
        self._leave()

    def _consumed(self, size: int) -> None:
        if self._peer_finished or self._problem is not None:
            return
        self._unreported += size
        if self._unreported * 2 < self._window:
            return
        more = self._unreported
        # A reader that waits for data is faster than the window lets data come: widen it.
        if not self._incoming and self._window < MAX_WINDOW and self._budget.take(self._window):
            more += self._window
            self._grown += self._window
            self._window *= 2
        self._unreported = 0
        self._carrier.post(encode_number(Kind.CREDIT, self.number, more))

    def _check_done(self) -> None:
        if self._finished and self._peer_finished:
            self._leave()

    def _leave(self) -> None:
        if not self._gone:
            self._gone = True
            self._budget.give_back(self._grown)
            self._carrier.forget(self.number)
