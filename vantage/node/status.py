"""What a node is doing, for its admin: asked for over ``vantage.node.admin`` as ``status``."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from vantage.node.active import Active
from vantage.node.capacity import Capacity

Document = dict[str, Any]


def runs_of(active: Iterable[Active], capacity: Capacity) -> Document:
    """Runs, each with who asks and what is being done since when; and how much room there is, and is taken."""
    now = time.monotonic()
    return {
        "runs": [
            {
                "run": each.lease.run,
                "attempt": each.lease.attempt,
                "requester": each.requester,
                "phase": each.phase,
                "seconds": round(max(now - each.since, 0.0), 1),
            }
            for each in active
        ],
        "waiting": capacity.waiting,
        "taken": asdict(capacity.taken),
        "total": asdict(capacity.total),
    }
