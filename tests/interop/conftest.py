"""A network of real processes for clients in other languages."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from vantage.testing.processes import Installation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with Installation.running(tmp_path_factory.mktemp("network"), ["clara", "hilda"]) as running:
        yield running
