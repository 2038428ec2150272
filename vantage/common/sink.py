"""Where a transfer goes: a file, with the digest of what was written."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import BinaryIO


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

    async def take(self, blocks: Sequence[bytes | memoryview]) -> None:
        """Write blocks, off the event loop.

        Raises:
            OSError: of the file.
        """
        await asyncio.to_thread(self._take, blocks)

    @property
    def digest(self) -> str:
        """Of the bytes so far: ``sha256:`` and 64 hexadecimal digits."""
        return f"sha256:{self._digest.hexdigest()}"

    def _take(self, blocks: Sequence[bytes | memoryview]) -> None:
        for block in blocks:
            self._file.write(block)
            self._digest.update(block)
            self.size += len(block)
