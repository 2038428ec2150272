"""Life of a run: one table says what may happen, and which side may make it happen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, IntEnum

from vantage.common.errors import Reason
from vantage.server.domain.contents import Failure, Payload

DEFAULT_ATTEMPTS = 3
"""How often a run is handed to a node before its loss is final, unless its task says otherwise."""
MAX_ATTEMPTS = 10
"""How often a task may let its runs be handed to a node."""
_SHOWN = 300


class RunState(IntEnum):
    """Where a run is in its life; the numbers are those of the contract."""

    QUEUED = 1
    ASSIGNED = 2
    RUNNING = 3
    SUCCEEDED = 4
    FAILED = 5
    REFUSED = 6
    CANCELLED = 7
    EXPIRED = 8


LEASED = frozenset({RunState.ASSIGNED, RunState.RUNNING})
"""States in which a node holds the run."""
OPEN = frozenset({RunState.QUEUED}) | LEASED
"""States that are not final."""


class Side(Enum):
    """Who makes an event."""

    SERVER = "server"
    NODE = "node"


class RunEvent(Enum):
    """What can happen to a run."""

    ASSIGN = "assign"
    RESUME = "resume"
    LOSE = "lose"
    GIVE_UP = "give up"
    RETRY = "retry"
    CANCEL = "cancel"
    EXPIRE = "expire"
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    REFUSE = "refuse"
    STOP = "stop"


MAKERS: dict[RunEvent, tuple[Side, str]] = {
    RunEvent.ASSIGN: (Side.SERVER, "leases the run to a node"),
    RunEvent.RESUME: (Side.SERVER, "a node comes back with the latest lease of a run that went back to the queue"),
    RunEvent.LOSE: (Side.SERVER, "the lease ended without a sign of life: the run goes back to the queue"),
    RunEvent.GIVE_UP: (Side.SERVER, "the lease of the last attempt ended"),
    RunEvent.RETRY: (
        Side.SERVER,
        "the attempt failed for a cause that another one may mend: the run goes back to the queue, for after a while",
    ),
    RunEvent.CANCEL: (Side.SERVER, "the task, or the run that asked for it, ended early, or needs no more answers"),
    RunEvent.EXPIRE: (Side.SERVER, "the task's deadline passed"),
    RunEvent.START: (Side.NODE, "the algorithm runs"),
    RunEvent.SUCCEED: (Side.NODE, "there is a result"),
    RunEvent.FAIL: (Side.NODE, "there will be no result"),
    RunEvent.REFUSE: (Side.NODE, "the node's policy does not allow it"),
    RunEvent.STOP: (Side.NODE, "the node's admin stopped it"),
}
"""Which side makes an event, and what it means."""

TRANSITIONS: dict[tuple[RunState, RunEvent], RunState] = {
    (RunState.QUEUED, RunEvent.ASSIGN): RunState.ASSIGNED,
    (RunState.QUEUED, RunEvent.RESUME): RunState.ASSIGNED,
    # The latest attempt was given up too early; nobody else has the run, so its outcome is the outcome.
    (RunState.QUEUED, RunEvent.SUCCEED): RunState.SUCCEEDED,
    (RunState.QUEUED, RunEvent.FAIL): RunState.FAILED,
    (RunState.QUEUED, RunEvent.REFUSE): RunState.REFUSED,
    (RunState.QUEUED, RunEvent.RETRY): RunState.QUEUED,
    (RunState.QUEUED, RunEvent.CANCEL): RunState.CANCELLED,
    (RunState.QUEUED, RunEvent.EXPIRE): RunState.EXPIRED,
    (RunState.ASSIGNED, RunEvent.START): RunState.RUNNING,
    (RunState.ASSIGNED, RunEvent.SUCCEED): RunState.SUCCEEDED,
    (RunState.ASSIGNED, RunEvent.FAIL): RunState.FAILED,
    (RunState.ASSIGNED, RunEvent.REFUSE): RunState.REFUSED,
    (RunState.ASSIGNED, RunEvent.STOP): RunState.CANCELLED,
    (RunState.ASSIGNED, RunEvent.LOSE): RunState.QUEUED,
    (RunState.ASSIGNED, RunEvent.GIVE_UP): RunState.FAILED,
    (RunState.ASSIGNED, RunEvent.RETRY): RunState.QUEUED,
    (RunState.ASSIGNED, RunEvent.CANCEL): RunState.CANCELLED,
    (RunState.ASSIGNED, RunEvent.EXPIRE): RunState.EXPIRED,
    (RunState.RUNNING, RunEvent.SUCCEED): RunState.SUCCEEDED,
    (RunState.RUNNING, RunEvent.FAIL): RunState.FAILED,
    (RunState.RUNNING, RunEvent.REFUSE): RunState.REFUSED,
    (RunState.RUNNING, RunEvent.STOP): RunState.CANCELLED,
    (RunState.RUNNING, RunEvent.LOSE): RunState.QUEUED,
    (RunState.RUNNING, RunEvent.GIVE_UP): RunState.FAILED,
    (RunState.RUNNING, RunEvent.RETRY): RunState.QUEUED,
    (RunState.RUNNING, RunEvent.CANCEL): RunState.CANCELLED,
    (RunState.RUNNING, RunEvent.EXPIRE): RunState.EXPIRED,
}
"""(state, event) -> state. What is not in the table does not happen. docs/states.md shows it; a test compares."""


@dataclass(frozen=True, slots=True)
class Lease:
    """One attempt: what a node shows to prove that a run is its own."""

    run: str
    lease_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Run:
    """One task at one organization.

    Attributes:
        name: ``tasks/{task}/runs/{run}``.
        task: ``tasks/{task}``.
        position: index among the task's targets.
        organization: who is asked.
        wanted_node: node that was asked for, or "" for any of the organization.
        node: node that has or had it, or "".
        attempt: how many times it was assigned.
        lease_id: fencing token of the latest attempt, or "" when there is none, or when it failed and there will be
            another.
        subtasks: how many subtasks it created.
        max_attempts: how many times it may be assigned.
        collaboration: ``collaborations/{collaboration}`` of its task.
        failure: why there is no result; of a run that has not ended: why the attempt before failed or was lost.
        statement: what the node signed about the outcome; the server passes it on.
        retry_time: until when it waits in the queue before it is tried again, or None.
        owner: in whose name it was asked in the end, as its task.
    """

    name: str
    task: str
    position: int
    organization: str
    wanted_node: str
    node: str = ""
    state: RunState = RunState.QUEUED
    attempt: int = 0
    lease_id: str = ""
    subtasks: int = 0
    datasets: tuple[tuple[str, str], ...] = ()
    result: Payload | None = None
    failure: Failure | None = None
    assign_time: datetime | None = None
    start_time: datetime | None = None
    finish_time: datetime | None = None
    statement: bytes = b""
    max_attempts: int = DEFAULT_ATTEMPTS
    retry_time: datetime | None = None
    owner: str = ""
    collaboration: str = ""

    @property
    def lease(self) -> Lease:
        """The latest attempt."""
        return Lease(self.name, self.lease_id, self.attempt)


def next_state(state: RunState, event: RunEvent) -> RunState | None:
    """The state after an event, or None when the event does not happen in this state."""
    return TRANSITIONS.get((state, event))


def assigned(run: Run, node: str, lease_id: str, now: datetime) -> Run:
    """The run when it is leased to a node: a new attempt."""
    return replace(
        run,
        state=TRANSITIONS[run.state, RunEvent.ASSIGN],
        node=node,
        lease_id=lease_id,
        attempt=run.attempt + 1,
        assign_time=run.assign_time or now,
    )


def lost(run: Run, now: datetime) -> Run:
    """The run when its lease ended without a sign of life."""
    if run.attempt < run.max_attempts:
        failure = Failure(Reason.NODE_LOST.name, f"{run.node} was lost while it had the run")
        return replace(run, state=TRANSITIONS[run.state, RunEvent.LOSE], failure=failure)
    often = "once" if run.attempt == 1 else f"{run.attempt} times"
    failure = Failure(
        Reason.NODE_LOST.name,
        f"the node was lost {often} while it had the run: ask the admin of {run.organization} to look",
    )
    return replace(run, state=TRANSITIONS[run.state, RunEvent.GIVE_UP], failure=failure, finish_time=now)


def after_failed_attempt(run: Run, failure: Failure) -> Failure:
    """What a run is left with that the server ends: also why its last attempt had failed, if it waits for another."""
    if run.failure is None or run.state is not RunState.QUEUED:
        return failure
    return replace(
        failure,
        message=f"{failure.message}; its last attempt failed: {run.failure.message[:_SHOWN]} [{run.failure.reason}]",
        metadata={**failure.metadata, "last_failure": run.failure.reason},
    )


def retried(run: Run, failure: Failure, retry_time: datetime) -> Run:
    """The run when its attempt failed for a cause that another one may mend. The lease of the attempt is spent."""
    return replace(
        run, state=TRANSITIONS[run.state, RunEvent.RETRY], lease_id="", failure=failure, retry_time=retry_time
    )


def moved(
    run: Run,
    event: RunEvent,
    now: datetime,
    *,
    result: Payload | None = None,
    failure: Failure | None = None,
    statement: bytes = b"",
) -> Run:
    """The run after any other event. The caller has asked ``next_state`` whether it happens."""
    state = TRANSITIONS[run.state, event]
    return replace(
        run,
        state=state,
        result=result,
        # While it is open: why there was an attempt before, which is no more once the attempt goes on after all.
        failure=run.failure if event is RunEvent.START else failure,
        statement=statement,
        retry_time=None,
        # A node in a hurry says only that it has succeeded.
        start_time=now if event is RunEvent.START else run.start_time or (now if event is RunEvent.SUCCEED else None),
        finish_time=None if state in OPEN else now,
    )
