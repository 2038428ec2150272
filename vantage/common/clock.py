"""The clock that is handed to whatever needs the time, so that tests can set it.

Two questions, two answers. *When* did something happen: the time of day, which is told to others, kept and signed, and
which somebody may set. *How long* ago was it: seconds that pass whatever is done to the time of day; they mean nothing
outside the process. Whatever waits or expires within a process asks the second one.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Source of time."""

    def now(self) -> datetime:
        """The time of day in UTC, with time zone."""
        ...

    def monotonic(self) -> float:
        """Seconds since some moment; never set, never going back."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._passed = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._passed

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        if by < timedelta(0):
            raise ValueError("time does not go back; a clock is set back with jump()")
        self._now += by
        self._passed += by.total_seconds()

    def jump(self, by: timedelta) -> None:
        """Set the time of day; no time passes."""
        self._now += by
