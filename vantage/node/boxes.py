"""What must be known of a run's container so that another process can go on with it: kept in the journal's file.

Each step is written down before the next happens: before the algorithm starts, before it is told that what it said has
been taken, before what is left of it is removed, before a byte of its result leaves. See docs/design/0010.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import Reason, VantageError, error
from vantage.node.capacity import Need
from vantage.node.door import StoredResult
from vantage.node.executor.base import Existing, Exit
from vantage.node.journal import Journal

log = logging.getLogger(__name__)

_SCHEMA = "CREATE TABLE IF NOT EXISTS box (lease_id TEXT PRIMARY KEY, content TEXT NOT NULL) STRICT"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True)


class StoredFile(_Record):
    """A result in the directory of its run."""

    name: str
    media_type: str
    size: int
    digest: str

    @classmethod
    def of(cls, result: StoredResult) -> StoredFile | None:
        """The record of a result; None for one that is in memory alone."""
        if not isinstance(result.content, Path):
            return None
        return cls(name=result.content.name, media_type=result.media_type, size=result.size, digest=result.digest)

    def result(self, directory: Path) -> StoredResult:
        """What was recorded."""
        return StoredResult(self.media_type, directory / self.name, self.size, self.digest)


class Told(_Record):
    """An error that a run was the reason of."""

    reason: str
    message: str
    metadata: dict[str, str]

    @classmethod
    def of(cls, problem: VantageError) -> Told:
        """The record of an error."""
        return cls(reason=problem.reason.name, message=problem.message, metadata=dict(problem.metadata))

    def error(self) -> VantageError:
        """What was recorded."""
        return error(Reason[self.reason], self.message, **self.metadata)


class Box(_Record):
    """A container, and how far its run is.

    Attributes:
        container: the engine's id of it.
        image: id of the image that it was created from.
        token: of the run's local API.
        need: what it takes of the machine.
        egress: hosts that its function declares.
        began: ``time.monotonic`` just before it started: no container outlives the machine, whose clock that is.
        stored: the result that was submitted.
        reported: the failure that its author reported.
        refused: why its result was not taken.
        ended: how it ended.
        released: what of its result may leave, when it was looked into.
        sealed: the result as it leaves: since bytes of it may have left, it is this one and no other.
    """

    container: str
    image: str
    token: str
    began: float
    need: Need = Need()
    egress: tuple[str, ...] = ()
    stored: StoredFile | None = None
    reported: Told | None = None
    refused: Told | None = None
    ended: Exit | None = None
    released: StoredFile | None = None
    sealed: StoredFile | None = None

    def existing(self, lease: pb.Lease) -> Existing:
        """The container, for the executor."""
        return Existing(lease.run, lease.lease_id, self.container, self.image)

    @property
    def files(self) -> frozenset[str]:
        """Names of the files that belong to it."""
        return frozenset(each.name for each in (self.stored, self.released, self.sealed) if each is not None)


class Boxes:
    """The boxes of the attempts that are under way. Call from one event loop; only ``open`` builds it."""

    def __init__(self, journal: Journal, boxes: dict[str, Box]) -> None:
        self._journal = journal
        self._boxes = boxes

    @classmethod
    async def open(cls, journal: Journal, path: Path) -> Boxes:
        """Read what a former process left, and forget what has an end.

        Raises:
            ConfigurationError: the journal is not usable.
        """
        try:
            await journal.write(lambda database: database.execute(_SCHEMA))
            rows = await asyncio.to_thread(_load, path)
        except sqlite3.Error as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"the containers in the journal {path} cannot be read: {problem}"
            ) from problem
        boxes = cls(journal, {})
        under_way = {entry.assign.lease.lease_id for entry in journal.unfinished()}
        for lease_id, content in rows:
            try:
                if lease_id in under_way:
                    boxes._boxes[lease_id] = Box.model_validate_json(content)
                    continue
            except ValidationError:  # of a version that wrote something else: the run is lost, not the node
                log.warning("record of a container not understood", extra={"lease": lease_id})
            boxes.forget(lease_id)
        return boxes

    def get(self, lease_id: str) -> Box | None:
        """The box of an attempt, if it has one."""
        return self._boxes.get(lease_id)

    async def keep(self, lease_id: str, box: Box) -> None:
        """Enter a box, or replace it; durable when this returns.

        Raises:
            RunError: SCRATCH_UNAVAILABLE.
        """
        content = box.model_dump_json()
        before = self._boxes.get(lease_id)
        self._boxes[lease_id] = box  # at once: what is changed meanwhile is changed in this one
        try:
            await self._journal.write(
                lambda database: database.execute("INSERT OR REPLACE INTO box VALUES (?, ?)", (lease_id, content))
            )
        except sqlite3.Error as problem:
            if self._boxes.get(lease_id) is box:
                if before is not None:
                    self._boxes[lease_id] = before
                else:
                    del self._boxes[lease_id]
            raise error(
                Reason.SCRATCH_UNAVAILABLE, "the node cannot write its journal, its disk may be full: ask its admin"
            ) from problem

    async def change(self, lease_id: str, **changes: Any) -> None:
        """Change what is known of an attempt; harmless when it has no box. Durable when this returns.

        Raises:
            RunError: SCRATCH_UNAVAILABLE.
        """
        if (box := self._boxes.get(lease_id)) is not None:
            await self.keep(lease_id, box.model_copy(update=changes))

    def forget(self, lease_id: str) -> None:
        """The attempt has its end, or begins anew."""
        self._boxes.pop(lease_id, None)
        self._journal.later(lambda database: database.execute("DELETE FROM box WHERE lease_id = ?", (lease_id,)))


def _load(path: Path) -> list[tuple[str, str]]:
    with sqlite3.connect(path) as database:
        rows: list[tuple[str, str]] = database.execute("SELECT lease_id, content FROM box").fetchall()
    database.close()
    return rows
