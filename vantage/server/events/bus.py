"""Delivers events within the process after their commit. Losing one costs latency, never the event: it is a row."""

from __future__ import annotations

from collections.abc import Iterable

from vantage.server.domain.task_events import Event
from vantage.server.events.mailbox import Mailbox


class Bus:
    """Knows which mailboxes watch which tasks.

    Attributes:
        closed: nothing more is worth waiting for: the server stops.
    """

    def __init__(self) -> None:
        self.closed = False
        self._watchers: dict[str, list[Mailbox]] = {}

    def close(self) -> None:
        """Wake all who watch; what was delivered before is there for them to take."""
        self.closed = True
        for mailboxes in self._watchers.values():
            for mailbox in mailboxes:
                mailbox.wake()

    def subscribe(self, task: str, mailbox: Mailbox) -> None:
        """Deliver the task's events to the mailbox from now on."""
        self._watchers.setdefault(task, []).append(mailbox)

    def unsubscribe(self, task: str, mailbox: Mailbox) -> None:
        """Stop; harmless when it is not subscribed."""
        watchers = self._watchers.get(task, [])
        if mailbox in watchers:
            watchers.remove(mailbox)
            if not watchers:
                del self._watchers[task]

    def publish(self, events: Iterable[Event]) -> None:
        """Hand events to whoever watches their tasks."""
        for event in events:
            for mailbox in self._watchers.get(event.task, ()):
                mailbox.put(event)

    def watches(self, task: str) -> bool:
        """Whether somebody watches a task."""
        return task in self._watchers

    @property
    def watched(self) -> int:
        """How many tasks somebody watches."""
        return len(self._watchers)
