"""Bytes of payloads in files: written apart, made durable, moved into place."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

from vantage.common.errors import Reason, error
from vantage.common.payload_frames import READ_SIZE, Chunk, read_ahead
from vantage.common.sink import write_and_digest
from vantage.server.payloads.store import wrong_digest, wrong_offset


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

    async def start(self) -> None:
        """See ``PayloadStore``; the directories were made already."""

    async def offset(self, payload: str) -> int:
        """See ``PayloadStore``."""
        return await asyncio.to_thread(self._offset, payload)

    async def begin(self, payload: str, offset: int) -> PartialFile:
        """See ``PayloadStore``."""
        opening = asyncio.create_task(asyncio.to_thread(self._begin, payload, offset))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise

    async def finished(self, payload: str) -> bool:
        """See ``PayloadStore``: the file may have been moved into place right before a crash."""
        return await asyncio.to_thread(self._place(payload).exists)

    async def read(self, payload: str, offset: int) -> AsyncGenerator[Chunk, None]:
        """See ``PayloadStore``."""
        opening = asyncio.create_task(asyncio.to_thread(self._open, payload, offset))
        try:
            file = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_opened)
            raise
        async with aclosing(read_ahead(file)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def remove(self, payload: str) -> None:
        """See ``PayloadStore``."""
        await asyncio.to_thread(self._remove, payload)

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

    def _remove(self, payload: str) -> None:
        self._part(payload).unlink(missing_ok=True)
        self._place(payload).unlink(missing_ok=True)

    def _begin(self, payload: str, offset: int) -> PartialFile:
        part = self._part(payload)
        stored = self._offset(payload)
        if offset != stored:
            raise wrong_offset(stored)
        digest = hashlib.sha256()
        if stored:
            with part.open("rb") as before:
                while block := before.read(READ_SIZE):
                    digest.update(block)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return PartialFile(os.fdopen(descriptor, "ab", buffering=0), part, self._place(payload), digest, stored)


class PartialFile:
    """An upload under way: see ``Incoming``."""

    def __init__(self, file: BinaryIO, part: Path, place: Path, digest: hashlib._Hash, size: int) -> None:
        self._file = file
        self._part = part
        self._place = place
        self._digest = digest
        self.size = size

    async def append(self, blocks: Sequence[Chunk]) -> None:
        """See ``Incoming``."""
        await write_and_digest(self._write, self._digest, blocks)
        self.size += sum(map(len, blocks))

    async def keep(self) -> None:
        """See ``Incoming``; also done when the caller, whose call was cancelled, is cancelled once more."""
        await asyncio.shield(asyncio.create_task(asyncio.to_thread(self._keep)))

    def close(self) -> None:
        """Nobody writes after all."""
        self._file.close()

    async def finish(self, digest: str) -> None:
        """See ``Incoming``: checked, made durable and moved into place."""
        await asyncio.to_thread(self._finish, digest)

    def _write(self, blocks: Sequence[Chunk]) -> None:
        try:
            for block in blocks:
                _write_whole(self._file, block)
        except OSError as problem:
            raise error(
                Reason.STORAGE_FULL, "the server's disk is full: its operator must make space, then continue"
            ) from problem

    def _keep(self) -> None:
        if not self._file.closed:
            os.fsync(self._file.fileno())
            self._file.close()

    def _finish(self, digest: str) -> None:
        self._keep()
        actual = f"sha256:{self._digest.hexdigest()}"
        if actual != digest:
            self._part.unlink()
            raise wrong_digest(actual, digest)
        self._part.replace(self._place)
        directory = os.open(self._place.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def _write_whole(file: BinaryIO, block: Chunk) -> None:
    """A write that the disk has no room for may take a part and say no more than how much: the next one then fails."""
    view = memoryview(block)
    while view:
        view = view[file.write(view) :]


def _close_opened(opening: asyncio.Task[BinaryIO] | asyncio.Task[PartialFile]) -> None:
    """Whoever waited for a file is gone, but the thread that opens it goes on, and nobody else would close it."""
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()
