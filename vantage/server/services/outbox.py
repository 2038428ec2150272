"""What the server has to say on one node's stream, in order, with the acknowledgement of the moment of sending."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from vantage.server.domain.jobs import OpenRelay
from vantage.server.domain.session import Acknowledge, CancelRun, Goodbye, HeartbeatReply, Welcome
from vantage.server.domain.tasks import Work

ACK_SECONDS = 0.02
"""How long an acknowledgement waits for a message that takes it along."""

MAX_WAITING = 1_000
"""Messages that wait for a node that does not read, before no more is taken from it that asks for a reply."""

MAX_WORK_BYTES = 16 * 1024 * 1024
"""Bytes of the runs that wait for a node that does not read, before no more are claimed for it."""

ServerMessage = Welcome | HeartbeatReply | Work | CancelRun | OpenRelay | Goodbye | Acknowledge


class Outbox:
    """The one writer of a session's stream. Bounded by what the server hands out: slots, cancels, replies.

    Args:
        on_room: called when there is room for work again.
    """

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._messages: deque[ServerMessage] = deque()
        self._on_room = on_room
        self._work_bytes = 0
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self._open = False
        self._ended = False
        self.ack = 0
        self._sent_ack = 0
        self._late: asyncio.TimerHandle | None = None

    def welcome(self, message: Welcome) -> None:
        """Put the first message; what was put before follows it."""
        self._messages.appendleft(message)
        self._open = True
        self._filled.set()

    def put(self, message: ServerMessage) -> None:
        """Say something; nothing after the end."""
        if not self._ended:
            self._messages.append(message)
            if isinstance(message, Work):
                self._work_bytes += message.weight
            self._filled.set()

    @property
    def has_room_for_work(self) -> bool:
        """Whether the node has read enough to be given more runs."""
        return self._work_bytes < MAX_WORK_BYTES

    async def room(self) -> None:
        """Wait until the node has read enough for another reply."""
        while len(self._messages) >= MAX_WAITING and not self._ended:
            self._taken.clear()
            await self._taken.wait()

    def acknowledge(self, sequence: int) -> None:
        """All messages up to this sequence are durable."""
        if sequence > self.ack:
            self.ack = sequence
            # Nobody waits for it, and the next message carries it: only if there is none it gets one of its own.
            if self._late is None:
                self._late = asyncio.get_running_loop().call_later(ACK_SECONDS, self._acknowledge_now)

    def end(self, message: Goodbye | None = None) -> None:
        """Say a last thing, even before the welcome, and nothing more."""
        if not self._ended:
            if message is not None:
                self._messages.append(message)
            self._ended = self._open = True
            self._filled.set()
            self._taken.set()

    @property
    def ended(self) -> bool:
        """Whether nothing more can be said."""
        return self._ended

    def _released(self, weight: int) -> None:
        full = not self.has_room_for_work
        self._work_bytes -= weight
        if full and self.has_room_for_work:
            self._on_room()

    def _acknowledge_now(self) -> None:
        self._late = None
        self._filled.set()

    async def next(self) -> tuple[int, ServerMessage] | None:
        """Wait for the next message with its acknowledgement; None when all is said."""
        while True:
            if self._open:
                if self._messages:
                    self._sent_ack = self.ack
                    self._taken.set()
                    message = self._messages.popleft()
                    if isinstance(message, Work):
                        self._released(message.weight)
                    return self.ack, message
                if self._ended:
                    return None
                if self._late is None and self.ack > self._sent_ack:
                    self._sent_ack = self.ack
                    return self.ack, Acknowledge()
            self._filled.clear()
            await self._filled.wait()
