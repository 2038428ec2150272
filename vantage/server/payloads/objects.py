"""Bytes of payloads in a bucket: S3, or whatever else speaks its protocol.

A payload is the objects below its name, each called by the offset of its first byte. An object is there whole or not
at all, so the listing of a bucket says by itself what of an upload is durable: there is no second record that a crash
could leave behind the first, and no half of a multipart upload that costs without being seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from vantage.common.errors import Reason, error
from vantage.common.payload_frames import CHUNK_SIZE, Chunk
from vantage.server.payloads.store import wrong_digest, wrong_offset

PART_SIZE = 8 * 1024 * 1024
"""Bytes of an object; the last one of an attempt is smaller."""
_CODE = re.compile(r"<Code>(\w{1,60})</Code>")


@dataclass(frozen=True)
class _Part:
    path: str
    offset: int
    size: int


class ObjectPayloads:
    """Payloads in a bucket.

    Args:
        bucket: where.
        prefix: what the names of all objects begin with, for a bucket that is shared; "" or "…/".
    """

    def __init__(self, bucket: S3Store, prefix: str = "") -> None:
        self._bucket = bucket
        self._prefix = prefix

    async def start(self) -> None:
        """See ``PayloadStore``."""
        try:
            await anext(aiter(obstore.list(self._bucket, f"{self._prefix}payloads", chunk_size=1)), None)
        except (BaseError, OSError) as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"the bucket for payloads cannot be used: {_told(problem)}: check object_store in server.yaml",
            ) from None

    async def offset(self, payload: str) -> int:
        """See ``PayloadStore``."""
        parts = await self._parts(payload)
        return parts[-1].offset + parts[-1].size if parts else 0

    async def begin(self, payload: str, offset: int) -> PartialObjects:
        """See ``PayloadStore``."""
        stored = await self.offset(payload)
        if offset != stored:
            raise wrong_offset(stored)
        digest = hashlib.sha256()
        async for block in self.read(payload, 0):
            await asyncio.to_thread(digest.update, block)
        return PartialObjects(self, payload, digest, stored)

    async def finished(self, payload: str) -> bool:
        """See ``PayloadStore``: whether all is right is known only where the size and the digest are."""
        return False

    async def read(self, payload: str, offset: int) -> AsyncGenerator[Chunk, None]:
        """See ``PayloadStore``."""
        for part in await self._parts(payload):
            if part.offset + part.size <= offset:
                continue
            with _reaching():
                found = await obstore.get_async(
                    self._bucket, part.path, options={"range": {"offset": max(0, offset - part.offset)}}
                )
                async for block in found.stream(min_chunk_size=CHUNK_SIZE):
                    view = memoryview(block)
                    for start in range(0, len(view), CHUNK_SIZE):
                        yield view[start : start + CHUNK_SIZE]

    async def remove(self, payload: str) -> None:
        """See ``PayloadStore``."""
        with _reaching():
            paths = [each["path"] for each in await obstore.list(self._bucket, self._below(payload)).collect_async()]
            if paths:
                await obstore.delete_async(self._bucket, paths)

    async def put(self, payload: str, offset: int, content: bytes) -> None:
        """Store the bytes of an upload that begin at an offset."""
        with _reaching():
            await obstore.put_async(self._bucket, f"{self._below(payload)}/{offset:015d}", content, use_multipart=False)

    def _below(self, payload: str) -> str:
        # Ids are made here, and the name was parsed: no path of a caller's choice.
        return f"{self._prefix}{payload}"

    async def _parts(self, payload: str) -> list[_Part]:
        """Those that follow each other from the beginning."""
        with _reaching():
            listed = await obstore.list(self._bucket, self._below(payload)).collect_async()
        parts: list[_Part] = []
        there = 0
        for each in sorted(listed, key=lambda found: found["path"]):
            part = _Part(each["path"], int(each["path"].rpartition("/")[2]), each["size"])
            if part.offset != there:
                break
            parts.append(part)
            there += part.size
        return parts


class PartialObjects:
    """An upload under way: see ``Incoming``."""

    def __init__(self, store: ObjectPayloads, payload: str, digest: hashlib._Hash, size: int) -> None:
        self._store = store
        self._payload = payload
        self._digest = digest
        self._waiting = bytearray()
        self._durable = size
        self.size = size

    async def append(self, blocks: Sequence[Chunk]) -> None:
        """See ``Incoming``: durable by objects of ``PART_SIZE``."""
        await asyncio.to_thread(self._take, blocks)
        while len(self._waiting) >= PART_SIZE:
            await self._put(PART_SIZE)

    async def keep(self) -> None:
        """See ``Incoming``."""
        if self._waiting:
            await self._put(len(self._waiting))

    async def finish(self, digest: str) -> None:
        """See ``Incoming``."""
        await self.keep()
        actual = f"sha256:{self._digest.hexdigest()}"
        # The listing too: an object that an earlier attempt had given up may have come late, and over a newer one.
        if actual != digest or await self._store.offset(self._payload) != self.size:
            await self._store.remove(self._payload)
            raise wrong_digest(actual, digest)

    def _take(self, blocks: Sequence[Chunk]) -> None:
        for block in blocks:
            self._waiting += block
            self._digest.update(block)
            self.size += len(block)

    async def _put(self, size: int) -> None:
        await self._store.put(self._payload, self._durable, bytes(memoryview(self._waiting)[:size]))
        del self._waiting[:size]
        self._durable += size


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError) as problem:
        raise error(
            Reason.PAYLOAD_STORE_UNAVAILABLE,
            f"the server cannot reach its bucket for payloads: {_told(problem)}: try again, or tell its operator",
        ) from None


def _told(problem: Exception) -> str:
    """What went wrong, without what the library adds: addresses, and the identifier of the key."""
    code = _CODE.search(str(problem))
    return code.group(1) if code is not None else type(problem).__name__
