"""Where a transfer goes: a file, with the digest of what was written."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import BinaryIO

Blocks = Sequence[bytes | memoryview]


async def write_and_digest(write: Callable[[Blocks], None], digest: hashlib._Hash, blocks: Blocks) -> None:
    """Write blocks in one thread while another one digests them; returns when both are done.

    Raises:
        Exception: what writing raised; the digest then counts for nothing.
    """

    def update() -> None:
        for block in blocks:
            digest.update(block)

    digesting = asyncio.create_task(asyncio.to_thread(update))
    try:
        await asyncio.to_thread(write, blocks)
    finally:
        await digesting


class Sink:
    """Writes blocks to a file and digests them; keeps neither.

    Args:
        file: takes the bytes; the caller closes it.

    Attributes:
        size: bytes so far.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    async def take(self, blocks: Blocks) -> None:
        """Write blocks, off the event loop.

        Raises:
            OSError: of the file.
        """
        await write_and_digest(self._write, self._digest, blocks)
        self.size += sum(map(len, blocks))

    @property
    def digest(self) -> str:
        """Of the bytes so far: ``sha256:`` and 64 hexadecimal digits."""
        return f"sha256:{self._digest.hexdigest()}"

    def _write(self, blocks: Blocks) -> None:
        for block in blocks:
            self._file.write(block)
