"""Blobs of any size between a registry and files: checked by digest while they stream, in bounded memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import httpx

from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, error
from vantage.common.image_reference import is_digest
from vantage.common.oci import Registry, tampered
from vantage.common.registry_http import ATTEMPTS, PassingError

CHUNK = 1024 * 1024
STORE_SECONDS = 600.0
"""How long a registry may take to store a blob once it has all of it."""
MIN_PROGRESS = 64 * 1024
"""Bytes that come in a registry's window, or the connection is given up: each of them alone may come in time."""
MAX_BLOB_BYTES = 1024**4
"""What no descriptor may exceed."""

Told = Callable[[int], None]
"""Hears of bytes as they come by."""
Transfer = Callable[[str, int, int], None]
"""Hears of a blob: which, how many bytes of it have come by, and how many it has."""


@dataclass(frozen=True)
class Descriptor:
    """What a manifest says of a blob (OCI content descriptor).

    Attributes:
        media_type: of the content.
        digest: ``sha256:`` and 64 hexadecimal digits.
        size: in bytes.
    """

    media_type: str
    digest: str
    size: int

    @classmethod
    def parse(cls, document: Any) -> Descriptor:
        """Read one.

        Raises:
            RefusedError: IMAGE_TAMPERED, it is malformed; only sha256 is known.
        """
        if isinstance(document, dict):
            kind, digest, size = document.get("mediaType"), document.get("digest"), document.get("size")
            if (
                isinstance(kind, str)
                and isinstance(digest, str)
                and is_digest(digest)
                and type(size) is int
                and 0 <= size <= MAX_BLOB_BYTES
            ):
                return cls(kind, digest, size)
        raise error(Reason.IMAGE_TAMPERED, "the manifest of the image is malformed: ask its author to build it again")


async def download(registry: Registry, blob: Descriptor, target: BinaryIO, told: Told | None = None) -> None:
    """Write a blob to an empty file; a lost or silent connection is taken up again where it ended.

    Args:
        registry: connection to the repository.
        blob: which one.
        target: at its beginning.
        told: hears of each chunk.

    Raises:
        RefusedError: IMAGE_TAMPERED (other bytes than announced), IMAGE_NOT_FOUND.
        UnavailableError: REGISTRY_UNAVAILABLE, also after several attempts without a mebibyte between them.
        OSError: the file cannot be written.
    """
    state = _Download(registry, blob, target, told or (lambda _count: None))
    backoff = Backoff(base=0.2, cap=2.0)
    failures, reached = 0, 0
    while True:
        try:
            await state.attempt()
            return
        except PassingError as problem:
            if state.written - reached >= CHUNK:
                failures, reached = 0, state.written
            failures += 1
            if failures >= ATTEMPTS:
                raise registry.unavailable(
                    f"{problem} (after {state.written} of {blob.size} bytes of {blob.digest})"
                ) from problem
        await asyncio.sleep(backoff.next_delay())


class _Download:
    def __init__(self, registry: Registry, blob: Descriptor, target: BinaryIO, told: Told) -> None:
        self._registry = registry
        self._blob = blob
        self._target = target
        self._told = told
        self._hash = hashlib.sha256()
        self.written = 0

    async def attempt(self) -> None:
        blob = self._blob
        # From a registry that does not know ranges the same bytes come once more, and are passed over.
        headers = {"range": f"bytes={self.written}-"} if self.written else {}
        async with self._registry.exchange("GET", f"blobs/{blob.digest}", headers=headers, may_miss=True) as response:
            if response.status_code == httpx.codes.NOT_FOUND:
                raise error(
                    Reason.IMAGE_NOT_FOUND, f"the registry has no blob {blob.digest} of the image: push the image again"
                )
            skip = self.written
            if response.status_code == httpx.codes.PARTIAL_CONTENT:
                if not response.headers.get("content-range", "").startswith(f"bytes {self.written}-"):
                    raise tampered(f"part of blob {blob.digest}")
                skip = 0
            clock = asyncio.get_running_loop()
            since, reached = clock.time(), self.written
            async for chunk in response.aiter_raw():
                if clock.time() - since > self._registry.window:
                    if self.written - reached < MIN_PROGRESS and not skip:
                        raise PassingError("it sends too slowly")
                    since, reached = clock.time(), self.written
                passed, skip = min(skip, len(chunk)), max(0, skip - len(chunk))
                await self._take(chunk[passed:])
        if self.written < blob.size:
            raise PassingError("it ended in the middle")
        if f"sha256:{self._hash.hexdigest()}" != blob.digest:
            raise tampered(f"blob {blob.digest}")

    async def _take(self, chunk: bytes) -> None:
        if self.written + len(chunk) > self._blob.size:
            raise tampered(f"blob {self._blob.digest}")
        await asyncio.to_thread(self._write, chunk)
        self.written += len(chunk)
        self._told(len(chunk))

    def _write(self, chunk: bytes) -> None:
        self._target.write(chunk)
        self._hash.update(chunk)


async def has(registry: Registry, digest: str) -> bool:
    """Whether a repository has a blob.

    Raises:
        UnavailableError: REGISTRY_UNAVAILABLE.
    """

    async def attempt() -> bool:
        async with registry.exchange("HEAD", f"blobs/{digest}", may_miss=True) as response:
            return response.status_code != httpx.codes.NOT_FOUND

    return await registry.retried(attempt)


async def upload(registry: Registry, blob: Descriptor, source: BinaryIO, told: Told | None = None) -> None:
    """Store a blob from a file; its bytes are checked on their way.

    Args:
        registry: connection to the repository, with the right to push.
        blob: which one.
        source: holds it from where it stands now on.
        told: hears of each chunk.

    Raises:
        RefusedError: IMAGE_TAMPERED, the file holds something else.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    begin = source.tell()

    async def content() -> AsyncIterator[bytes]:
        source.seek(begin)
        left, digest = blob.size, hashlib.sha256()
        while left:
            chunk = await asyncio.to_thread(source.read, min(CHUNK, left))
            left -= len(chunk)
            digest.update(chunk)
            # The last bytes go only when all of them are right: the registry never has the rest.
            if not chunk or (not left and f"sha256:{digest.hexdigest()}" != blob.digest):
                raise error(Reason.IMAGE_TAMPERED, f"the file has other bytes than {blob.digest}: get it again")
            yield chunk
            if told is not None:
                told(len(chunk))

    async def attempt() -> None:
        async with registry.exchange("POST", "blobs/uploads/") as begun:
            location = registry.upload_location(begun, blob.digest)
        headers = {"content-length": str(blob.size), "content-type": "application/octet-stream"}
        async with registry.exchange("PUT", location, headers=headers, content=content, answer_seconds=STORE_SECONDS):
            pass

    await registry.retried(attempt)


def steps(transfer: Transfer, blob: Descriptor) -> Told:
    """Adds up the bytes of one blob."""
    passed = 0

    def step(count: int) -> None:
        nonlocal passed
        passed += count
        transfer(blob.digest[7:19], passed, blob.size)

    return step
