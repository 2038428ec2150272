"""What happens to tasks, for those who watch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from vantage.server.domain.runs import OPEN, Run
from vantage.server.domain.tasks import Task, TaskState


@dataclass(frozen=True, slots=True)
class RunMoved:
    """A run went to another state, perhaps its last: then with result or failure."""

    run: Run

    @property
    def ended(self) -> bool:
        """Whether the state is final."""
        return self.run.state not in OPEN


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """The task ended; nothing follows."""

    state: TaskState
    succeeded: int
    unsuccessful: int


@dataclass(frozen=True, slots=True)
class RunProgressed:
    """How far a run is; not kept."""

    run: str
    organization: str
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class RunLogged:
    """Lines that an algorithm printed; not kept."""

    run: str
    organization: str
    lines: tuple[str, ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class RunWaits:
    """Who could take a queued run has come or gone; not kept."""

    run: Run


Body = RunMoved | TaskEnded | RunProgressed | RunLogged | RunWaits


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a task. ``sequence`` counts from 1, the creation; 0 for what is not kept."""

    task: str
    sequence: int
    time: datetime
    body: Body

    @property
    def weight(self) -> int:
        """Bytes that it holds in memory, roughly."""
        body = self.body
        if isinstance(body, RunMoved) and body.run.result is not None and body.run.result.inline is not None:
            return 512 + len(body.run.result.inline)
        if isinstance(body, RunLogged):
            return 512 + sum(map(len, body.lines))
        return 512


def folded(task: Task, events: Iterable[Event]) -> Task:
    """The task after moves of its runs that follow it without a gap."""
    runs = {run.name: run for run in task.runs}
    sequence = task.last_sequence
    for event in events:
        assert isinstance(event.body, RunMoved)  # noqa: S101  # the caller takes no others
        runs[event.body.run.name] = event.body.run
        sequence = event.sequence
    return replace(task, runs=tuple(runs.values()), last_sequence=sequence)
