"""Bytes of payloads in files: written apart, made durable, moved into place."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from vantage.common.errors import Reason, error

READ_SIZE = 1024 * 1024
"""Bytes per trip to a thread; what is sent is cut smaller."""


class PayloadFiles:
    """Two directories: uploads under way, and payloads that are complete.

    Args:
        directory: made when it is missing, readable by its owner only.
    """

    def __init__(self, directory: Path) -> None:
        self._uploads = directory / "uploads"
        self._payloads = directory / "payloads"
        for each in (directory, self._uploads, self._payloads):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def offset(self, payload: str) -> int:
        """How many bytes of an upload are durable."""
        return await asyncio.to_thread(self._offset, payload)

    async def begin(self, payload: str, offset: int) -> PartialFile:
        """Open an upload to go on at an offset, which must be what is there.

        Raises:
            InvalidArgumentError: PAYLOAD_OFFSET_MISMATCH.
        """
        return await asyncio.to_thread(self._begin, payload, offset)

    async def read(self, payload: str, offset: int, chunk: int) -> AsyncIterator[bytes]:
        """The bytes of a complete payload from an offset."""
        file = await asyncio.to_thread(self._open, payload, offset)
        try:
            while block := await asyncio.to_thread(file.read, READ_SIZE):
                view = memoryview(block)
                for start in range(0, len(block), chunk):
                    yield bytes(view[start : start + chunk])
        finally:
            file.close()

    async def exists(self, payload: str) -> bool:
        """Whether a complete payload is in place."""
        return await asyncio.to_thread(self._place(payload).exists)

    def _place(self, payload: str) -> Path:
        # Ids are made here, and the name was parsed: no path of a caller's choice.
        return self._payloads / payload.removeprefix("payloads/")

    def _part(self, payload: str) -> Path:
        return self._uploads / payload.removeprefix("payloads/")

    def _offset(self, payload: str) -> int:
        part = self._part(payload)
        return part.stat().st_size if part.exists() else 0

    def _open(self, payload: str, offset: int) -> BinaryIO:
        file = self._place(payload).open("rb")
        file.seek(offset)
        return file

    def _begin(self, payload: str, offset: int) -> PartialFile:
        part = self._part(payload)
        stored = self._offset(payload)
        if offset != stored:
            raise error(
                Reason.PAYLOAD_OFFSET_MISMATCH,
                f"{stored} bytes of this upload are stored: ask GetUpload and continue there",
                offset=str(stored),
            )
        digest = hashlib.sha256()
        if stored:
            with part.open("rb") as before:
                while block := before.read(READ_SIZE):
                    digest.update(block)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return PartialFile(os.fdopen(descriptor, "ab", buffering=0), part, self._place(payload), digest, stored)


class PartialFile:
    """An upload under way."""

    def __init__(self, file: BinaryIO, part: Path, place: Path, digest: hashlib._Hash, size: int) -> None:
        self._file = file
        self._part = part
        self._place = place
        self._digest = digest
        self.size = size

    async def append(self, blocks: list[bytes]) -> None:
        """Write blocks.

        Raises:
            LimitExceededError: STORAGE_FULL.
        """
        await asyncio.to_thread(self._append, blocks)

    async def keep(self) -> None:
        """Make durable what is there, for a later continuation."""
        await asyncio.to_thread(self._keep)

    async def finish(self, digest: str) -> None:
        """Move the file into place if its digest is right; durable afterwards.

        Raises:
            InvalidArgumentError: PAYLOAD_DIGEST_MISMATCH; the upload starts again at 0.
        """
        await asyncio.to_thread(self._finish, digest)

    def _append(self, blocks: list[bytes]) -> None:
        try:
            for block in blocks:
                self._file.write(block)
        except OSError as problem:
            raise error(
                Reason.STORAGE_FULL, "the server's disk is full: its operator must make space, then continue"
            ) from problem
        for block in blocks:
            self._digest.update(block)
            self.size += len(block)

    def _keep(self) -> None:
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def _finish(self, digest: str) -> None:
        self._keep()
        actual = f"sha256:{self._digest.hexdigest()}"
        if actual != digest:
            self._part.unlink()
            raise error(
                Reason.PAYLOAD_DIGEST_MISMATCH,
                f"what arrived has the digest {actual}, not {digest}: send it again from the start",
                actual=actual,
            )
        self._part.replace(self._place)
        directory = os.open(self._place.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
