"""``vantage task``."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vantage.client.cli.asking import DurationType
from vantage.client.cli.command import Call, command
from vantage.client.cli.nouns import add_get, one, short
from vantage.client.cli.output import Column, text
from vantage.client.cli.task_run import INTO, LOG, QUIET, SAVE, SEALED, UNVERIFIED, one_place, run_task, wait

if TYPE_CHECKING:
    from vantage.client import Run, Task

_STATES = ("active", "succeeded", "failed", "cancelled", "expired")


def _ended(item: Task) -> str:
    return f"{sum(run.state.ended for run in item.runs)}/{len(item.runs)}"


def _run_line(run: Run) -> str:
    from vantage.client.cli.progress import describe

    parts = [short(run.organization), describe(run)]
    if run.attempt > 1:
        parts.append(f"attempt {run.attempt}")
    if run.node:
        parts.append(f"at {short(run.node)}")
    if run.start_time is not None and run.finish_time is not None:
        parts.append(f"in {(run.finish_time - run.start_time).total_seconds():.1f} s")
    if run.failure is not None:
        parts.append(f"({run.failure.message})")
    return "  ".join(parts)


COLUMNS = (
    Column("TASK", one("name")),
    Column("STATE", "state"),
    Column("ENDED", _ended),
    Column("FUNCTION", "function"),
    Column("IMAGE", "image", wide=True),
    Column("TITLE", "title"),
    Column("COLLABORATION", one("collaboration")),
    Column("CREATOR", lambda item: short(item.creator)),
    Column("CREATED", "create_time"),
    Column("DEADLINE", "deadline", wide=True),
    Column("FINISHED", "finish_time", wide=True),
    Column("QUORUM", lambda item: item.quorum or "all", wide=True),
    Column("ON FAILURE", "on_failure", wide=True),
    Column("MAX RUNTIME", "max_runtime", wide=True),
    Column("MAX ATTEMPTS", "max_attempts", wide=True),
    Column("RUNS", lambda item: "\n".join(_run_line(run) for run in item.runs), wide=True),
)


@click.group()
def task() -> None:
    """Ask questions and read the answers."""


task.add_command(run_task, "run")
_ID = "0199b2c4-5d1e-7c3a-9f00-1a2b3c4d5e6f"
add_get(task, "tasks", COLUMNS, _ID)


@command(task, "list", "vantage task list --collaboration trial --state active", "vantage task list --since 24h")
@click.option("--collaboration", metavar="NAME", help="Only those of this collaboration.")
@click.option("--state", "states", multiple=True, type=click.Choice(_STATES), help="Only in this state; repeatable.")
@click.option("--creator", metavar="NAME", help="Only those of this user.")
@click.option("--since", type=DurationType(), metavar="DURATION", help="Only those created since then, e.g. 24h.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Stop after this many.")
def list_tasks(
    call: Call,
    collaboration: str | None,
    states: tuple[str, ...],
    creator: str | None,
    since: timedelta | None,
    limit: int,
) -> None:
    """List the tasks that you may see, newest first."""
    import itertools
    from datetime import UTC, datetime

    from vantage.client import TaskState

    with call.client() as client:
        found = client.tasks.list(
            collaboration=collaboration or "",
            states=[TaskState[state.upper()] for state in states],
            creator=creator or "",
            created_after=datetime.now(UTC) - since if since is not None else None,
        )
        call.output.table(itertools.islice(found, limit), COLUMNS, none="no tasks that you may see")


@command(task, "watch", f"vantage task watch {_ID}", f"vantage task watch {_ID} --log")
@click.argument("name")
@LOG
@QUIET
@SAVE
@INTO
@UNVERIFIED
def watch(
    call: Call, name: str, logs: bool, quiet: bool, save: Path | None, into: Path | None, unverified: bool
) -> None:
    """Attach to a task until it has ended, then print the answers."""
    from vantage.client.cli.progress import Transfers

    one_place(save, into)
    transfers = Transfers(enabled=not quiet)
    with call.client(transfers) as client:
        handle = client.tasks.attach(name)
        wait(call, handle, transfers, logs=logs, quiet=quiet, save=save, into=into, unverified=unverified)


@command(
    task,
    "result",
    f"vantage task result {_ID}",
    f"vantage task result {_ID} --save answers/",
    f"vantage task result {_ID} --save archive/ --sealed",
    f"vantage task result {_ID} --into large-answers/",
)
@click.argument("name")
@SAVE
@INTO
@SEALED
@UNVERIFIED
def result(call: Call, name: str, save: Path | None, into: Path | None, sealed: bool, unverified: bool) -> None:
    """Print the answers of a task that has ended."""
    from vantage.client.cli.answers import show
    from vantage.client.cli.progress import Transfers
    from vantage.common.errors import Reason, error

    one_place(save, into)
    if sealed and save is None and into is None:
        raise click.UsageError("--sealed keeps files: say where with --save or --into")
    transfers = Transfers(enabled=True)
    with call.client(transfers) as client:
        found = client.tasks.get(name)
        if not found.state.ended:
            raise error(
                Reason.IN_USE, f"{found.name} has not ended: wait for it with 'vantage task watch {short(found.name)}'"
            )
        with transfers.shown():
            results = client.tasks.attach(name).results(sealed=sealed, unverified=unverified, into=into)
        show(call.output, found.name, found.state.name, results, save, quorum=found.quorum, sealed=sealed)


@command(task, "cancel", f"vantage task cancel {_ID}")
@click.argument("name")
def cancel(call: Call, name: str) -> None:
    """Cancel a task and all that it started; harmless when it has ended."""
    with call.client() as client:
        cancelled = client.tasks.cancel(name)
    call.output.done(f"{cancelled.name} is {text(cancelled.state)}", cancelled)
