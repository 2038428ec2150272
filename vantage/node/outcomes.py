"""How a run ended, from what its process did and said: pure."""

from __future__ import annotations

from collections.abc import Sequence

from vantage.common.errors import AUTHOR_REASONS, Reason, VantageError, error
from vantage.node.door import StoredResult
from vantage.node.executor.base import Exit

TAIL_LINES = 10


def author_failure(reason: str, message: str, *, allow_messages: bool) -> VantageError:
    """What an algorithm reports about itself, as the researcher gets it."""
    known = Reason.__members__.get(reason or Reason.ALGORITHM_FAILED.name)
    if known not in AUTHOR_REASONS or known is None:
        known = Reason.ALGORITHM_FAILED
    if not allow_messages or not message:
        withheld = "its message is withheld by the node's policy" if message else "it gave no message"
        message = f"the algorithm reported a failure; {withheld}"
    return error(known, message)


def conclude(
    ended: Exit,
    result: StoredResult | None,
    failure: VantageError | None,
    refused_result: VantageError | None,
    tail: Sequence[str],
    *,
    allow_logs: bool,
) -> StoredResult | VantageError:
    """The result, or why there is none.

    In this order, since an earlier cause explains the later ones: killed for memory, no room, what the author reports,
    an answer that could not be taken, a crash, no answer.
    """
    if ended.out_of_memory:
        return error(
            Reason.OUT_OF_MEMORY,
            "the algorithm was ended because it used more memory than the node allows: ask for less data at once, or "
            "the node's admin for a higher limits.memory",
        )
    if ended.out_of_scratch:
        return error(
            Reason.SCRATCH_UNAVAILABLE,
            "the algorithm's temporary files did not fit: ask the node's admin for a higher limits.scratch",
        )
    if failure is not None:
        return failure
    if result is None and refused_result is not None:
        return refused_result
    if ended.status != 0:
        shown = "\n".join(tail[-TAIL_LINES:]) if allow_logs else ""
        hint = f"; its last lines:\n{shown}" if shown else "; the node's admin finds its last lines in the node's log"
        return error(
            Reason.ALGORITHM_CRASHED,
            f"the algorithm ended with exit status {ended.status}{hint}",
            exit_status=str(ended.status),
        )
    if result is None:
        return error(
            Reason.NO_RESULT, "the algorithm ended without an answer: tell its author (exit status 0, no SubmitResult)"
        )
    return result
