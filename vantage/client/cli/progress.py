"""A running task on the screen: bars on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

import click

from vantage.client.cli.nouns import short
from vantage.client.cli.output import Output, text
from vantage.common.text import printable

if TYPE_CHECKING:
    from vantage.client import Event, Run, Wait

_STEP = 0.1
"""Lines tell of progress at most this often."""


class Display(Protocol):
    """Shows what happens to a task."""

    def run(self, run: Run) -> None:
        """A run is in a state."""
        ...

    def progress(self, organization: str, fraction: float, message: str) -> None:
        """A run has come so far."""
        ...

    def say(self, line: str) -> None:
        """A line beside the display."""
        ...


def display(output: Output, *, quiet: bool) -> AbstractContextManager[Display]:
    """The display that fits: none when nobody wants it, bars when a person looks, else lines."""
    if quiet or (output.is_json and not sys.stderr.isatty()):
        return nullcontext(Silent())
    if sys.stderr.isatty():
        return _bars()
    return nullcontext(Lines())


def follow(events: Iterable[Event], shown: Display, *, logs: bool) -> None:
    """Show events until the task has ended.

    Args:
        events: of one task, the snapshot first.
        shown: where.
        logs: also the lines that algorithms print.
    """
    from vantage.client import RunChanged, RunFinished, RunLog, RunProgress, RunWaits, TaskSnapshot
    from vantage.client.handles import waiting

    runs: dict[str, Run] = {}
    for event in events:
        match event:
            case TaskSnapshot():
                for run in event.task.runs:
                    shown.run(runs.setdefault(run.name, run))
            case RunChanged() | RunFinished():
                runs[event.run.name] = event.run
                shown.run(event.run)
            case RunWaits() if event.run in runs:
                runs[event.run] = waiting(runs[event.run], event)
                shown.run(runs[event.run])
            case RunProgress():
                shown.progress(short(event.organization), event.fraction, event.message)
            case RunLog() if logs:
                organization = short(event.organization)
                if event.dropped_lines:
                    shown.say(f"{organization} | ({event.dropped_lines} lines were left out)")
                for line in event.lines:
                    shown.say(f"{organization} | {line}")


def describe(run: Run) -> str:
    """The state of a run in a few words."""
    from vantage.client import RunState

    state = run.state.name.lower()
    if run.failure is not None:
        return f"{state}: {run.failure.reason}"
    if run.state is RunState.QUEUED and run.wait is not None:
        return _waits(run, run.wait)
    if run.state is RunState.QUEUED and not run.node_online:
        return "waits: no node that can take it is connected"
    return state


def _waits(run: Run, wait: Wait) -> str:
    from vantage.client import WaitCause

    whom = ", ".join(short(each) for each in wait.nodes)
    match wait.cause:
        case WaitCause.NODE_OFFLINE if wait.last_seen_time is None:
            return f"waits for {whom}, which has never connected"
        case WaitCause.NODE_OFFLINE:
            return f"waits for {whom}, last seen {text(wait.last_seen_time)}"
        case WaitCause.NODE_BUSY:
            return f"waits for room at {whom}"
        case WaitCause.NO_NODE:
            return "waits: there is no node that may take it"
        case WaitCause.RETRY:
            why = f" after {run.last_failure.reason}" if run.last_failure is not None else ""
            return f"waits{why}, tried again at {text(run.retry_time)}"
        case _:
            return "waits"


class Silent:
    """Shows log lines only."""

    def run(self, run: Run) -> None:
        """See ``Display``."""

    def progress(self, organization: str, fraction: float, message: str) -> None:
        """See ``Display``."""

    def say(self, line: str) -> None:
        """See ``Display``."""
        click.echo(printable(line), err=True)


class Lines(Silent):
    """One line on stderr whenever something has changed."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._reached: dict[str, float] = {}

    def run(self, run: Run) -> None:
        """See ``Display``."""
        organization, state = short(run.organization), describe(run)
        if self._told.get(organization) != state:
            self._told[organization] = state
            self.say(f"{organization}: {state}")

    def progress(self, organization: str, fraction: float, message: str) -> None:
        """See ``Display``."""
        if fraction >= 1 or fraction - self._reached.get(organization, -1) >= _STEP:
            self._reached[organization] = fraction
            self.say(f"{organization}: {fraction:.0%} {message}".rstrip())


class Bars:
    """A bar per organization.

    Args:
        progress: a rich.progress.Progress with the columns of ``_bars``.
    """

    def __init__(self, progress: Any) -> None:
        self._progress = progress
        self._bars: dict[str, Any] = {}

    def run(self, run: Run) -> None:
        """See ``Display``."""
        state = printable(describe(run))
        bar = self._bar(short(run.organization))
        if run.state.ended:
            succeeded = run.failure is None and run.state.name == "SUCCEEDED"
            self._progress.update(bar, total=1.0, completed=1.0 if succeeded else run.progress, state=state)
            self._progress.stop_task(bar)
        else:
            self._progress.update(bar, state=state)

    def progress(self, organization: str, fraction: float, message: str) -> None:
        """See ``Display``."""
        text = printable(message or "running").partition("\n")[0]
        self._progress.update(self._bar(organization), total=1.0, completed=fraction, state=text)

    def say(self, line: str) -> None:
        """See ``Display``."""
        from rich.text import Text

        self._progress.console.print(Text(printable(line)))

    def _bar(self, organization: str) -> Any:
        if organization not in self._bars:
            # Without a total the bar pulses: nothing is known of how far it is.
            self._bars[organization] = self._progress.add_task(organization, total=None, state="")
        return self._bars[organization]


class Transfers:
    """Shows how far large arguments and results are on their way; a terminal sees bars, others nothing.

    Args:
        enabled: whether anybody wants to see it.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled and sys.stderr.isatty()
        self._progress: Any = None
        self._bar: Any = None
        self._done = 0

    def __call__(self, direction: str, done: int, total: int) -> None:
        """So many bytes of so many have been moved; called by the client, on a thread of its own."""
        if self._progress is None:
            return
        if self._bar is None or done < self._done:
            self._bar = self._progress.add_task(direction, total=total)
        self._done = done
        self._progress.update(self._bar, completed=done)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show transfers while the block runs. Nothing else may be on display meanwhile."""
        if not self._enabled:
            yield
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as progress:
            self._progress, self._bar = progress, None
            try:
                yield
            finally:
                self._progress = None


@contextmanager
def _bars() -> Iterator[Display]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[state]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True, highlight=False)) as progress:
        yield Bars(progress)
