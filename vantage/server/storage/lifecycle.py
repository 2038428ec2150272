"""The one place where runs and tasks change their state: inside a transaction, with the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy import Connection

from vantage.common.errors import Reason
from vantage.server.domain.contents import Failure
from vantage.server.domain.runs import (
    LEASED,
    OPEN,
    Lease,
    Run,
    RunEvent,
    RunState,
    after_failed_attempt,
    lost,
    moved,
)
from vantage.server.domain.task_events import Event, RunMoved, TaskEnded
from vantage.server.domain.tasks import TaskState, Work, early_end, final_state
from vantage.server.storage import event_store, run_store, task_store
from vantage.server.storage.task_schema import RESULT

CANCELLED = Failure(Reason.TASK_CANCELLED.name, "the task was cancelled")
ORPHANED = Failure(Reason.TASK_CANCELLED.name, "the run that asked for this task has ended")
WITHDRAWN = Failure(
    Reason.ORGANIZATION_NOT_MEMBER.name, "the organization left the collaboration: ask without it, or invite it again"
)
EXPIRED = Failure(
    Reason.TASK_EXPIRED.name,
    "the task's time limit passed: ask again with a longer one, or when the node is online",
)

BATCH = 1_000
"""Tasks that are ended together: a job may have very many."""


@dataclass(frozen=True, slots=True)
class Vacancy:
    """A run that waits for a node: of this organization, perhaps a certain one."""

    organization: str
    node: str


def vacancy(run: Run) -> Vacancy:
    """What a queued run waits for."""
    return Vacancy(run.organization, run.wanted_node)


@dataclass(slots=True)
class Changes:
    """What a unit of work did, for those who must know after the commit.

    Attributes:
        events: in the order of their sequences within each task.
        created: new tasks with their deadlines.
        queued: runs that wait for a node again; new ones are announced when their unit is submitted.
        held: runs that wait for a while before they are tried again.
        granted: leases that began, or that their nodes confirmed.
        assigned: what must be sent to nodes.
        released: leases that ended, with their nodes.
        revoked: leases that the server ended: their nodes must stop the runs; with the reason.
    """

    events: list[Event] = field(default_factory=list)
    created: list[tuple[str, datetime]] = field(default_factory=list)
    queued: set[Vacancy] = field(default_factory=set)
    held: list[Run] = field(default_factory=list)
    granted: list[tuple[str, Lease]] = field(default_factory=list)
    assigned: list[tuple[str, Work]] = field(default_factory=list)
    released: list[tuple[str, Lease]] = field(default_factory=list)
    revoked: list[tuple[str, Lease, str]] = field(default_factory=list)


def advance(connection: Connection, changes: Changes, steps: Sequence[tuple[Run, Run]], now: datetime) -> None:
    """Store runs that moved, let their tasks follow, and end what hangs on runs that have ended.

    Args:
        connection: of the unit of work; the runs were read in it and locked.
        changes: what is done is added here.
        steps: (before, after); several of one run follow one another.
        now: the time of the events.
    """
    if not steps:
        return
    heads = task_store.lock_heads(connection, {after.task for _before, after in steps})
    events: list[Event] = []
    parents: list[str] = []
    for before, after in steps:
        head = heads[after.task]
        head.last_sequence += 1
        events.append(Event(after.task, head.last_sequence, now, RunMoved(after)))
        if before.state in LEASED and after.state not in LEASED:
            changes.released.append((before.node, before.lease))
        if after.retry_time is not None:
            changes.held.append(after)
        elif after.state is RunState.QUEUED:
            changes.queued.add(vacancy(after))
        if after.state not in OPEN:
            head.open_runs -= 1
            if after.state is RunState.SUCCEEDED:
                head.succeeded += 1
            else:
                head.unsuccessful += 1
        if after.subtasks and _attempt_ended(before, after):
            parents.append(after.name)
    for head in heads.values():
        head.state = final_state(head.tally, head.closing)
        if head.state is not TaskState.ACTIVE:
            head.last_sequence += 1
            head.finished = now
            ended = TaskEnded(head.state, head.succeeded, head.unsuccessful)
            events.append(Event(head.name, head.last_sequence, now, ended))
    run_store.update_runs(connection, {after.name: after for _before, after in steps}.values())
    run_store.insert_contents(
        connection, [(after.name, RESULT, after.result) for _before, after in steps if after.result is not None]
    )
    task_store.update_heads(connection, heads.values())
    event_store.append(connection, events)
    changes.events.extend(events)
    if parents:
        # A child outlives neither the failure nor the success of the run that waits for it, nor the attempt that asked.
        children = task_store.active_children(connection, parents)
        close(connection, changes, children, TaskState.CANCELLED, ORPHANED, now)
    for head in heads.values():
        if head.closing is None and (end := early_end(head.tally)) is not None:
            close(connection, changes, [head.name], *end, now)


def _attempt_ended(before: Run, after: Run) -> bool:
    """Whether nobody is at work any more on the attempt that asked for the run's subtasks. A run that merely went back
    to the queue may be at work still, and be taken up again by the node that had it."""
    return after.state not in OPEN or not after.lease_id or after.attempt != before.attempt


def close(
    connection: Connection,
    changes: Changes,
    tasks: Iterable[str],
    state: TaskState,
    failure: Failure,
    now: datetime,
    untouched: Mapping[str, Failure] | None = None,
) -> None:
    """End tasks early, with all their descendants.

    Args:
        connection: of the unit of work.
        changes: what is done is added here.
        tasks: which; those that have ended are left alone.
        state: that they end in: CANCELLED, EXPIRED, or what the rules of the task say.
        failure: what their open runs are left with.
        now: the time of the events.
        untouched: what those runs are left with instead that no node has ever had, by name.
    """
    event = RunEvent.EXPIRE if state is TaskState.EXPIRED else RunEvent.CANCEL
    names = list(tasks)
    for some in (names[start : start + BATCH] for start in range(0, len(names), BATCH)):
        heads = task_store.lock_heads(connection, some)
        active = [head for head in heads.values() if head.state is TaskState.ACTIVE]
        if not active:
            continue
        for head in active:
            head.closing = state
        task_store.update_heads(connection, active)
        steps = []
        for run in run_store.open_runs_of(connection, [head.name for head in active]):
            left = (untouched or {}).get(run.name, failure) if not run.attempt else after_failed_attempt(run, failure)
            steps.append((run, moved(run, event, now, failure=left)))
            # A run that went back to the queue may still be at work at its last node: it is told as well.
            if run.lease_id:
                changes.revoked.append((run.node, run.lease, failure.reason))
        advance(connection, changes, steps, now)


def withdraw(connection: Connection, changes: Changes, organization: str, collaboration: str, now: datetime) -> None:
    """End the open runs of an organization that is no member of a collaboration any more."""
    steps = []
    for run in run_store.open_runs_at(connection, organization, collaboration):
        steps.append((run, moved(run, RunEvent.CANCEL, now, failure=WITHDRAWN)))
        if run.lease_id:
            changes.revoked.append((run.node, run.lease, WITHDRAWN.reason))
    advance(connection, changes, steps, now)


def lose(connection: Connection, changes: Changes, node: str, leases: Iterable[Lease], now: datetime) -> None:
    """Take runs back whose leases ended without a sign of life; those that moved on meanwhile are left alone."""
    wanted = {lease.run: lease for lease in leases}
    steps = []
    for name, run in run_store.get_runs(connection, wanted).items():
        if run.state in LEASED and run.node == node and run.lease == wanted[name]:
            after = lost(run, now)
            steps.append((run, after))
            if after.state not in OPEN:
                changes.revoked.append((node, run.lease, Reason.NODE_LOST.name))
    advance(connection, changes, steps, now)


def release(connection: Connection, changes: Changes, names: Iterable[str]) -> None:
    """Let runs be tried again that have waited long enough; harmless for those that have ended meanwhile."""
    waiting = [
        replace(run, retry_time=None)
        for run in run_store.get_runs(connection, names).values()
        if run.state is RunState.QUEUED and run.retry_time is not None
    ]
    if waiting:
        run_store.update_runs(connection, waiting)
    changes.queued |= {vacancy(run) for run in waiting}
