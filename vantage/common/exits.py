"""Exit codes of the command line. They are public contract: scripts act on them."""

from __future__ import annotations

from typing import Final

from vantage.common import errors
from vantage.common.errors import Reason, VantageError

OK: Final = 0
FAILED: Final = 1
"""What was asked was done and did not work: a task or run failed, something does not exist or is there already."""
USAGE: Final = 2
"""The command, a file or an argument is wrong: change it before trying again."""
NOT_ALLOWED: Final = 3
"""Not logged in, not allowed, or the server is not the one that is trusted."""
UNREACHABLE: Final = 4
"""The server or a registry is not reachable now, or does not answer in time: the same command may work later."""
INTERRUPTED: Final = 130
"""Ended by Ctrl-C."""

MEANINGS: Final = {
    OK: "done",
    FAILED: "it did not work: a task or run failed, something does not exist, or is there already",
    USAGE: "the command, a file or an argument is wrong: change it before trying again",
    NOT_ALLOWED: "not logged in, not allowed, or the server is not the one that is trusted",
    UNREACHABLE: "the server or a registry cannot be reached now, or does not answer in time: try again later",
    INTERRUPTED: "ended by Ctrl-C",
}

_BY_REASON: Final = {Reason.LOCKED_OUT: NOT_ALLOWED}
_BY_CLASS: Final[dict[type[VantageError], int]] = {
    errors.InvalidArgumentError: USAGE,
    errors.ConfigurationError: USAGE,
    errors.UnauthenticatedError: NOT_ALLOWED,
    errors.PermissionDeniedError: NOT_ALLOWED,
    errors.UnavailableError: UNREACHABLE,
}


def exit_code(problem: VantageError) -> int:
    """The exit code of a program that ends with this error."""
    return _BY_REASON.get(problem.reason, _BY_CLASS.get(type(problem), FAILED))
