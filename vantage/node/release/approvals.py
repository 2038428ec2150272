"""What waits for a person at the data station: kept in the journal's file until somebody has decided.

What waits is named by what it is: attempt, kind and digest. A node that was restarted asks for the same thing under the
same name, and finds what was decided meanwhile. A decision is on disk before anything follows from it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.common.text import printable
from vantage.node.audit import NodeAudit
from vantage.node.journal import Journal
from vantage.node.threads import to_its_end

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS approval (id TEXT PRIMARY KEY, attempt TEXT NOT NULL, content TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS approved_image (
  image TEXT NOT NULL, function TEXT NOT NULL, who TEXT NOT NULL, time TEXT NOT NULL, PRIMARY KEY (image, function)
) STRICT;
"""
DIRECTORY = "approvals"
"""Beside the journal."""
MAX_WAITING = 100
"""Runs that may wait for a person at once, beside those that have a slot."""
MAX_MESSAGE = 500
"""Characters of what the admin tells the researcher."""
_PREVIEW_BYTES = 4_000
_SHOWN_AS_TEXT = ("text/", "application/json")

Kind = Literal["run", "result", "question"]
"""A run before it starts; a result; the arguments of a run's question to others."""


def attempt_of(run: str, attempt: int) -> str:
    """The name of an attempt of a run."""
    return f"{run}#{attempt}"


class Item(BaseModel):
    """Something that waits, or waited, for a decision.

    Attributes:
        id: names it for people.
        attempt: see ``attempt_of``.
        digest: of the bytes that would leave; empty for a run.
        file: that holds these bytes at the node.
        decision: None while nobody has decided.
        told: what the admin wants the researcher to know.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    kind: Kind
    attempt: str
    run: str
    image: str
    function: str
    requester: str
    collaboration: str
    datasets: tuple[str, ...]
    since: datetime
    deadline: datetime
    media_type: str = ""
    size: int = 0
    digest: str = ""
    file: str = ""
    decision: Literal["allowed", "denied"] | None = None
    told: str = ""

    @staticmethod
    def named(kind: Kind, attempt: str, digest: str = "") -> str:
        """The same thing has the same name, also after a restart."""
        return hashlib.sha256(f"{kind}\n{attempt}\n{digest}".encode()).hexdigest()[:10]


@dataclass
class _State:
    items: dict[str, Item] = field(default_factory=dict)
    images: set[tuple[str, str]] = field(default_factory=set)


class Approvals:
    """Asks people, and remembers what they said. Call from one event loop; only ``open`` builds it.

    Args:
        journal: whose file keeps it.
        directory: holds what has no other place.
        state: what a former process has left.
        audit: who decided what.
        clock: the time.
        say: the console.
    """

    def __init__(
        self,
        journal: Journal,
        directory: Path,
        state: _State,
        audit: NodeAudit,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self._directory = directory
        self._items = state.items
        self._images = state.images
        self._audit = audit
        self._clock = clock
        self._say = say
        # Several may wait for one decision: the same question, asked twice.
        self._waiters: dict[str, set[asyncio.Event]] = {}
        self._deciding = asyncio.Lock()

    @classmethod
    async def open(
        cls, journal: Journal, path: Path, audit: NodeAudit, clock: Clock, say: Callable[[str], None]
    ) -> Approvals:
        """Read what a former process has left, and forget what belongs to no run any more.

        Args:
            path: of the journal; what waits may have files in a directory beside it.

        Raises:
            ConfigurationError: the journal is not usable.
        """
        try:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                await journal.write(lambda database, text=statement: database.execute(text))  # type: ignore[misc]
            state = await asyncio.to_thread(_load, path)
        except sqlite3.Error as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"the approvals in the journal {path} cannot be read: {problem}"
            ) from problem
        approvals = cls(journal, path.with_name(DIRECTORY), state, audit, clock, say)
        under_way = {attempt_of(entry.assign.lease.run, entry.assign.lease.attempt) for entry in journal.unfinished()}
        for attempt in {each.attempt for each in state.items.values()} - under_way:
            approvals.forget(attempt)
        await asyncio.to_thread(approvals._sweep)
        return approvals

    def knows_image(self, image: str, function: str) -> bool:
        """Whether somebody has approved of a function of an image, by its digest."""
        return (image, function) in self._images

    async def wait(self, item: Item, content: bytes | None = None) -> None:
        """Wait until somebody has decided; returns when they allow it.

        Args:
            item: what waits.
            content: what would leave, when no file of the run holds it.

        Raises:
            RefusedError: APPROVAL_DENIED.
            RunError: SCRATCH_UNAVAILABLE, it cannot be written down.
        """
        async with self._deciding:  # what is written down here must not undo a decision that is being made
            known = self._items.get(item.id, item)
            if known.decision is None:
                try:
                    if content is not None:
                        item = item.model_copy(update={"file": str(await self._hold(item.id, content))})
                    await self._keep(item)  # after a restart the bytes may lie elsewhere
                except BaseException:
                    if item.id not in self._items:  # else its end removes the file
                        (self._directory / item.id).unlink(missing_ok=True)
                    raise
        if known.decision is None:
            known = await self._decision(item)
        if known.decision != "allowed":  # also when the attempt has ended meanwhile
            told = f": {known.told}" if known.told else ""
            raise error(Reason.APPROVAL_DENIED, f"the admin of the node did not approve of the {item.kind}{told}")

    async def _decision(self, item: Item) -> Item:
        decided = asyncio.Event()
        self._waiters.setdefault(item.id, set()).add(decided)
        self._audit.note(
            "run.waits", run=item.run, approval=item.id, kind=item.kind, digest=item.digest, bytes=item.size
        )
        self._say(
            f"{_NOUNS[item.kind]} of {item.requester} waits for your approval until "
            f"{item.deadline:%Y-%m-%d %H:%M} UTC: vantage node approvals show {item.id}"
        )
        try:
            await decided.wait()
        finally:
            waiters = self._waiters[item.id]
            waiters.discard(decided)
            if not waiters:
                del self._waiters[item.id]
        return self._items.get(item.id, item)

    async def decide(self, name: str, *, allow: bool, told: str, who: str) -> Item:
        """Write down what somebody has decided, and let it take effect.

        Raises:
            NotFoundError: NOT_FOUND, nothing of this name waits.
            ConflictError: ALREADY_EXISTS, it was decided before, otherwise.
            RunError: SCRATCH_UNAVAILABLE.
        """
        async with self._deciding:  # of two that contradict each other the first counts
            return await self._decide(name, allow, told, who)

    async def _decide(self, name: str, allow: bool, told: str, who: str) -> Item:
        item = self._items.get(name)
        if item is None:
            raise error(Reason.NOT_FOUND, f"nothing waits under {name}: see 'vantage node approvals list'")
        decision: Literal["allowed", "denied"] = "allowed" if allow else "denied"
        if item.decision is not None:
            if item.decision != decision:
                raise error(Reason.ALREADY_EXISTS, f"{name} was {item.decision} before")
            return item
        item = item.model_copy(update={"decision": decision, "told": printable(told)[:MAX_MESSAGE]})
        self._audit.note(
            "run.approval",
            run=item.run,
            approval=item.id,
            kind=item.kind,
            decision=decision,
            who=who,
            digest=item.digest,
        )
        await self._audit.settle()
        await self._keep(item)
        if allow and item.kind == "run":
            await self._know(item.image, item.function, who)
            for other in self.waiting():
                # Others of the same image and function wait for the same question.
                if other.kind == "run" and (other.image, other.function) == (item.image, item.function):
                    await self._keep(other.model_copy(update={"decision": decision}))
                    self._wake(other.id)
        self._wake(item.id)
        return item

    def waiting(self) -> list[Item]:
        """What waits now, the oldest first."""
        found = [each for name in self._waiters if (each := self._items.get(name)) and each.decision is None]
        return sorted(found, key=lambda each: each.since)

    def forget(self, attempt: str) -> None:
        """An attempt has its end: nothing of it waits any more."""
        for name in [name for name, each in self._items.items() if each.attempt == attempt]:
            del self._items[name]
            (self._directory / name).unlink(missing_ok=True)
        self._journal.later(lambda database: database.execute("DELETE FROM approval WHERE attempt = ?", (attempt,)))

    def commands(self) -> Mapping[str, Callable[[Mapping[str, Any], str], Any]]:
        """For the admin's socket."""
        return {
            "approvals.list": self._do_list,
            "approvals.show": self._do_show,
            "approvals.decide": self._do_decide,
        }

    async def _do_list(self, question: Mapping[str, Any], who: str) -> list[dict[str, Any]]:
        return [each.model_dump(mode="json") for each in self.waiting()]

    async def _do_show(self, question: Mapping[str, Any], who: str) -> dict[str, Any]:
        item = self._items.get(str(question.get("id")))
        if item is None:
            raise error(Reason.NOT_FOUND, "nothing waits under this name: see 'vantage node approvals list'")
        shown = item.model_dump(mode="json")
        if item.file and item.media_type.startswith(_SHOWN_AS_TEXT):
            shown["preview"] = await asyncio.to_thread(_preview, Path(item.file))
        return shown

    async def _do_decide(self, question: Mapping[str, Any], who: str) -> dict[str, Any]:
        item = await self.decide(
            str(question.get("id")),
            allow=question.get("allow") is True,
            told=str(question.get("told", "")),
            who=who,
        )
        return item.model_dump(mode="json")

    def _wake(self, name: str) -> None:
        for decided in self._waiters.get(name, ()):
            decided.set()

    def _sweep(self) -> None:
        """Remove files that a former process wrote, and ended before it knew of them."""
        for file in self._directory.glob("*"):
            if file.name not in self._items:
                file.unlink(missing_ok=True)

    async def _hold(self, name: str, content: bytes) -> Path:
        try:
            return await to_its_end(_write_private, self._directory / name, content)
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node has no room to keep what waits: {problem.strerror}: ask its admin to look at the disk",
            ) from problem

    async def _keep(self, item: Item) -> None:
        row = (item.id, item.attempt, item.model_dump_json())
        await self._write(lambda database: database.execute("INSERT OR REPLACE INTO approval VALUES (?, ?, ?)", row))
        self._items[item.id] = item

    async def _know(self, image: str, function: str, who: str) -> None:
        row = (image, function, who, self._clock.now().isoformat())
        await self._write(
            lambda database: database.execute("INSERT OR REPLACE INTO approved_image VALUES (?, ?, ?, ?)", row)
        )
        self._images.add((image, function))

    async def _write(self, unit: Callable[[sqlite3.Connection], object]) -> None:
        try:
            await self._journal.write(unit)
        except sqlite3.Error as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE, "the node cannot write its journal, its disk may be full: ask its admin"
            ) from problem


_NOUNS: Mapping[Kind, str] = {"run": "a first run", "result": "a result", "question": "a question to others"}


def _write_private(path: Path, content: bytes) -> Path:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
    return path


def _preview(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return printable(file.read(_PREVIEW_BYTES).decode(errors="replace"))
    except OSError as problem:
        return f"(cannot be read: {problem.strerror})"


def _load(path: Path) -> _State:
    state = _State()
    database = sqlite3.connect(path)
    try:
        for (content,) in database.execute("SELECT content FROM approval"):
            try:
                item = Item.model_validate_json(content)
            except ValidationError:  # of a version that wrote something else: somebody is asked once more
                log.warning("record of an approval not understood")
                continue
            state.items[item.id] = item
        state.images.update(database.execute("SELECT image, function FROM approved_image").fetchall())
    finally:
        database.close()
    return state
