from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.rpc.identity.world import NOW, World
from vantage.common.clock import ManualClock
from vantage.testing.server import running_server


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock = ManualClock(NOW)
    async with running_server(tmp_path / "server", clock=clock) as running:
        made = World(running, clock)
        await made.prepare()
        yield made
