"""The server's audit: entries in the database, copied by one writer into a hash-chained file.

An entry is written in the transaction of the change that it speaks of; what was refused is written before the caller
learns of it. From there the writer copies entries into the file, many with one fsync, and marks them. When the process
dies between the two, the entries are still unmarked: their ids at the end of the file tell which are copied already.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncGenerator, Coroutine, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization

from vantage.common import pki
from vantage.common.audit import AuditLog, Value
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.audit import Entry
from vantage.server.domain.permissions import Operation, Resource, reach
from vantage.server.domain.principals import UserPrincipal
from vantage.server.storage import audit_store, pages
from vantage.server.storage.audit_store import Listing
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.pages import Page

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE = "audit.jsonl"
KEY_FILE = "audit.key"
BATCH = 1_000
_LINGER = 0.2
"""How long entries gather before they are copied: one fsync then serves many, and the database is left alone."""
_CHUNK = 64 * 1024
_RETRY = 5.0


@dataclass(frozen=True)
class LogState:
    """Head, length and key of the chained file."""

    head: str
    lines: int
    public_key: str


class Audit:
    """The audit of one server.

    Args:
        database: where entries are.
        data: directory of the file and of the key that signs its checkpoints; both are made when missing.
        clock: the time.
    """

    def __init__(self, database: Database, data: Path, clock: Clock) -> None:
        self._database = database
        self._path = data / FILE
        key_path = data / KEY_FILE
        if not key_path.exists():
            pki.write_key(key_path, pki.create_key())
        self._key = pki.read_key(key_path)
        self._clock = clock
        self._arrived = asyncio.Event()
        self._stopping = asyncio.Event()
        self._writing = asyncio.Lock()
        self._writer: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Copy what a former process left, then what comes."""
        self._log = await asyncio.to_thread(AuditLog, self._path, self._key, self._clock)
        await self._database.write(partial(_mark_known, known=await asyncio.to_thread(_ids_at_end, self._path)))
        self._database.on_commit = self._arrived.set
        self._arrived.set()
        self._writer = asyncio.create_task(self._write(), name="audit writer")

    async def stop(self) -> None:
        """Copy the rest, sign and close; call it before the database is closed."""
        if self._writer is None:
            return
        self._stopping.set()
        self._arrived.set()
        await asyncio.gather(self._writer, return_exceptions=True)
        self._database.on_commit = None
        with contextlib.suppress(VantageError):
            await self._copy()
        await asyncio.to_thread(self._log.close)

    async def record(self, entry: Entry) -> None:
        """Write an entry that belongs to no change; it is durable when this returns."""
        await self._database.write(lambda connection: audit_store.append(connection, [entry]))

    async def list_page(self, user: UserPrincipal, listing: Listing, page_size: int, token: str) -> Page[Entry]:
        """One page of the entries in reach, newest first."""
        size, query = pages.page_size(page_size), repr(listing)
        before = _position(pages.decode(token, query))
        reached = reach(user, Resource.AUDIT, Operation.VIEW)
        found = await self._database.read(
            lambda connection: audit_store.list_entries(connection, reached, listing, before, size + 1)
        )
        return pages.cut(found, size, query, lambda each: str(each.id))

    async def export(self, user: UserPrincipal) -> AsyncGenerator[bytes, None]:
        """The chained file up to a checkpoint of now.

        Raises:
            PermissionDeniedError: the user may not see all of it.
        """
        _check_global(user)

        async def signed() -> int:
            async with self._writing:
                await self._copy_locked()
                await asyncio.to_thread(self._log.checkpoint)
                return await asyncio.to_thread(lambda: self._path.stat().st_size)

        size = await _whole(signed())
        with await asyncio.to_thread(self._path.open, "rb") as file:
            while size > 0 and (chunk := await asyncio.to_thread(file.read, min(_CHUNK, size))):
                size -= len(chunk)
                yield chunk

    async def state(self, user: UserPrincipal) -> LogState:
        """Head, length and key of the file, with all entries of now in it.

        Raises:
            PermissionDeniedError: the user may not see all of it.
        """
        _check_global(user)

        async def copied() -> tuple[str, int]:
            async with self._writing:
                await self._copy_locked()
                return self._log.head, self._log.lines

        head, lines = await _whole(copied())
        pem = self._key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return LogState(head, lines, pem.decode())

    async def _write(self) -> None:
        while not self._stopping.is_set():
            await self._arrived.wait()
            wait = _LINGER
            try:
                await self._copy()
            except VantageError as problem:
                # The entries are safe in the database: they are copied when it is better again.
                log.warning("audit entries not copied", extra={"reason": problem.reason.name})
                wait = _RETRY
                self._arrived.set()
            except OSError as problem:
                log.error("audit file not written", extra={"path": str(self._path)}, exc_info=problem)
                wait = _RETRY
                self._arrived.set()
            except Exception:  # whatever it is: the writer must not end unseen, with all that comes after
                log.exception("audit entries not copied, will try again")
                wait = _RETRY
                self._arrived.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()

    async def _copy(self) -> None:
        async with self._writing:
            await self._copy_locked()

    async def _copy_locked(self) -> None:
        self._arrived.clear()
        while found := await self._database.read(partial(audit_store.pending, limit=BATCH)):
            await asyncio.to_thread(self._log.append_all, [(each.event, _fields(each)) for each in found])
            await self._database.write(partial(audit_store.mark_exported, ids=[each.id for each in found]))


async def _whole(work: Coroutine[Any, Any, T]) -> T:
    """Do it to its end although the caller gives up: between file and database, entries would be copied once more."""
    return await asyncio.shield(asyncio.ensure_future(work))


def _mark_known(connection: Connection, known: Iterable[int]) -> None:
    pending = {each.id for each in audit_store.pending(connection, BATCH)}
    if copied := sorted(pending.intersection(known)):
        audit_store.mark_exported(connection, copied)


def _ids_at_end(path: Path) -> set[int]:
    """Ids of the entries in the last lines: a batch is marked before the next is written."""
    ids = set()
    with path.open("rb") as file:
        file.seek(0, 2)
        # More than one batch of the largest lines that entries make; a cut first line is not JSON and is left out.
        file.seek(max(0, file.tell() - BATCH * 8_192))
        for line in file:
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("id"), int):
                    ids.add(record["id"])
    return ids


def _fields(entry: Entry) -> dict[str, Value]:
    fields: dict[str, Value] = {"id": entry.id, "at": entry.time.isoformat(timespec="microseconds")}
    fields["decision"] = entry.verdict.name
    for name in ("reason", "principal", "organization", "target", "peer", "request_id"):
        if value := getattr(entry, name):
            fields[name] = value
    fields.update({f"details.{key}": value for key, value in sorted(entry.details.items())})
    return fields


def _check_global(user: UserPrincipal) -> None:
    if not reach(user, Resource.AUDIT, Operation.VIEW).everything:
        raise error(Reason.PERMISSION_DENIED, "the log as a whole is for those who may view all of it: list entries")


def _position(key: str | None) -> int | None:
    if key is None:
        return None
    try:
        position = int(key)
    except ValueError:
        position = -1
    if not 0 <= position < 2**63:  # no more is an id of the database
        raise error(Reason.PAGE_TOKEN_INVALID, "page_token must be the next_page_token of the page before")
    return position
