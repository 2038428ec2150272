"""What runs have asked other organizations, by attempt: in the journal's file, so that the next process attaches."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.common.errors import Reason, error
from vantage.common.sealing import create_identity
from vantage.node.journal import Journal, Unit
from vantage.node.release.approvals import attempt_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS question (
  attempt TEXT NOT NULL, id TEXT NOT NULL, creation BLOB NOT NULL, name TEXT NOT NULL, answer_key TEXT NOT NULL,
  PRIMARY KEY (attempt, id)
) STRICT
"""


@dataclass
class Question:
    """A subtask that a run has asked for.

    Attributes:
        creation: what the server is asked; without the arguments once the task is known by its name.
        name: ``tasks/{task}``, once there is one.
        followers: calls that follow it now.
        answer_key: secret age key that opens the answers, and nothing else.
        making: held while ``creation`` is made, so that two calls with one id send the same bytes.
    """

    creation: task_service_pb2.RunTaskRequest | None = None
    name: str = ""
    followers: int = 0
    answer_key: str = field(default_factory=create_identity, repr=False)
    making: asyncio.Lock = field(default_factory=asyncio.Lock)

    def created(self, name: str) -> bool:
        """The server has the task: what it was asked is not sent again, only compared with what comes back.

        Returns whether that is news.
        """
        if self.name or self.creation is None:
            return False
        self.name = name
        asked = self.creation.spec
        kept = task_pb2.TaskSpec(
            order=asked.order,
            targets=[task_pb2.Target(organization=each.organization, node=each.node) for each in asked.targets],
        )
        self.creation = task_service_pb2.RunTaskRequest(request_id=self.creation.request_id, spec=kept)
        return True


class Questions:
    """The questions of attempts that are under way. Call from one event loop; only ``open`` builds it.

    Not of runs: when the server takes a run from this node and gives it back, the attempt before may still be ending.
    """

    def __init__(self, journal: Journal, asked: dict[str, dict[str, Question]]) -> None:
        self._journal = journal
        self._asked = asked

    @classmethod
    async def open(cls, journal: Journal, path: Path) -> Questions:
        """Read what a former process asked, and forget what was asked by attempts that have ended.

        Raises:
            ConfigurationError: the journal is not usable.
        """
        leases = [entry.assign.lease for entry in journal.unfinished()]
        attempts = {attempt_of(lease.run, lease.attempt): lease.run for lease in leases}
        try:
            await journal.write(partial(_prepare, attempts))
            questions = cls(journal, await asyncio.to_thread(_load, path))
        except sqlite3.Error as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"the subtasks in the journal {path} cannot be read: {problem}"
            ) from problem
        for attempt in [each for each in questions._asked if each not in attempts]:
            questions.forget(attempt)
        return questions

    def of(self, attempt: str) -> dict[str, Question]:
        """What an attempt has asked, by its own ids."""
        return self._asked.setdefault(attempt, {})

    async def keep(self, attempt: str, own: str) -> None:
        """Write a question down, unless its attempt has ended; durable when this returns.

        Raises:
            RunError: SCRATCH_UNAVAILABLE.
        """
        if (entry := self._entry(attempt, own)) is None:
            return
        try:
            await self._journal.write(entry)
        except sqlite3.Error as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE, "the node cannot write its journal, its disk may be full: ask its admin"
            ) from problem

    def keep_soon(self, attempt: str, own: str) -> None:
        """Write a question down with one of the next commits."""
        if (entry := self._entry(attempt, own)) is not None:
            self._journal.later(entry)

    def drop(self, attempt: str, own: str) -> None:
        """A question was not asked after all."""
        self._asked.get(attempt, {}).pop(own, None)
        self._journal.later(
            lambda database: database.execute("DELETE FROM question WHERE attempt = ? AND id = ?", (attempt, own))
        )

    def forget(self, attempt: str) -> None:
        """An attempt has ended."""
        if self._asked.pop(attempt, None):
            self._journal.later(lambda database: database.execute("DELETE FROM question WHERE attempt = ?", (attempt,)))

    def _entry(self, attempt: str, own: str) -> Unit | None:
        question = self._asked.get(attempt, {}).get(own)
        if question is None or question.creation is None:
            return None
        values = (attempt, own, question.creation.SerializeToString(), question.name, question.answer_key)
        return lambda database: database.execute("INSERT OR REPLACE INTO question VALUES (?, ?, ?, ?, ?)", values)


def _prepare(attempts: Mapping[str, str], database: sqlite3.Connection) -> None:
    database.execute(_SCHEMA)
    columns = {row[1] for row in database.execute("PRAGMA table_info(question)")}
    if "run" in columns:  # of an earlier release, which kept them by run
        database.execute("ALTER TABLE question RENAME COLUMN run TO attempt")
        database.executemany("UPDATE question SET attempt = ? WHERE attempt = ?", list(attempts.items()))


def _load(path: Path) -> dict[str, dict[str, Question]]:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT attempt, id, creation, name, answer_key FROM question").fetchall()
    database.close()
    asked: dict[str, dict[str, Question]] = {}
    for attempt, own, creation, name, answer_key in rows:
        request = task_service_pb2.RunTaskRequest.FromString(creation)
        asked.setdefault(attempt, {})[own] = Question(request, name, answer_key=answer_key)
    return asked
