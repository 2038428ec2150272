"""Follows tasks: every kept event once, in order, live, and from the database where live delivery has gaps."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from vantage.common.errors import Reason, error
from vantage.server.domain.task_events import Event, RunMoved, TaskEnded
from vantage.server.events.bus import Bus
from vantage.server.events.mailbox import Mailbox

ReadAfter = Callable[[str, int], Awaitable[Sequence[Event]]]


class Follower:
    """The events of one or many tasks in one stream.

    A task is first *expected* (subscribed, so that nothing is missed), then *started* at the sequence that is known.

    Args:
        bus: live events.
        read_after: the next kept events of a task after a sequence; empty when there are none.
    """

    def __init__(self, bus: Bus, read_after: ReadAfter) -> None:
        self._bus = bus
        self._read_after = read_after
        self._mailbox = Mailbox()
        self._cursors: dict[str, int | None] = {}
        self._early: dict[str, list[Event]] = {}
        self._behind: set[str] = set()

    @property
    def open(self) -> int:
        """How many tasks are followed."""
        return len(self._cursors)

    def follows(self, task: str) -> bool:
        """Whether a task is followed."""
        return task in self._cursors

    def expect(self, task: str) -> None:
        """Begin to collect the events of a task."""
        if task not in self._cursors:
            self._cursors[task] = None
            self._bus.subscribe(task, self._mailbox)

    def early(self, task: str, sequence: int) -> list[Event]:
        """Take the moves of an expected task that have come already and follow ``sequence``: its snapshot may as well
        include them. What ends a run stays an event of its own."""
        for event in self._mailbox.pluck(lambda name: self._cursors.get(name, 0) is None):
            self._early.setdefault(event.task, []).append(event)
        waiting = deque(self._early.pop(task, ()))
        found: list[Event] = []
        while waiting and waiting[0].sequence == sequence + len(found) + 1:
            body = waiting[0].body
            if not isinstance(body, RunMoved) or body.ended:
                break
            found.append(waiting.popleft())
        if waiting:
            self._early[task] = list(waiting)
        return found

    def start(self, task: str, sequence: int, *, behind: bool = False) -> None:
        """Hand out the events of an expected task after ``sequence``; ``behind``: there are such in the database."""
        self._cursors[task] = sequence
        if behind or task in self._early:
            self._behind.add(task)
        self._mailbox.wake()

    def forget(self, task: str) -> None:
        """Stop following a task; harmless when it is not followed."""
        self._cursors.pop(task, None)
        self._early.pop(task, None)
        self._behind.discard(task)
        self._bus.unsubscribe(task, self._mailbox)

    def wake(self) -> None:
        """Let ``next`` return."""
        self._mailbox.wake()

    def close(self) -> None:
        """Stop following everything."""
        for task in list(self._cursors):
            self.forget(task)

    async def next(self) -> list[Event]:
        """Wait for events, or for ``wake``, and return them. A task that has ended is no longer followed.

        Raises:
            UnavailableError: SERVER_STOPPING, when there are none and none will come.
        """
        if not self._bus.closed:
            await self._mailbox.wait()
        events, lagging = self._mailbox.take()
        found: list[Event] = []
        behind, self._behind = self._behind | lagging, set()
        for task in list(behind):
            if (early := self._early.pop(task, None)) is not None and self._take_early(task, early, found):
                behind.discard(task)
        for event in events:
            if event.task in behind:
                continue  # comes from the database below, in its place
            if not self._take(event, found):
                behind.add(event.task)
        for task in behind:
            await self._catch_up(task, found)
        if self._bus.closed and not found:
            raise error(Reason.SERVER_STOPPING, "the server stops: watch again when it is back")
        return found

    def _take_early(self, task: str, early: list[Event], found: list[Event]) -> bool:
        taken = [self._take(event, found) for event in early]
        return all(taken)

    def _take(self, event: Event, found: list[Event]) -> bool:
        """Hand an event out if it is the next one; False when one before it is missing."""
        if event.task not in self._cursors:
            return True
        cursor = self._cursors[event.task]
        if cursor is None:
            self._early.setdefault(event.task, []).append(event)
        elif event.sequence == 0:
            found.append(event)
        elif event.sequence == cursor + 1:
            found.append(event)
            self._cursors[event.task] = event.sequence
            if isinstance(event.body, TaskEnded):
                self.forget(event.task)
        elif event.sequence > cursor:
            return False
        return True

    async def _catch_up(self, task: str, found: list[Event]) -> None:
        cursor = self._cursors.get(task)
        if cursor is None:
            return
        events = await self._read_after(task, cursor)
        for event in events:
            self._take(event, found)
        if events and task in self._cursors:
            # One batch at a time, so that the reader's pace bounds what is held.
            self._behind.add(task)
            self._mailbox.wake()
