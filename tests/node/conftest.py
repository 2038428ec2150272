from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from vantage.testing import inprocess
from vantage.testing.scripted_server import ScriptedServer
from vantage.testing.station import Station


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as running:
        yield running


@pytest.fixture
def station(tmp_path: Path, server: ScriptedServer) -> Station:
    return Station.create(tmp_path, server)


@pytest.fixture(autouse=True)
def gates() -> Iterator[None]:
    yield
    inprocess.gates.clear()
