"""A researcher with keys and nodes that seal and sign, on a real server, behind one that may lie."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest_asyncio

from vantage.client import AsyncClient, Identity
from vantage.client.connection import GrpcTransport, ServerAddress
from vantage.testing.hostile import HostileServer
from vantage.testing.sealed_network import SealedNetwork
from vantage.testing.server import PASSWORD, RunningServer, running_server


@asynccontextmanager
async def researcher(hostile: HostileServer, identity: Identity | None) -> AsyncIterator[AsyncClient]:
    """A client of rosa, logged in through a server that may lie."""
    transport = GrpcTransport(ServerAddress(hostile.address, tls=False))
    async with AsyncClient(transport, identity=identity) as made:
        await made.auth.login("rosa", PASSWORD)
        yield made


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server") as running:
        yield running


@pytest_asyncio.fixture
async def network(server: RunningServer, tmp_path: Path) -> AsyncIterator[SealedNetwork]:
    async with SealedNetwork.over(server, tmp_path) as made:
        yield made


@pytest_asyncio.fixture
async def hostile(network: SealedNetwork) -> AsyncIterator[HostileServer]:
    """Honest until a test says otherwise."""
    async with HostileServer.before(network.server.channel()) as made:
        yield made


@pytest_asyncio.fixture
async def client(network: SealedNetwork, hostile: HostileServer) -> AsyncIterator[AsyncClient]:
    """The researcher's client, whose server is the hostile one."""
    async with researcher(hostile, network.identity()) as made:
        yield made
