"""Use cases of payloads: upload, continue, download."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.payload_frames import CHUNK_SIZE, Chunk
from vantage.common.write_behind import WriteBehind
from vantage.server.domain import audit
from vantage.server.domain.contents import Quota
from vantage.server.domain.permissions import Operation, Owner, Resource, reach
from vantage.server.domain.principals import NodePrincipal, Principal
from vantage.server.payloads.store import Incoming, PayloadStore
from vantage.server.services.payload_collection import PayloadCollection
from vantage.server.storage import payload_store
from vantage.server.storage.database import Database
from vantage.server.storage.payload_store import StoredPayload, Use

DEFAULT_MAX_BYTES = 2 * 1024**3
DEFAULT_QUOTA = Quota()
MAX_CHUNK = CHUNK_SIZE

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Header:
    """What is announced before the bytes."""

    request_id: str
    size: int
    digest: str
    offset: int


class Payloads:
    """The server's payload store.

    Args:
        database: rows.
        store: bytes.
        collection: removes what nobody needs.
        clock: the time.
        max_bytes: largest payload.
        quota: what all payloads of an organization may be together.
    """

    def __init__(
        self,
        database: Database,
        store: PayloadStore,
        collection: PayloadCollection,
        clock: Clock,
        max_bytes: int = DEFAULT_MAX_BYTES,
        quota: Quota = DEFAULT_QUOTA,
    ) -> None:
        self._database = database
        self._store = store
        self._collection = collection
        self._clock = clock
        self._max_bytes = max_bytes
        self._quota = quota

    async def upload(self, principal: Principal, header: Header, chunks: AsyncIterator[Chunk]) -> StoredPayload:
        """Store the bytes that follow a header, or go on with an upload; answers when they are durable and right.

        Raises:
            LimitExceededError: PAYLOAD_TOO_LARGE, PAYLOAD_QUOTA_EXCEEDED, STORAGE_FULL.
            InvalidArgumentError: PAYLOAD_DIGEST_MISMATCH, PAYLOAD_OFFSET_MISMATCH, or the header is wrong.
            ConflictError: REQUEST_ID_REUSED, or the same upload is under way on another stream.
        """
        self._check(header)
        audit.note(digest=header.digest, bytes=str(header.size))
        stored = await self._register(principal, header)
        if stored.complete:
            return stored
        if stored.removing:
            raise error(Reason.IN_USE, "this upload was given up long ago and is being removed: try again in a moment")
        with self._collection.holding(stored.name):
            if not await self._store.finished(stored.name):
                await self._receive(stored, header.offset, chunks)
            now = self._clock.now()
            await self._database.write(partial(payload_store.complete, name=stored.name, now=now))
        return replace(stored, complete=True, created=now)

    async def find(self, principal: Principal, request_id: str) -> tuple[int, StoredPayload | None]:
        """How many bytes of an upload of the caller are durable, and the payload once it is complete."""
        request_id = names.parse_request_id(request_id)
        stored = await self._database.read(
            partial(payload_store.find_upload, uploader=principal.name, request_id=request_id)
        )
        if stored is None:
            return 0, None
        if stored.complete:
            return stored.size, stored
        return await self._store.offset(stored.name), None

    async def download(self, principal: Principal, name: str, offset: int) -> AsyncGenerator[Chunk, None]:
        """The bytes of a payload, or of the result of a run, from an offset.

        Raises:
            NotFoundError: there is none, or the caller is neither uploader nor party of a task that refers to it.
            InvalidArgumentError: OUT_OF_RANGE.
        """
        stored: StoredPayload | bytes | None
        if names.is_valid(name, "tasks/runs"):
            stored, uses = await self._database.read(partial(payload_store.get_result, name=name))
        else:
            names.parse(name, "payloads")
            stored, uses = await self._database.read(partial(payload_store.get_with_uses, name=name))
        if stored is None or not _may_read(principal, stored, uses):
            raise error(Reason.NOT_FOUND, f"there is no {name} that you may read", name=name)
        size = len(stored) if isinstance(stored, bytes) else stored.size
        if not 0 <= offset <= size:
            raise error(Reason.OUT_OF_RANGE, f"offset must be 0 to {size}", field="offset")
        if isinstance(stored, bytes):
            for start in range(offset, size, MAX_CHUNK):
                yield stored[start : start + MAX_CHUNK]
            return
        async with aclosing(self._store.read(stored.name, offset)) as blocks:
            async for block in blocks:
                yield block

    def _check(self, header: Header) -> None:
        names.parse_request_id(header.request_id)
        if _DIGEST.fullmatch(header.digest) is None:
            raise error(
                Reason.INVALID_ARGUMENT, "digest must be sha256: and 64 hexadecimal digits", field="header.digest"
            )
        if header.size < 0 or not 0 <= header.offset <= header.size:
            raise error(Reason.INVALID_ARGUMENT, "offset must lie within size_bytes", field="header.offset")
        if header.size > self._max_bytes:
            raise error(
                Reason.PAYLOAD_TOO_LARGE, f"a payload has at most {self._max_bytes} bytes", limit=str(self._max_bytes)
            )

    async def _register(self, principal: Principal, header: Header) -> StoredPayload:
        new = StoredPayload(
            f"payloads/{names.new_id()}",
            principal.name,
            names.parse_request_id(header.request_id),
            header.size,
            header.digest,
            False,
            self._clock.now(),
            principal.organization or "",
        )
        stored = await self._database.write(partial(payload_store.find_or_insert, new=new, quota=self._quota))
        if (stored.size, stored.digest) != (header.size, header.digest):
            raise error(
                Reason.REQUEST_ID_REUSED, "this request_id began another upload: use a new UUID for each payload"
            )
        return stored

    async def _receive(self, stored: StoredPayload, offset: int, chunks: AsyncIterator[Chunk]) -> None:
        incoming = await self._store.begin(stored.name, offset)
        try:
            await self._append(incoming, stored.size, chunks)
            if incoming.size != stored.size:
                raise error(
                    Reason.PAYLOAD_OFFSET_MISMATCH,
                    f"the upload ended after {incoming.size} of {stored.size} bytes: continue there",
                    offset=str(incoming.size),
                )
            await incoming.finish(stored.digest)
        finally:
            # Also when the stream broke: what arrived is there for the continuation.
            await incoming.keep()

    @staticmethod
    async def _append(incoming: Incoming, size: int, chunks: AsyncIterator[Chunk]) -> None:
        behind, room = WriteBehind(incoming.append), size - incoming.size
        try:
            async for chunk in chunks:
                room -= len(chunk)
                if len(chunk) > MAX_CHUNK:
                    raise error(Reason.PAYLOAD_TOO_LARGE, f"chunks have at most {MAX_CHUNK} bytes")
                if room < 0:
                    raise _too_much(size)
                await behind.add(chunk)
        finally:
            await behind.flush()


def _too_much(size: int) -> VantageError:
    return error(
        Reason.PAYLOAD_OFFSET_MISMATCH, f"more came than the announced {size} bytes: ask GetUpload, and continue there"
    )


def _may_read(principal: Principal, stored: StoredPayload | bytes, uses: list[Use]) -> bool:
    """The uploader, and the parties of a task.

    Whoever created the task reads both; nodes that are asked read arguments; whoever may view runs reads results.
    """
    if isinstance(stored, StoredPayload):
        if not stored.complete:
            return False
        if stored.uploader == principal.name:
            return True
    for use in uses:
        if use.creator == principal.name or use.owner == principal.name:
            return True
        if isinstance(principal, NodePrincipal):
            if use.arguments and use.node == principal.name:
                return True
        elif not use.arguments:
            owner = Owner(use.owner_organization or None, frozenset({use.collaboration}), use.owner)
            if reach(principal, Resource.RUN, Operation.VIEW).covers(owner):
                return True
    return False
