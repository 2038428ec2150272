"""What must hold when all is quiet again, whatever happened before."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import psutil

from scripts.soaklib.workload import Asked
from scripts.soaklib.world import ORGANIZATIONS, World
from vantage.common import audit as audit_log
from vantage.node.audit import FILE as NODE_AUDIT
from vantage.server.domain.runs import OPEN, RunState
from vantage.server.domain.tasks import TaskState
from vantage.server.services.audit import FILE as SERVER_AUDIT
from vantage.server.storage.task_schema import RESULT
from vantage.testing.counted import Ledger


class Invariants:
    """Counts what was looked at, and keeps what was wrong.

    Attributes:
        checked: invariant -> how often it was looked at.
        violations: what did not hold.
    """

    def __init__(self) -> None:
        self.checked: dict[str, int] = {}
        self.violations: list[str] = []

    def check(self, what: str, *, holds: bool, detail: str = "") -> None:
        """Look at one case of an invariant."""
        self.checked[what] = self.checked.get(what, 0) + 1
        if not holds:
            self.violations.append(f"{what}: {detail}")


def audit(world: World, asked: list[Asked], ledger: Ledger) -> Invariants:
    """Look at everything that the processes of a world, which have ended, have left behind."""
    found = Invariants()
    data = world.installation.data
    with closing(sqlite3.connect(data / "server.db")) as database:
        found.check("the server's database is whole", holds=_whole(database))
        _tasks(database, found)
        _executions(database, world.killed, ledger, found)
        _watchers(database, asked, found)
    for name in ORGANIZATIONS:
        _station(world.installation.directory / name / "data", found)
    _log(data / SERVER_AUDIT, found)
    _payloads(data, found)
    processes = [each for each in psutil.Process().children(recursive=True) if each.status() != psutil.STATUS_ZOMBIE]
    found.check("no process is left", holds=not processes, detail=f"{processes}")
    return found


def _payloads(data: Path, found: Invariants) -> None:
    """What the server knows, it removes in its time: the half of an upload whose run was cancelled meanwhile, too."""
    with closing(sqlite3.connect(data / "server.db")) as database:
        known = {name.partition("/")[2] for (name,) in database.execute("SELECT name FROM payload")}
    for path in (data / "payloads").glob("*/*"):
        found.check("the server knows of every payload", holds=path.name in known, detail=str(path))


def _whole(database: sqlite3.Connection) -> bool:
    return bool(database.execute("PRAGMA integrity_check").fetchone() == ("ok",))


def _tasks(database: sqlite3.Connection, found: Invariants) -> None:
    for name, state, last in database.execute("SELECT name, state, last_sequence FROM task"):
        found.check("every task has ended", holds=state != TaskState.ACTIVE, detail=name)
        query = "SELECT sequence FROM event WHERE task = ? ORDER BY sequence"
        sequences = [each for (each,) in database.execute(query, (name,))]
        found.check("events have no gaps", holds=sequences == list(range(2, last + 1)), detail=f"{name}: {sequences}")
    query = (
        "SELECT run.name, run.state, (SELECT count(*) FROM content WHERE run = run.name AND kind = ?), "
        "(SELECT count(*) FROM event WHERE event.run = run.name AND event.state NOT IN (1, 2, 3)) FROM run"
    )
    for name, state, results, ends in database.execute(query, (RESULT,)):
        found.check(
            "every run has ended once", holds=RunState(state) not in OPEN and ends == 1, detail=f"{name}: {ends}"
        )
        found.check(
            "a run has one result if it has succeeded, else none",
            holds=results == int(state == RunState.SUCCEEDED),
            detail=f"{name}: {RunState(state).name}, {results} results",
        )


def _executions(database: sqlite3.Connection, killed: set[int], ledger: Ledger, found: Invariants) -> None:
    by_run: dict[str, list[int]] = {}
    for execution in ledger.all():
        by_run.setdefault(execution.run, []).append(execution.pid)
    for name, state, attempt in database.execute("SELECT name, state, attempt FROM run"):
        pids = by_run.pop(name, [])
        # A process that executes a run once more had not lost it.
        lost = sum(pid in killed and pid != following for pid, following in pairwise(pids))
        found.check(
            "no attempt was executed twice, unless its process was lost",
            holds=len(pids) <= attempt + lost,
            detail=f"{name}: {len(pids)} executions, {attempt} attempts, {lost} lost",
        )
        if state == RunState.SUCCEEDED:
            found.check("what has succeeded was executed", holds=bool(pids), detail=name)
        if attempt == 1 and not lost and state == RunState.SUCCEEDED:
            found.check("what was not lost was executed once", holds=len(pids) == 1, detail=f"{name}: {len(pids)}")
    found.check("nothing was executed that nobody asked", holds=not by_run, detail=f"{list(by_run)}")


def _watchers(database: sqlite3.Connection, asked: list[Asked], found: Invariants) -> None:
    for each in asked:
        row = database.execute("SELECT last_sequence FROM task WHERE name = ?", (each.name,)).fetchone()
        found.check("what was said to be there is there", holds=row is not None, detail=each.name)
        if row is None:
            continue
        found.check("every question was answered", holds=each.results is not None, detail=each.name)
        expected = list(range(each.first + 1, row[0] + 1))
        found.check(
            "watchers have seen every event once", holds=each.sequences == expected, detail=f"{each}: {expected}"
        )


def _station(data: Path, found: Invariants) -> None:
    with closing(sqlite3.connect(data / "journal.db")) as journal:
        found.check("journals are whole", holds=_whole(journal), detail=str(data))
        left = {table: _count(journal, table) for table in ("assignment", "outgoing")}
        found.check("journals are settled", holds=not any(left.values()), detail=f"{data}: {left}")
    files = [str(each) for each in _files(data / "runs")]
    found.check("runs have left no file", holds=not files, detail=f"{files}")
    _log(data / NODE_AUDIT, found)


def _count(journal: sqlite3.Connection, table: str) -> int:
    return int(journal.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  # a constant


def _files(directory: Path) -> Iterator[Path]:
    return directory.iterdir() if directory.is_dir() else iter(())


def _log(path: Path, found: Invariants) -> None:
    report = audit_log.verify(path)
    found.check("audit logs are whole", holds=report.intact, detail=f"{path}: {report.problems}")
