"""Writes while the next bytes arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

GATHER = 4 * 1024 * 1024
"""Bytes per write; while they are written, as many again arrive."""
MAX_BLOCKS = 1024
"""Blocks per write: a sender of tiny ones must not make their overhead many times their bytes."""


class WriteBehind:
    """One write at a time, in order, so that what waits in memory stays bounded.

    A caller that is cancelled leaves a write running that nothing may overtake: ``flush`` waits for it.

    Args:
        write: writes blocks; it is never cancelled.
    """

    def __init__(self, write: Callable[[Sequence[bytes | memoryview]], Awaitable[None]]) -> None:
        self._write = write
        self._writing: asyncio.Future[None] | None = None
        self._gathered: list[bytes | memoryview] = []
        self._waiting = 0

    async def add(self, chunk: bytes | memoryview) -> None:
        """Take a chunk; waits when two writes' worth of bytes are there.

        Raises:
            Exception: what a former write raised.
        """
        if not chunk:
            return
        self._gathered.append(chunk)
        self._waiting += len(chunk)
        if self._waiting >= GATHER or len(self._gathered) >= MAX_BLOCKS:
            await self._settle()
            self._begin()

    async def flush(self) -> None:
        """Wait until all that was taken is written.

        Raises:
            Exception: what a write raised; the rest is then not written.
        """
        await self._settle()
        if self._gathered:
            self._begin()
            await self._settle()

    def _begin(self) -> None:
        taken, self._gathered, self._waiting = self._gathered, [], 0
        self._writing = asyncio.ensure_future(self._write(taken))

    async def _settle(self) -> None:
        if self._writing is not None:
            await asyncio.wait({self._writing})
            writing, self._writing = self._writing, None
            writing.result()
