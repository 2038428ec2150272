"""What the life of tasks and runs is meant to be, said once more and as simply as possible; it shares no code with the
server."""

from __future__ import annotations

from dataclasses import dataclass, field

OPEN = ("QUEUED", "ASSIGNED", "RUNNING")
HELD = ("ASSIGNED", "RUNNING")
REPORTS = {"succeed": "SUCCEEDED", "fail": "FAILED", "refuse": "REFUSED", "stop": "CANCELLED"}


@dataclass
class ModelRun:
    """One task at one organization."""

    name: str
    task: ModelTask
    organization: str
    state: str = "QUEUED"
    attempt: int = 0
    node: str = ""
    lease: str = ""
    """Of the latest attempt, until that has failed and is to be repeated."""
    waits: bool = False
    """It is to be repeated, after a while."""
    reason: str = ""


@dataclass
class ModelTask:
    """A question."""

    name: str
    quorum: int
    cancel_rest: bool
    max_attempts: int
    parent: ModelRun | None
    detached: bool
    runs: list[ModelRun] = field(default_factory=list)
    state: str = "ACTIVE"

    @property
    def open(self) -> list[ModelRun]:
        return [run for run in self.runs if run.state in OPEN]


class Model:
    """All of them."""

    def __init__(self) -> None:
        self.tasks: list[ModelTask] = []

    @property
    def runs(self) -> list[ModelRun]:
        return [run for task in self.tasks for run in task.runs]

    def claim(self, node: str, organization: str, free: int) -> list[ModelRun]:
        """Who waits longest is taken first; what an earlier attempt had asked for ends."""
        queued = [run for run in self.runs if run.state == "QUEUED" and not run.waits]
        taken = sorted((run for run in queued if run.organization == organization), key=lambda run: run.name)[:free]
        for run in taken:
            run.state, run.node, run.attempt, run.lease = "ASSIGNED", node, run.attempt + 1, "new"
        for run in taken:
            if run.attempt > 1:
                self._orphan(run)
        return [run for run in taken if run.state == "ASSIGNED"]

    def holds(self, run: ModelRun, node: str, lease: str) -> bool:
        return bool(lease) and (run.node, run.lease) == (node, lease)

    def report(self, run: ModelRun, node: str, lease: str, what: str, reason: str, again: bool) -> None:
        """Only of the latest attempt, from its node, and only what can happen now."""
        if not self.holds(run, node, lease) or run.state not in OPEN:
            return
        if what == "start":
            if run.state == "ASSIGNED":
                run.state = "RUNNING"
            return
        if what == "stop" and run.state == "QUEUED":
            return
        if what in ("fail", "refuse") and again and run.attempt < run.task.max_attempts:
            run.state, run.lease, run.waits = "QUEUED", "", True
            self._orphan(run)
            return
        self._end(run, REPORTS[what], reason)

    def lose(self, run: ModelRun, node: str, lease: str) -> None:
        """The lease has ended without a sign of life."""
        if not self.holds(run, node, lease) or run.state not in HELD:
            return
        if run.attempt < run.task.max_attempts:
            run.state = "QUEUED"
        else:
            self._end(run, "FAILED", "NODE_LOST")

    def claims(self, run: ModelRun, node: str, lease: str) -> bool:
        """A node says that it has an attempt: whether it goes on."""
        if not self.holds(run, node, lease) or run.state not in OPEN:
            return False
        if run.state == "QUEUED":
            run.state = "ASSIGNED"
        return True

    def release(self, run: ModelRun) -> None:
        run.waits = False

    def cancel(self, task: ModelTask) -> None:
        """With all that descends from it."""
        below = [task]
        for each in below:
            below += [other for other in self.tasks if other.parent is not None and other.parent.task is each]
        for each in below:
            self._close(each, "CANCELLED", "TASK_CANCELLED")

    def expire(self, task: ModelTask) -> None:
        self._close(task, "EXPIRED", "TASK_EXPIRED")

    def _end(self, run: ModelRun, state: str, reason: str) -> None:
        run.state, run.reason, run.waits = state, "" if state == "SUCCEEDED" else reason, False
        self._orphan(run)
        self._settle(run.task)

    def _settle(self, task: ModelTask) -> None:
        if task.state != "ACTIVE":
            return
        good = sum(run.state == "SUCCEEDED" for run in task.runs)
        bad = len(task.runs) - len(task.open) - good
        needed = task.quorum or len(task.runs)
        if not task.open:
            task.state = "SUCCEEDED" if good >= needed else "FAILED"
        elif task.quorum and good >= needed:
            self._close(task, "SUCCEEDED", "QUORUM_REACHED")
        elif task.quorum and good + len(task.open) < needed:
            self._close(task, "FAILED", "QUORUM_MISSED")
        elif bad and task.cancel_rest:
            self._close(task, "FAILED", "OTHER_RUN_FAILED")

    def _close(self, task: ModelTask, state: str, reason: str) -> None:
        if task.state != "ACTIVE":
            return
        task.state = state
        for run in task.open:
            run.state, run.reason, run.waits = "EXPIRED" if state == "EXPIRED" else "CANCELLED", reason, False
            self._orphan(run)

    def _orphan(self, run: ModelRun) -> None:
        for task in self.tasks:
            if task.parent is run and not task.detached:
                self._close(task, "CANCELLED", "TASK_CANCELLED")
