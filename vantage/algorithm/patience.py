"""Calls that outlast the node: it may be restarted while the algorithm runs, and then goes on with the run."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

import grpc

from vantage.common.backoff import Backoff
from vantage.common.errors import VantageError

CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)
"""A node that is back is found within a second: nothing tells when a socket is made again."""
UNTOLD_SECONDS = 3600.0
"""How long the node is waited for before it has told the deadline of the task."""
_DETAILS = "grpc-status-details-bin"

T = TypeVar("T")


class Patience:
    """Repeats calls that a lost node left unanswered, until the task's deadline: then nobody waits for the answer."""

    def __init__(self) -> None:
        self._until = time.monotonic() + UNTOLD_SECONDS

    def until(self, deadline: datetime, now: datetime) -> None:
        """The node has told the deadline; with the time, since the clock may be set while the algorithm runs."""
        self._until = time.monotonic() + (deadline - now).total_seconds()

    def repeat(self, call: Callable[[float], T]) -> T:
        """The answer of a call, which gets the seconds that it may take; it must be harmless to make it again.

        Raises:
            grpc.RpcError: what the node answered, or nobody has until the deadline.
        """
        backoff = Backoff(base=0.05, cap=1.0)
        while True:
            try:
                return call(max(self._until - time.monotonic(), 0.001))
            except grpc.RpcError as problem:
                if not lost(problem):
                    raise
            time.sleep(backoff.next_delay())


def lost(problem: Any) -> bool:
    """Whether a call ended because the node went away; what the node answers itself has details."""
    if not isinstance(problem, grpc.Call | grpc.aio.AioRpcError) or problem.code() is not grpc.StatusCode.UNAVAILABLE:
        return False
    return not _told(problem)


def refusal(problem: Any) -> VantageError | None:
    """What the node answers in place of what was asked for; None when the call ended for another reason."""
    from vantage.common.rpc import error_from_rpc  # here, since few algorithms are ever refused anything

    if not isinstance(problem, grpc.Call) or problem.code() is grpc.StatusCode.UNAVAILABLE or not _told(problem):
        return None
    return error_from_rpc(problem)  # type: ignore[arg-type]  # of the synchronous calls, too


def _told(problem: grpc.Call | grpc.aio.AioRpcError) -> bool:
    return any(key == _DETAILS for key, _value in problem.trailing_metadata() or ())
