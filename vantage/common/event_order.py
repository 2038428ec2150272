"""The order of a task's events, kept by whoever follows them: a snapshot first, then each event once, without gaps."""

from __future__ import annotations

from vantage.api.task.v1 import task_pb2
from vantage.common.errors import Reason, error


class EventOrder:
    """Judges the events of one stream of RunTask, RunTasks or WatchTask.

    Args:
        after: sequence of the last event that is known, when those behind it were asked for (after_sequence).
        begun: whether the stream's snapshot was taken already; its sequence is then ``after``.

    Attributes:
        last: sequence of the last event that is known.
    """

    def __init__(self, after: int = 0, *, begun: bool = False) -> None:
        self.last = after
        self._catching_up = after > 0 and not begun
        self._begun = begun

    def admit(self, event: task_pb2.TaskEvent) -> bool:
        """Whether an event says something new; False for one that came before.

        Raises:
            UnavailableError: UNAVAILABLE, events before it are missing: ask for those behind ``last``.
        """
        if event.WhichOneof("event") == "snapshot":
            first, self._begun = not self._begun, True
            if self._catching_up:
                return first
            newer = event.sequence > self.last
            self.last = max(self.last, event.sequence)
            return first or newer
        if not self._begun or event.sequence > self.last + 1:
            raise error(
                Reason.UNAVAILABLE, "events of the task are missing on this connection: following it on another"
            )
        if event.sequence == 0:
            return True
        if event.sequence <= self.last:
            return False
        self.last = event.sequence
        return True
