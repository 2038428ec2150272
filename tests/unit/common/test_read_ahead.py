"""A file that is read ahead is closed, whenever its reader is cancelled."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO

import pytest

from vantage.common.payload_frames import read_ahead


async def read(file: BinaryIO, parts: list[bytes]) -> None:
    async with aclosing(read_ahead(file)) as chunks:
        async for chunk in chunks:
            parts.append(bytes(chunk))


@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_at_any_step_the_file_is_closed(tmp_path: Path, steps: int) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"content")
    file = path.open("rb")
    parts: list[bytes] = []
    reader = asyncio.create_task(read(file, parts))
    for _ in range(steps):
        await asyncio.sleep(0)
        if reader.done():
            break
    if steps:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
        assert file.closed
    else:
        await reader
        assert (parts, file.closed) == ([b"content"], True)
