"""Units of work about tasks that exist: read, list, cancel, expire."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from itertools import accumulate

from sqlalchemy import Connection

from vantage.server.domain.contents import Failure
from vantage.server.domain.permissions import Reach
from vantage.server.domain.runs import Run
from vantage.server.domain.tasks import Task, TaskState
from vantage.server.storage import run_store, task_store
from vantage.server.storage.lifecycle import CANCELLED, EXPIRED, Changes, close
from vantage.server.storage.pages import MAX_BYTES
from vantage.server.storage.task_store import Listing

_RUN_BYTES = 512
"""What a run counts for in a list: about what it has in a message."""


def read_task(connection: Connection, name: str, *, results: bool = True) -> Task | None:
    """A task with its runs."""
    row = task_store.get_task(connection, name)
    if row is None:
        return None
    return task_store.build_task(row, run_store.runs_of(connection, [name], results=results).get(name, []))


def read_list(
    connection: Connection, reach: Reach, listing: Listing, before: str | None, limit: int
) -> tuple[Sequence[Task], bool]:
    """Tasks that are reached and match, newest first, without results, and whether there are more.

    At most ``limit``, and no more than may be held in memory at once: a task can have orders of megabytes and a
    thousand runs.
    """
    found = task_store.list_tasks(connection, reach, listing, before, limit + 1)
    weights = accumulate(row.order_bytes + row.runs * _RUN_BYTES for row in found[:limit])
    names = [row.name for row, weight in zip(found, weights, strict=False) if weight <= MAX_BYTES]
    names = names or [row.name for row in found[:1]]  # one alone may have more
    rows = task_store.get_tasks(connection, names)
    runs = run_store.runs_of(connection, names, results=False)
    return [task_store.build_task(rows[name], runs.get(name, [])) for name in names], len(names) < len(found)


def cancel_task(connection: Connection, changes: Changes, name: str, now: datetime) -> Task | None:
    """Cancel a task with all its descendants, and return it; harmless when they have ended."""
    close(connection, changes, task_store.active_from(connection, name), TaskState.CANCELLED, CANCELLED, now)
    return read_task(connection, name)


def read_runs(connection: Connection, names: Iterable[str]) -> list[Run]:
    """The runs of tasks."""
    return [run for runs in run_store.runs_of(connection, names, results=False).values() for run in runs]


def expire_tasks(
    connection: Connection,
    changes: Changes,
    names: Iterable[str],
    now: datetime,
    untouched: Mapping[str, Failure] | None = None,
) -> None:
    """End tasks whose deadline has passed; harmless for those that have ended. For ``untouched`` see ``close``."""
    close(connection, changes, names, TaskState.EXPIRED, EXPIRED, now, untouched)
