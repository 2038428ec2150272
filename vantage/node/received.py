"""Bytes that a run hands over: chunk by chunk into a file of its node, complete or not there at all."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import IO

from vantage.common.sink import Sink
from vantage.common.write_behind import WriteBehind

Admit = Callable[[int], Awaitable[None]]
"""Told how many bytes there would be, before they are written; raises when that is too much."""


async def receive(chunks: AsyncIterator[bytes], path: Path, admit: Admit, *, durable: bool) -> tuple[str, int]:
    """Write chunks to a new file; memory stays bounded. Whatever goes wrong, the file is not there.

    Args:
        chunks: the bytes.
        path: does not exist.
        admit: see ``Admit``.
        durable: the file is on the disk afterwards.

    Returns:
        Digest of the bytes, ``sha256:`` and 64 hexadecimal digits, and their number.

    Raises:
        OSError: of the file.
        VantageError: that of ``chunks`` or ``admit``.
    """
    size = 0
    try:
        with await asyncio.to_thread(path.open, "xb") as file:
            sink = Sink(file)
            behind = WriteBehind(sink.take)
            try:
                async for chunk in chunks:
                    size += len(chunk)
                    await admit(size)
                    await behind.add(chunk)
            finally:
                await behind.flush()  # no thread writes to a file that is closed
            if durable:
                await asyncio.to_thread(_sync, file)
    except BaseException:
        # Also when the algorithm went away in the middle: half of it is nothing.
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise
    return sink.digest, size


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
