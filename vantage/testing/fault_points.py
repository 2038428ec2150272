"""Server and node as they are, but for places at which a test can have them die: ``kill -9`` at a durable step.

``python -m vantage.testing.fault_points FILE server|node ...`` wraps the functions that make steps durable, then starts
the real program. When the process reaches the point whose name is in FILE, it removes the file and kills itself, as
nobody else could at that very moment. The product knows nothing of this.

Points of the server, for what one commit does (``WHAT``: create, claim, start, succeed, fail, cancel, ...):
``server.WHAT.before_commit``, inside the transaction, and ``server.WHAT.committed``, before anybody is told of it.

Points of the node: ``node.STEP.before_commit`` and ``node.STEP.committed`` around the commits of its journal (``STEP``
is the method that asked for it: accept, mark_started, finish, acknowledge ...); ``node.run.before`` the executor begins
and ``node.run.started`` when the algorithm runs; ``node.result.stored`` when the node has the result in memory;
``node.ack.before`` and ``node.ack.after`` it takes note that the server has something. Such a node also comes back to a
server sooner than others, and such a server gives up a database that is locked sooner: tests kill and lock more often
than operators do.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

_file = Path()


def arm(file: Path, point: str) -> None:
    """Let the process that looks at this file die when it reaches a point for the first time from now on."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(point)
    partial.replace(file)


def _reached(point: str) -> None:
    try:
        armed = _file.read_text()
    except FileNotFoundError:
        return
    if armed == point:
        _file.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def _wrap(owner: Any, name: str, before: str = "", after: str = "") -> None:
    """Points before and after each call of a method."""
    original = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if before:
            _reached(before)
        value = original(*args, **kwargs)
        if after:
            _reached(after)
        return value

    setattr(owner, name, wrapped)


def _prepare_server() -> None:
    from sqlalchemy import Engine, event

    from vantage.server.services.commits import Commits
    from vantage.server.storage import database
    from vantage.server.storage.database import Database

    done: list[str] = []
    """What the transaction of the moment has done; touched by the thread that writes alone."""
    submit, commit = Commits.submit, Database._commit

    def submit_marked(self: Commits, unit: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        def marked(*inner: Any, **more: Any) -> Any:
            value = unit(*inner, **more)
            done.extend(_what(unit.__name__, value, args))
            return value

        return submit(self, marked, *args, **kwargs)

    def commit_watched(self: Database, group: Sequence[Any]) -> None:
        done.clear()
        commit(self, group)
        for what in done:
            _reached(f"server.{what}.committed")

    @event.listens_for(Engine, "commit")
    def _before_commit(_connection: object) -> None:
        for what in done:
            _reached(f"server.{what}.before_commit")

    database._BUSY_TIMEOUT = 1.0
    Commits.submit = submit_marked  # type: ignore[method-assign]  # that is what this program is for
    Database._commit = commit_watched  # type: ignore[method-assign]


def _what(unit: str, value: Any, args: Sequence[Any]) -> list[str]:
    """What a unit of work has done, as far as it matters when it is lost."""
    match unit:
        case "create_tasks":
            return ["create"]
        case "claim":
            return ["claim"] if value else []  # nodes look for work that is not there all the time
        case "apply_reports":
            return [report.event.value for report in args[1] if report.event is not None]
        case _:
            return [unit.removesuffix("_task").removesuffix("_tasks")]


def _prepare_node() -> None:
    from vantage.common.backoff import Backoff
    from vantage.node import agent
    from vantage.node.executor.docker import DockerExecutor
    from vantage.node.executor.process import ProcessExecutor
    from vantage.node.journal import Journal
    from vantage.node.run_door import RunDoor

    run = Journal._run

    def run_watched(self: Journal, batch: Sequence[Any]) -> Any:
        # Units that are steps of a run are local functions of the methods that ask for them.
        names = [getattr(job.unit, "__qualname__", "").split(".") for job in batch]
        steps = [name[1] for name in names if len(name) > 1]
        for step in steps:
            _reached(f"node.{step}.before_commit")
        problem = run(self, batch)  # type: ignore[arg-type]  # a sequence will do
        for step in steps:
            _reached(f"node.{step}.committed")
        return problem

    Journal._run = run_watched  # type: ignore[method-assign]
    _wrap(Journal, "acknowledge", "node.ack.before", "node.ack.after")
    for executor in (ProcessExecutor, DockerExecutor):
        _wrap(executor, "run", before="node.run.before")
    _wrap(RunDoor, "started", before="node.run.started")
    result = RunDoor.result

    async def result_watched(door: RunDoor, stored: Any) -> None:
        await result(door, stored)
        _reached("node.result.stored")

    setattr(RunDoor, "result", result_watched)  # noqa: B010  # mypy has an opinion on the names of its arguments
    setattr(agent, "Backoff", partial(Backoff, cap=0.5))  # noqa: B010


def main() -> None:
    """Start a program with its points."""
    global _file
    _file = Path(sys.argv[1])
    noun = sys.argv[2]
    sys.argv[1:3] = []
    if noun == "server":
        from vantage.server.cli import server as command

        _prepare_server()
    else:
        from vantage.node.cli import node as command

        _prepare_node()
    command()


if __name__ == "__main__":
    main()
