"""Failures that an author reports on purpose; everything else that is raised is reported by its type's name alone."""

from __future__ import annotations

from vantage.common.errors import AUTHOR_REASONS, Reason, RunError


class AlgorithmError(RunError):
    """Ends the function with a message that the researcher gets.

    Args:
        message: what went wrong and what to do next. Goes to another organization: never put data into it.
        reason: one of ``AUTHOR_REASONS``.
    """

    def __init__(self, message: str, *, reason: Reason = Reason.ALGORITHM_FAILED) -> None:
        super().__init__(reason if reason in AUTHOR_REASONS else Reason.ALGORITHM_FAILED, message)


class TooFewRecordsError(AlgorithmError):
    """There are fewer records than may be disclosed.

    Args:
        min_count: the least that there must be. How many there are is not said.
    """

    def __init__(self, min_count: int) -> None:
        super().__init__(
            f"fewer than {min_count} records: choose other columns, fewer groups, or leave this organization out",
            reason=Reason.TOO_FEW_RECORDS,
        )
