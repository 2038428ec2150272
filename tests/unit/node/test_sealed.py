"""Work on sealed files."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from vantage.common.sealing import create_identity
from vantage.node.sealed import Sealer


async def test_whoever_is_cancelled_waits_until_nothing_is_written_any_more(tmp_path: Path) -> None:
    """Else files of the researcher would be unpacked behind the back of who removes them."""
    sealed = tmp_path / "arguments"
    os.mkfifo(sealed)
    sealer = Sealer(lambda: (create_identity(),))
    task = asyncio.create_task(sealer.unpack(sealed, "organizations/dora/users/alice", tmp_path, 1000))
    sender = await asyncio.to_thread(os.open, sealed, os.O_WRONLY)  # returns when the thread reads
    try:
        task.cancel()
        await asyncio.wait({task}, timeout=0.2)
        assert not task.done()
    finally:
        os.close(sender)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
