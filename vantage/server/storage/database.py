"""The database: one writer with group commit, several readers, synchronous units of work.

A *unit* is a plain function over a connection. ``write`` runs it in a transaction and answers after the commit, so that
what was answered survives the death of the process. Units that wait at the same time share one transaction, each in its
savepoint: a unit that raises undoes itself alone. One fsync then serves many callers, which is what makes SQLite with
``synchronous=FULL`` fast enough for a server.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection as Connection  # for the services, which name it and know nothing else of the library
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool

from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain import audit
from vantage.server.storage import audit_store

log = logging.getLogger(__name__)

T = TypeVar("T")
Unit = Callable[[Connection], T]

MAX_GROUP = 256
"""Units per commit: bounds how long the first one waits for the last."""
READERS = 4
_BUSY_TIMEOUT = 5.0


class _Job:
    """A unit, whom to tell, and what came of it."""

    __slots__ = ("future", "loop", "outcome", "problem", "unit")

    def __init__(self, unit: Unit[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.unit = unit
        self.loop = loop
        self.future: asyncio.Future[Any] = loop.create_future()
        self.outcome: Any = None
        self.problem: BaseException | None = None


def sqlite_engine(path: Path) -> Engine:
    """An engine for a SQLite file: WAL, synchronous=FULL, foreign keys on, transactions under our control."""
    engine = create_engine(
        f"sqlite:///{path}",
        poolclass=QueuePool,
        pool_size=READERS + 1,
        connect_args={"timeout": _BUSY_TIMEOUT, "check_same_thread": False},
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver would begin transactions by itself, and not before SELECT or DDL; we say BEGIN.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16384"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # IMMEDIATE takes the write lock now: a later upgrade could fail in the middle of a unit.
        writing = connection.get_execution_options().get("writing", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")

    return engine


class Database:
    """SQLite behind the interface that every store uses.

    Args:
        path: the database file; migrated before this is built.
    """

    def __init__(self, path: Path) -> None:
        self._engine = sqlite_engine(path)
        self._path, self._file = path, _file_at(path)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="database-reader")
        self._writing: Connection | None = None
        self._closed = False
        self.on_commit: Callable[[], None] | None = None
        """Called on the event loop after each commit; must not wait."""
        self._writer = threading.Thread(target=self._write_loop, name="database-writer", daemon=True)
        self._writer.start()

    async def write(self, unit: Unit[T]) -> T:
        """Run a unit in a transaction and return its value once it is durable.

        Cancelling the caller does not undo the unit: whether it was committed is then unknown to the caller, as after
        a lost connection.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE: locked or gone; the unit had no effect, try again.
            LimitExceededError: STORAGE_FULL; the unit had no effect.
            Exception: whatever the unit raised; the unit had no effect.
        """
        return await asyncio.shield(self.submit(unit))

    def submit(self, unit: Unit[T]) -> asyncio.Future[T]:
        """Like ``write``, for a caller that waits in its own way; cancelling the future does not undo the unit."""
        if self._closed:
            raise error(Reason.SERVER_STOPPING, "the server is stopping: try again in a moment")
        call = audit.current_call()
        if call is None or not call.with_change or call.written:
            job = _Job(unit, asyncio.get_running_loop())
        else:
            job = _Job(_audited(unit, call), asyncio.get_running_loop())
            call.written = True
            # Before the caller waits: what failed is undone with its entry, and the caller must know when it goes on.
            job.future.add_done_callback(
                lambda done: setattr(call, "written", done.cancelled() or done.exception() is None)
            )
        self._jobs.put(job)
        return job.future

    async def read(self, unit: Unit[T]) -> T:
        """Run a unit that only reads, on a snapshot of its own.

        Raises:
            UnavailableError: DATABASE_UNAVAILABLE.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, unit)

    async def close(self) -> None:
        """Finish what is queued, then close. Later calls are refused."""
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        self._engine.dispose()

    def _read(self, unit: Unit[T]) -> T:
        try:
            with self._engine.connect() as connection:
                return unit(connection)
        except DBAPIError as problem:
            raise _translate(problem) from problem

    def _write_loop(self) -> None:
        try:
            self._write_until_closed()
        finally:
            self._let_go()

    def _write_until_closed(self) -> None:
        stopping = False
        while not stopping:
            first = self._jobs.get()
            if first is None:
                return
            group = [first]
            while len(group) < MAX_GROUP:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    stopping = True
                    break
                group.append(more)
            self._commit(group)
            _deliver(group, self.on_commit)

    def _commit(self, group: Sequence[_Job]) -> None:
        """Run the units of a group in one transaction; leave outcome or problem in each."""
        if (gone := self._gone()) is not None:
            log.error("database file is gone", extra={"path": str(self._path), "units": len(group)})
            for job in group:
                job.problem = gone
            return
        try:
            # One connection for as long as it is good: this thread is the only one that writes.
            if self._writing is None:
                self._writing = self._engine.connect().execution_options(writing=True)
            connection = self._writing
            with connection.begin():
                alone = len(group) == 1
                for job in group:
                    self._run(connection, job, alone=alone)
                    if not _raw(connection).in_transaction:
                        # SQLite itself undid everything, e.g. because the disk is full: what follows must not be
                        # committed by itself.
                        raise _LostError(job.problem)
                if alone and group[0].problem is not None:
                    raise _UndoError
        except _UndoError:
            pass
        except _LostError as problem:
            self._let_go()
            for job in group:
                job.problem = job.problem or problem.cause
        except DBAPIError as problem:
            # The commit itself failed: nothing of the group happened.
            log.error("database commit failed", extra={"units": len(group), "cause": type(problem.orig).__name__})
            self._let_go()
            translated = _translate(problem)
            for job in group:
                job.problem = job.problem or translated

    def _gone(self) -> VantageError | None:
        """SQLite goes on writing into a file that was removed or replaced, where nobody will ever find it: what is
        answered then would be lost with the process."""
        if _file_at(self._path) == self._file:
            return None
        return error(
            Reason.DATABASE_UNAVAILABLE,
            f"the server's database was moved, removed or replaced: its operator must bring {self._path.name} back, or "
            "stop the server first; nothing was changed",
        )

    def _let_go(self) -> None:
        connection, self._writing = self._writing, None
        if connection is not None:
            connection.close()

    @staticmethod
    def _run(connection: Connection, job: _Job, *, alone: bool) -> None:
        try:
            if alone:
                job.outcome = job.unit(connection)
            else:
                with _savepoint(connection):
                    job.outcome = job.unit(connection)
        except (OperationalError, sqlite3.Error) as problem:
            job.problem = _translate(problem)
        except DBAPIError as problem:
            job.problem = problem
        except Exception as problem:  # noqa: BLE001  # the unit's own answer: it belongs to its caller, not to this thread
            job.problem = problem


def _file_at(path: Path) -> tuple[int, int] | None:
    """Which file is there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


@contextmanager
def transaction(path: Path) -> Iterator[Connection]:
    """A transaction for a command, also while a server has the database open.

    Raises:
        ConfigurationError: there is no such file; none is made.
        UnavailableError: DATABASE_UNAVAILABLE: locked, or of another release; nothing was changed.
        LimitExceededError: STORAGE_FULL; nothing was changed.
    """
    if not path.is_file():
        raise error(Reason.CONFIGURATION_INVALID, f"the database {path} is not there: bring it back first")
    engine = sqlite_engine(path)
    try:
        with engine.connect().execution_options(writing=True) as connection, connection.begin():
            yield connection
    except DBAPIError as problem:
        raise _translate(problem) from problem
    finally:
        engine.dispose()


class _UndoError(Exception):
    """Rolls a transaction back whose only unit failed."""


def _audited(unit: Unit[T], call: audit.Call) -> Unit[T]:
    """The unit with the audit's entry of its call: neither is ever there without the other."""

    def both(connection: Connection) -> T:
        value = unit(connection)
        audit_store.append(connection, [call.entry()])
        return value

    return both


class _LostError(Exception):
    """The transaction is gone."""

    def __init__(self, cause: BaseException | None) -> None:
        super().__init__()
        self.cause = cause or error(Reason.DATABASE_UNAVAILABLE, "the server's database lost a transaction: try again")


def _raw(connection: Connection) -> sqlite3.Connection:
    found = connection.connection.driver_connection
    assert isinstance(found, sqlite3.Connection)  # noqa: S101  # the engine is one for SQLite
    return found


@contextmanager
def _savepoint(connection: Connection) -> Iterator[None]:
    """Undo what is done inside when it raises. Through the driver: SQLAlchemy's own costs as much as a statement."""
    raw = _raw(connection)
    raw.execute("SAVEPOINT unit")
    try:
        yield
    except BaseException:
        if raw.in_transaction:
            raw.execute("ROLLBACK TO unit")
            raw.execute("RELEASE unit")
        raise
    raw.execute("RELEASE unit")


def _deliver(group: Sequence[_Job], then: Callable[[], None] | None) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in group:
        by_loop.setdefault(job.loop, []).append(job)
    for loop, jobs in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, jobs, then)
        except RuntimeError:
            log.warning("database outcome without a listener", extra={"units": len(jobs)})  # its loop is closed


def _settle(jobs: Sequence[_Job], then: Callable[[], None] | None) -> None:
    if then is not None:
        then()
    for job in jobs:
        if job.future.cancelled():
            continue
        if job.problem is not None:
            job.future.set_exception(job.problem)
            job.future.exception()  # marks it as seen: its caller may have been cancelled meanwhile
        else:
            job.future.set_result(job.outcome)


def _translate(problem: DBAPIError | sqlite3.Error) -> VantageError:
    text = str(problem.orig if isinstance(problem, DBAPIError) else problem)
    if "full" in text:
        return error(
            Reason.STORAGE_FULL, "the server's disk is full: nothing was changed; its operator must make space"
        )
    return error(Reason.DATABASE_UNAVAILABLE, "the server's database is busy or gone: nothing was changed, try again")
