"""What a queued run waits for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from vantage.common.errors import Reason
from vantage.server.domain.contents import Failure
from vantage.server.domain.runs import Run

MAX_NODES = 10
"""Nodes that are named."""


class WaitCause(IntEnum):
    """Why it waits; the numbers are those of the contract."""

    NODE_OFFLINE = 1
    NODE_BUSY = 2
    NO_NODE = 3
    RETRY = 4


@dataclass(frozen=True, slots=True)
class Wait:
    """What it waits for.

    Attributes:
        nodes: those that may take it, the one that was seen last first; not all when there are many.
        last_seen: when the first of them was seen last; None when it never was, and for nodes that are connected.
    """

    cause: WaitCause
    nodes: tuple[str, ...] = ()
    last_seen: datetime | None = None


def never_met(run: Run, wait: Wait) -> Failure:
    """What a run is left with whose task's time ended before any node had taken it."""
    whom = ", ".join(wait.nodes) or f"a node of {run.organization}"
    match wait.cause:
        case WaitCause.NO_NODE:
            what = f"{run.wanted_node} does not serve" if run.wanted_node else f"no node of {run.organization} serves"
            why = f"{what} {run.collaboration}, or the organization has suspended its membership: ask its admin"
        case WaitCause.NODE_OFFLINE if wait.last_seen is None:
            why = f"{whom} has never connected: ask its admin"
        case WaitCause.NODE_OFFLINE:
            why = f"{whom} was seen last at {wait.last_seen:%Y-%m-%d %H:%M:%S} UTC: ask its admin, or ask for longer"
        case _:
            why = f"{whom} had no room for it: ask for longer"
    return Failure(
        Reason.NODE_UNAVAILABLE.name,
        f"no node took the run before the task's time limit passed; {why}",
        {"organization": run.organization, "cause": wait.cause.name},
    )
