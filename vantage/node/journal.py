"""The node's memory that survives kill -9: what it took on, and what it has to say until the server has it.

SQLite in WAL mode with ``synchronous=FULL`` on a thread of its own. Units that wait together share one commit.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import Reason, error

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS assignment (
  lease_id TEXT PRIMARY KEY, assign BLOB NOT NULL, started INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE IF NOT EXISTS outgoing (
  lease_id TEXT PRIMARY KEY, sequence INTEGER NOT NULL, message BLOB NOT NULL
) STRICT;
"""
SYNCHRONOUS = "FULL"
"""Each commit is on the disk when it returns. Not a setting: ``scripts/bench journal`` shows what less would gain."""
_VERSION = 1
_BLOCK = 2**32
"""Sequences per process: each takes a block of its own, so that a number that was only in memory never comes again."""
_LAZY_SECONDS = 0.05
"""How long what nobody waits for (acknowledged messages) waits for a commit to share."""
_RETRY_SECONDS = 1.0
"""How long until what could not be written is tried again, unless another commit takes it along."""
_HURRY = 8
"""Beyond so many waiting messages the node says less."""

Unit = Callable[[sqlite3.Connection], object]
Tidy = Callable[[], Coroutine[None, None, None]]


@dataclass
class Entry:
    """An attempt that the node took on.

    Attributes:
        assign: what the server sent.
        started: whether its algorithm may have begun to run.
        final: sequence of the message that ends it, once there is one.
        said: sequence of the latest message about it that can be sent.
    """

    assign: pb.Assign
    started: bool = False
    final: int | None = None
    said: int = 0

    @property
    def lease_id(self) -> str:
        """Names the attempt."""
        return self.assign.lease.lease_id


@dataclass
class _Job:
    unit: Unit
    done: asyncio.Future[None] | None


@dataclass
class _State:
    entries: dict[str, Entry] = field(default_factory=dict)
    outgoing: dict[int, tuple[str, pb.ConnectRequest]] = field(default_factory=dict)


class Journal:
    """Assignments and outgoing messages. Call from one event loop; only ``open`` builds it.

    Attributes:
        changed: set whenever there is a new message to send.
    """

    def __init__(self, connection: sqlite3.Connection, state: _State, next_sequence: int) -> None:
        self.changed = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._connection = connection
        self._state = state
        self._next = next_sequence
        self._latest = 0
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lazy: list[_Job] = []
        self._lazy_timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._finishing: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._work, name="journal", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, path: Path) -> Journal:
        """Open or create the journal file.

        Raises:
            ConfigurationError: it cannot be opened, is damaged, or belongs to a newer version.
        """
        try:
            connection, state, next_sequence = await asyncio.to_thread(_open, path)
        except sqlite3.Error as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"the journal {path} cannot be used: {problem}: check the disk and the permissions of data_dir",
                path=str(path),
            ) from problem
        return cls(connection, state, next_sequence)

    async def close(self) -> None:
        """Commit what waits and close the file."""
        if self._closed:
            return
        await asyncio.gather(*self._finishing)
        self._flush()
        self._closed = True
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    # What the node took on.

    def entry(self, lease_id: str) -> Entry | None:
        """The attempt with this lease, if the node took it on and the server has not acknowledged its end."""
        return self._state.entries.get(lease_id)

    def leases(self) -> list[pb.Lease]:
        """Attempts that the node holds, those included whose end is not acknowledged."""
        return [entry.assign.lease for entry in self._state.entries.values()]

    def unfinished(self) -> list[Entry]:
        """Attempts without an end: after a restart, those that a former process left."""
        return [entry for entry in self._state.entries.values() if entry.final is None]

    async def accept(self, assign: pb.Assign) -> bool:
        """Write an assignment down; returns whether it is new. Durable when it returns.

        Raises:
            RunError: SCRATCH_UNAVAILABLE when it cannot be written.
        """
        lease_id = assign.lease.lease_id
        if lease_id in self._state.entries:
            return False
        self._state.entries[lease_id] = Entry(assign)
        content = assign.SerializeToString()
        try:
            # A caller that is cancelled must not cancel what shares the commit.
            await asyncio.shield(
                self._submit(
                    lambda db: db.execute(
                        "INSERT OR REPLACE INTO assignment (lease_id, assign) VALUES (?, ?)", (lease_id, content)
                    )
                )
            )
        except sqlite3.Error as problem:
            log.error("journal cannot be written", extra={"problem": str(problem)})
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                "the node cannot write its journal, its disk may be full: ask its admin",
            ) from problem
        return True

    def mark_started(self, lease_id: str) -> None:
        """Note that the algorithm of an attempt begins; a restart within the next moments may run it once more."""
        if (entry := self._state.entries.get(lease_id)) is not None and not entry.started:
            entry.started = True
            self._later(lambda db: db.execute("UPDATE assignment SET started = 1 WHERE lease_id = ?", (lease_id,)))

    # What it has to say.

    async def finish(self, lease_id: str, message: pb.ConnectRequest, tidy: Tidy | None = None) -> None:
        """Write down the message that ends an attempt, then let it be sent.

        When the disk is full the message is sent all the same, and written as soon as there is room: said and not yet
        durable is better than never.

        Args:
            tidy: removes what is left of the attempt, when the message is written down and before it is sent.
        """
        entry = self._state.entries.get(lease_id)
        if entry is None or entry.final is not None:
            return
        sequence = entry.final = self._take_sequence(message)
        content = message.SerializeToString()

        def unit(db: sqlite3.Connection) -> None:
            db.execute(
                "INSERT OR REPLACE INTO outgoing (lease_id, sequence, message) VALUES (?, ?, ?)",
                (lease_id, sequence, content),
            )

        async def written() -> None:
            await asyncio.wait([done])
            if (problem := done.exception()) is not None:
                log.error("journal cannot be written, message kept in memory", extra={"problem": str(problem)})
                if lease_id in self._state.entries:
                    self._later(unit)
            if tidy is not None:
                try:
                    await tidy()
                except Exception:
                    # Whatever fault this is, the outcome is said all the same; the next start removes what is left.
                    log.exception("what is left of a run was not removed", extra={"lease": lease_id})
            if lease_id in self._state.entries:  # not revoked meanwhile
                self._enqueue(sequence, lease_id, message)

        done = self._submit(unit)
        # What follows the commit does not depend on the caller, who may be cancelled while waiting.
        finishing = asyncio.create_task(written(), name="journal entry")
        self._finishing.add(finishing)
        finishing.add_done_callback(self._finishing.discard)
        await asyncio.shield(finishing)

    def say(self, lease_id: str, message: pb.ConnectRequest) -> None:
        """Let a message be sent, repeated until acknowledged by this process only: the assignment implies it."""
        self._enqueue(self._take_sequence(message), lease_id, message)

    def unsent(self, after: int) -> Iterator[pb.ConnectRequest]:
        """Messages to send with a sequence above ``after``, in order.

        When many wait, those are left out that a later one of the same attempt implies: Accepted before anything else,
        Started before a result.
        """
        waiting = [each for each in self._state.outgoing if each > after]
        hurry = len(waiting) > _HURRY
        for sequence in waiting:
            if (found := self._state.outgoing.get(sequence)) is None:
                continue
            lease_id, message = found
            if hurry and self._is_implied(lease_id, sequence, message):
                del self._state.outgoing[sequence]
                continue
            yield message

    def _is_implied(self, lease_id: str, sequence: int, message: pb.ConnectRequest) -> bool:
        entry = self._state.entries.get(lease_id)
        if entry is None or entry.said <= sequence:
            return False
        match message.WhichOneof("message"):
            case "accepted":
                return True
            case "started":
                later = self._state.outgoing.get(entry.said)
                return later is not None and later[1].completed.HasField("result")
            case _:
                return False

    def acknowledge(self, sequence: int) -> None:
        """The server has everything up to a sequence."""
        gone = [each for each in self._state.outgoing if each <= sequence]
        if not gone:
            return
        finished = []
        for each in gone:
            lease_id, _message = self._state.outgoing.pop(each)
            entry = self._state.entries.get(lease_id)
            if entry is not None and entry.final == each:
                del self._state.entries[lease_id]
                finished.append((lease_id,))

        def forget(db: sqlite3.Connection) -> None:
            db.executemany("DELETE FROM outgoing WHERE lease_id = ?", finished)
            db.executemany("DELETE FROM assignment WHERE lease_id = ?", finished)

        self._acknowledged.set()
        if finished:
            self._later(forget)

    def drop(self, lease_id: str) -> None:
        """The server no longer wants to hear of an attempt."""
        self._state.entries.pop(lease_id, None)
        for sequence in [each for each, (lease, _message) in self._state.outgoing.items() if lease == lease_id]:
            del self._state.outgoing[sequence]
        self._acknowledged.set()

        def forget(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM outgoing WHERE lease_id = ?", (lease_id,))
            db.execute("DELETE FROM assignment WHERE lease_id = ?", (lease_id,))

        self._later(forget)

    @property
    def untold(self) -> int:
        """How many attempts have ended without the server having acknowledged it."""
        return sum(each.final is not None for each in self._state.entries.values())

    @property
    def unacknowledged(self) -> int:
        """How many messages the server has not acknowledged."""
        return len(self._state.outgoing)

    @property
    def settled(self) -> bool:
        """Whether the server has acknowledged everything; what has no end yet is for the next process to say."""
        return not self._state.outgoing and not any(each.final is not None for each in self._state.entries.values())

    async def wait_settled(self) -> None:
        """Wait until the server has acknowledged everything."""
        while not self.settled:
            self._acknowledged.clear()
            await self._acknowledged.wait()

    def _take_sequence(self, message: pb.ConnectRequest) -> int:
        message.sequence = self._next
        self._next += 1
        return message.sequence

    def _enqueue(self, sequence: int, lease_id: str, message: pb.ConnectRequest) -> None:
        # Something else may have been said while this message was being written. The server's acknowledgement is
        # cumulative, so what comes late takes a new number.
        if sequence < self._latest:
            sequence = self._take_sequence(message)
            if (entry := self._state.entries.get(lease_id)) is not None and entry.final is not None:
                entry.final = sequence
        if (entry := self._state.entries.get(lease_id)) is not None:
            entry.said = sequence
        self._latest = sequence
        self._state.outgoing[sequence] = (lease_id, message)
        self.changed.set()

    # For others that keep something in the same file.

    async def write(self, unit: Unit) -> None:
        """Run a unit in a commit that it may share; durable when it returns.

        Raises:
            sqlite3.Error: it could not be written.
        """
        # A caller that is cancelled must not cancel what shares the commit.
        await asyncio.shield(self._submit(unit))

    def later(self, unit: Unit) -> None:
        """Run a unit in one of the next commits; nobody waits for it."""
        self._later(unit)

    # The thread.

    def _submit(self, unit: Unit) -> asyncio.Future[None]:
        done = self._loop.create_future()
        self._flush()
        self._jobs.put(_Job(unit, done))
        return done

    def _later(self, unit: Unit) -> None:
        if self._closed:
            return
        self._lazy.append(_Job(unit, None))
        if self._lazy_timer is None:
            self._lazy_timer = self._loop.call_later(_LAZY_SECONDS, self._flush)

    def _flush(self) -> None:
        if self._lazy_timer is not None:
            self._lazy_timer.cancel()
            self._lazy_timer = None
        for job in self._lazy:
            self._jobs.put(job)
        self._lazy.clear()

    def _work(self) -> None:
        going_on = True
        owed: list[_Job] = []
        while going_on:
            jobs = [self._jobs.get()]
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            asked = [job for job in jobs if job is not None]
            going_on = len(asked) == len(jobs)
            batch = owed + asked
            problem = self._run(batch)
            # What nobody waits for is owed until it is written: a full disk, or a lock, is no reason to forget it.
            mends = isinstance(problem, sqlite3.OperationalError)
            owed = [job for job in batch if mends and job.done is None and job.unit is not _look_again]
            waiting = [job.done for job in batch if job.done is not None]
            if waiting:
                self._loop.call_soon_threadsafe(_settle, waiting, problem)
            if problem is not None:
                log.error("journal cannot be written", extra={"problem": str(problem), "owed": len(owed)})
            if owed and going_on:
                self._loop.call_soon_threadsafe(self._retry)
        self._connection.close()

    def _retry(self) -> None:
        self._loop.call_later(_RETRY_SECONDS, self._jobs.put, _Job(_look_again, None))

    def _run(self, batch: list[_Job]) -> Exception | None:
        if not batch:
            return None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                job.unit(self._connection)
            self._connection.execute("COMMIT")
        except Exception as problem:  # noqa: BLE001  # also a mistake in one unit: everybody who writes waits for this thread
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            return problem
        return None


def _look_again(_db: sqlite3.Connection) -> None:
    """Does nothing: what is owed goes along."""


def _settle(waiting: list[asyncio.Future[None]], problem: Exception | None) -> None:
    for each in waiting:
        if each.done():
            continue
        if problem is None:
            each.set_result(None)
        else:
            each.set_exception(problem)


def _open(path: Path) -> tuple[sqlite3.Connection, _State, int]:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version not in (0, _VERSION):
            raise sqlite3.DatabaseError(f"it has format {version}, this version of vantage knows {_VERSION}")
        connection.executescript(_SCHEMA)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
        state = _State()
        for lease_id, assign, started in connection.execute("SELECT lease_id, assign, started FROM assignment"):
            state.entries[lease_id] = Entry(pb.Assign.FromString(assign), bool(started))
        for sequence, lease_id, message in connection.execute(
            "SELECT sequence, lease_id, message FROM outgoing ORDER BY sequence"
        ):
            state.outgoing[sequence] = (lease_id, pb.ConnectRequest.FromString(message))
            if lease_id in state.entries:
                state.entries[lease_id].final = sequence
        row = connection.execute("SELECT value FROM meta WHERE key = 'block'").fetchone()
        block = (row[0] if row else 0) + 1
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('block', ?)", (block,))
    except sqlite3.Error:
        connection.close()
        raise
    return connection, state, block * _BLOCK + 1
