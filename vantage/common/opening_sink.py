"""Where a sealed transfer goes when it is opened while it arrives."""

from __future__ import annotations

import asyncio
import hashlib
import queue
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO

from vantage.common import sealing

MAX_BLOCKS = 4
"""Blocks that wait to be opened."""


class OpeningSink:
    """Like ``Sink``: digests what arrives, and writes to a file what that opens to. Keeps neither.

    What is in the file counts only when ``opened`` has returned, and when whoever announced the digest is to be
    believed: until then it must not be used. The digest is that of all that arrived, also of what does not open.

    Args:
        file: takes the opened bytes; the caller closes it, after ``opened`` or ``close``.
        identities: secret keys that open it.

    Attributes:
        size: bytes that arrived so far.
    """

    def __init__(self, file: BinaryIO, identities: Sequence[str]) -> None:
        self._source = _Blocks()
        self._digest = hashlib.sha256()
        self._unwritable: OSError | None = None
        self.size = 0
        self._thread = ThreadPoolExecutor(1, "unseal")
        self._opening: Future[None] = self._thread.submit(self._open, file, identities)

    async def take(self, blocks: Sequence[bytes | memoryview]) -> None:
        """Take blocks, off the event loop; waits when too many are not opened yet.

        Raises:
            OSError: of the file.
        """
        await asyncio.to_thread(self._take, blocks)

    @property
    def digest(self) -> str:
        """Of the bytes so far: ``sha256:`` and 64 hexadecimal digits."""
        return f"sha256:{self._digest.hexdigest()}"

    async def opened(self) -> None:
        """Wait, after the last block, until all is opened and written.

        Raises:
            RefusedError: SEAL_INVALID.
            OSError: of the file.
        """
        await self.close()
        self._opening.result()

    async def close(self) -> None:
        """Nothing more comes; nothing is written afterwards. Done also when the caller is cancelled meanwhile."""
        await asyncio.shield(asyncio.create_task(asyncio.to_thread(self._close)))

    def _take(self, blocks: Sequence[bytes | memoryview]) -> None:
        if self._unwritable is not None:
            raise self._unwritable  # now, not when all of it has come for nothing
        for block in blocks:
            self._source.put(block)
        for block in blocks:
            self._digest.update(block)
            self.size += len(block)

    def _close(self) -> None:
        self._source.end()
        self._thread.shutdown()

    def _open(self, file: BinaryIO, identities: Sequence[str]) -> None:
        try:
            sealing.unseal_stream(self._source, file, identities)
        except OSError as problem:
            self._unwritable = problem
            raise
        finally:
            self._source.drain()


class _Blocks:
    """A stream between two threads that holds no more than a few blocks."""

    def __init__(self) -> None:
        self._blocks: queue.Queue[bytes | memoryview] = queue.Queue(MAX_BLOCKS)
        self._current = memoryview(b"")
        self._ended = False
        self._closed = False

    def put(self, block: bytes | memoryview) -> None:
        """The next bytes; waits for room. Thrown away after the end, where nobody reads."""
        if block and not self._closed:  # an empty one is the end
            self._blocks.put(block)

    def end(self) -> None:
        """No more bytes come."""
        if not self._closed:
            self._closed = True
            self._blocks.put(b"")

    def read(self, size: int) -> memoryview:
        """Up to so many bytes; waits for them; none at the end."""
        if not self._current and not self._ended:
            self._current = memoryview(self._blocks.get())
            self._ended = not self._current
        found, self._current = self._current[:size], self._current[size:]
        return found

    def drain(self) -> None:
        """Throw away what comes: whoever puts it must not wait for a reader that has gone."""
        while self.read(1 << 30):
            pass
