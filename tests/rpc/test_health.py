"""Whoever watches the health of a server hears that it stops, and does not keep it from that."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from vantage.common.rpc import open_channel
from vantage.server.config import ServerConfig
from vantage.testing.server import running_server

NAMES = ("", "vantage.api.task.v1.TaskService")


async def test_a_watch_ends_when_the_server_stops(tmp_path: Path) -> None:
    config = ServerConfig(stop_grace_seconds=120)
    async with asyncio.timeout(60):
        async with running_server(tmp_path / "server", tls=False, config=config) as server:
            channel = open_channel(server.address, None)  # not one that is closed with the server
            stub = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest(service=name)) for name in NAMES]
            for watch in watches:
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        for watch in watches:
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await watch.code() is grpc.StatusCode.OK
        await channel.close()
