"""Figures of server and relay, read as Prometheus reads them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable
from pathlib import Path

import grpc
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.client import AsyncClient
from vantage.client.connection import GrpcTransport, ServerAddress
from vantage.common.errors import ConfigurationError, Reason, error
from vantage.server.config import ServerConfig
from vantage.server.metrics import Gauge, Metrics
from vantage.testing.relay import RunningRelay, running_relay
from vantage.testing.sealed_network import IMAGE, SealedNetwork
from vantage.testing.server import PASSWORD, running_server

Sample = tuple[str, frozenset[tuple[str, str]]]


async def scrape(address: str) -> dict[Sample, float]:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"http://{address}/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def key(name: str, **labels: str) -> Sample:
    return name, frozenset(labels.items())


async def test_a_server_tells_of_calls_runs_and_nodes(tmp_path: Path) -> None:
    config = ServerConfig(stop_grace_seconds=1, trial=True, metrics_listen="127.0.0.1:0")
    async with running_server(tmp_path / "server", tls=False, config=config) as server:
        assert server.server.metrics is not None
        address = server.server.metrics.address
        async with SealedNetwork.over(server, tmp_path) as network:
            transport = GrpcTransport(ServerAddress(server.address, tls=False))
            async with AsyncClient(transport, identity=network.identity()) as client:
                await client.auth.login("rosa", PASSWORD)
                await client.tasks.run(image=IMAGE, function="f", collaboration="trial", organizations=["clara"])
                await network.nodes["clara"].session.assigned()
                stub = auth_service_pb2_grpc.AuthServiceStub(server.channel())
                with pytest.raises(grpc.aio.AioRpcError):
                    await stub.Login(auth_service_pb2.LoginRequest(username="rosa", password="wrong"))
                found = await scrape(address)
    login = "/vantage.api.identity.v1.AuthService/Login"
    assert found[key("vantage_rpc_handled_total", method=login, reason="OK")] == 1
    assert found[key("vantage_rpc_handled_total", method=login, reason="CREDENTIALS_INVALID")] == 1
    assert found[key("vantage_rpc_seconds_count", method=login)] == 2
    assert found[key("vantage_nodes_connected")] == 2
    assert found[key("vantage_nodes_leased")] == 1
    assert found[key("vantage_runs", state="ASSIGNED")] == 1
    assert found[key("vantage_runs", state="QUEUED")] == 0
    assert found[key("vantage_relay_pairs")] == 0
    assert found[key("process_open_fds")] > 0
    with pytest.raises(httpx.ConnectError):
        await scrape(address)
    assert not any("rosa" in value or "clara" in value for _name, labels in found for _label, value in labels)


async def test_a_relay_tells_of_pairs_and_bytes(tmp_path: Path) -> None:
    async with running_relay(tmp_path, metrics_listen="127.0.0.1:0") as relay:
        assert relay.relay.metrics is not None
        await _exchange(relay, 1000)
        found = await scrape(relay.relay.metrics.address)
    assert found[key("vantage_relay_pairs_opened_total")] == 1
    assert found[key("vantage_relay_bytes_total")] >= 1000


async def _exchange(relay: RunningRelay, size: int) -> None:
    one, other = await relay.pair()
    await one.write(os.urandom(size))
    async with asyncio.timeout(30):
        message = await other.read()
    assert isinstance(message, bytes)
    assert len(message) == size
    one.cancel()
    other.cancel()


async def test_an_address_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    config = ServerConfig(metrics_listen="127.0.0.1:nothing")
    with pytest.raises(ConfigurationError, match="metrics_listen"):
        async with running_server(tmp_path, config=config):
            pass


async def test_what_cannot_be_had_costs_no_other_figure() -> None:
    async def read() -> Iterable[Gauge]:
        raise error(Reason.DATABASE_UNAVAILABLE, "the database is gone")

    metrics = Metrics("127.0.0.1:0")
    metrics.add(read)
    metrics.start()
    try:
        found = await scrape(metrics.address)
    finally:
        await metrics.stop()
    assert found[key("process_open_fds")] > 0
