"""How long a run waits before it is tried again."""

from __future__ import annotations

import random
from datetime import timedelta

from vantage.common.retries import MENDABLE
from vantage.server.domain.leases import Report
from vantage.server.domain.runs import Run, RunEvent

FIRST = timedelta(seconds=2)
LONGEST = timedelta(minutes=1)
_MENDABLE = frozenset(each.name for each in MENDABLE)
_random = random.SystemRandom()


def is_retried(run: Run, report: Report) -> bool:
    """Whether a reported failure sends the run back to the queue: its node would run it again, the cause may pass, and
    there are attempts left."""
    return (
        report.retryable
        and report.event in (RunEvent.FAIL, RunEvent.REFUSE)
        and report.failure is not None
        and report.failure.reason in _MENDABLE
        and run.attempt < run.max_attempts
    )


def wait_before(attempt: int) -> timedelta:
    """How long to wait after a failed attempt: from half of to all of 2, 4, 8, ... seconds, at most a minute.

    Not from zero: what could not be reached gets a moment at least, and runs that failed together do not come together.

    Args:
        attempt: number of the one that failed, from 1.
    """
    return min(FIRST * (1 << min(attempt - 1, 16)), LONGEST) * _random.uniform(0.5, 1.0)
