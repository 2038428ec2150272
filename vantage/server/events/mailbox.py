"""A bounded place for events on their way to one watcher."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from vantage.server.domain.task_events import Event

MAX_EVENTS = 2_048
MAX_WEIGHT = 16 * 1024 * 1024


class Mailbox:
    """Holds events until the watcher takes them.

    A watcher that is slower than what it watches must not make the server grow: beyond the limits events are dropped,
    and their tasks noted as *lagging*. Kept events can be read again from the database; the others may be lost.
    """

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._weight = 0
        self._lagging: set[str] = set()
        self._filled = asyncio.Event()

    def put(self, event: Event) -> None:
        """Add an event, or note that its task lags."""
        if len(self._events) >= MAX_EVENTS or self._weight >= MAX_WEIGHT:
            if event.sequence:
                self._lagging.add(event.task)
        else:
            self._events.append(event)
            self._weight += event.weight
        self._filled.set()

    def wake(self) -> None:
        """Let ``wait`` return although there may be nothing."""
        self._filled.set()

    async def wait(self) -> None:
        """Wait until something was put, or somebody called ``wake``."""
        await self._filled.wait()
        self._filled.clear()

    def pluck(self, wanted: Callable[[str], bool]) -> list[Event]:
        """Take only the events of tasks that are wanted; the others stay."""
        found = [event for event in self._events if wanted(event.task)]
        if found:
            self._events = deque(event for event in self._events if not wanted(event.task))
            self._weight -= sum(event.weight for event in found)
        return found

    def take(self) -> tuple[list[Event], set[str]]:
        """All events in their order, and the tasks that lag; the mailbox is empty afterwards."""
        events, lagging = list(self._events), self._lagging
        self._events.clear()
        self._weight = 0
        self._lagging = set()
        return events, lagging
