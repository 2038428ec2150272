"""Rows of events: what happened to a task, in the order of its sequence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from sqlalchemy import Connection, bindparam, insert, select

from vantage.server.domain.runs import OPEN, Run, RunState
from vantage.server.domain.task_events import Event, RunMoved, TaskEnded
from vantage.server.domain.tasks import TaskState
from vantage.server.storage import run_store, task_store
from vantage.server.storage.task_schema import event

BATCH = 500
"""Events per read: bounds the memory of one watcher."""

_INSERT = insert(event)
_AFTER = (
    select(event)
    .where(event.c.task == bindparam("wanted"), event.c.sequence > bindparam("after"))
    .order_by(event.c.sequence)
    .limit(BATCH)
)


def append(connection: Connection, events: Iterable[Event]) -> None:
    """Insert events; a result is not repeated here, it lies at its run."""
    rows = []
    for each in events:
        row = {"task": each.task, "sequence": each.sequence, "time": each.time, "run": "", "node": "", "attempt": 0}
        if isinstance(each.body, RunMoved):
            moved = each.body.run
            row |= {"run": moved.name, "state": int(moved.state), "node": moved.node, "attempt": moved.attempt}
        elif isinstance(each.body, TaskEnded):
            row["state"] = int(each.body.state)
        else:
            raise TypeError("only events with a sequence are kept")
        rows.append(row)
    connection.execute(_INSERT, rows)


def after(connection: Connection, task: str, sequence: int) -> list[Event]:
    """The next events of a task, at most ``BATCH``, as they were published."""
    rows = connection.execute(_AFTER, {"wanted": task, "after": sequence}).all()
    names = {row.run for row in rows if row.run}
    runs = run_store.get_runs(connection, names) if names else {}
    results = run_store.get_results(connection, [name for name in names if runs[name].state is RunState.SUCCEEDED])
    events = []
    for row in rows:
        body: RunMoved | TaskEnded
        if row.run:
            body = RunMoved(_as_it_was(runs[row.run], RunState(row.state), row.node, row.attempt))
            if body.run.state is RunState.SUCCEEDED:
                body = RunMoved(replace(body.run, result=results.get(row.run)))
        else:
            found = task_store.get_task(connection, task)
            assert found is not None  # noqa: S101  # the foreign key holds
            body = TaskEnded(TaskState(row.state), found.succeeded_runs, found.unsuccessful_runs)
        events.append(Event(task, row.sequence, row.time, body))
    return events


def _as_it_was(now: Run, state: RunState, node: str, attempt: int) -> Run:
    """The run at an earlier event: what came later is taken away."""
    then = replace(now, state=state, node=node, attempt=attempt)
    if state in OPEN:
        then = replace(then, failure=None, finish_time=None, statement=b"")
    if state is RunState.ASSIGNED:
        then = replace(then, start_time=None)
    return then
