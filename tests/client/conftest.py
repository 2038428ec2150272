"""A network of real processes, reached through a proxy that loses connections when asked."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from vantage.client import AsyncClient
from vantage.server.certificate import fingerprint
from vantage.testing.processes import PASSWORD, RESEARCHER, Installation
from vantage.testing.proxy import Proxy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Installation]:
    async with Installation.running(tmp_path_factory.mktemp("network"), ["clara", "hilda"]) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def proxy(network: Installation) -> AsyncIterator[Proxy]:
    async with Proxy.to(network.address) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def client(network: Installation, proxy: Proxy) -> AsyncIterator[AsyncClient]:
    """The researcher's client."""
    async with AsyncClient.connect(proxy.address, fingerprint=fingerprint(network.data)) as made:
        await made.auth.login(RESEARCHER, PASSWORD)
        yield made
