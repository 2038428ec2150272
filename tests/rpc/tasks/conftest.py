"""A running task server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vantage.testing.task_server import Network


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    network = Network(tmp_path)
    await network.start()
    yield network
    await network.stop()
