"""All nodes come back at once: after the server was killed, and meanwhile somebody asks."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import psutil

from scripts.benchlib.figures import Figure, at_most, milliseconds, percentile
from scripts.benchlib.storm_nodes import READY
from vantage.api.admin.v1 import node_service_pb2, node_service_pb2_grpc
from vantage.api.task.v1 import task_service_pb2, task_service_pb2_grpc
from vantage.common.rpc import bearer
from vantage.server.certificate import fingerprint
from vantage.testing.processes import Installation, Program
from vantage.testing.station import COLLABORATION

NODES = 1_000
_ORGANIZATION = "organizations/clara"
_REST = 5.0
"""Seconds of calls at rest."""
_EVERY = 0.02
"""Seconds from one call to the next, whether that has been answered or not."""


async def storm() -> list[Figure]:
    """1,000 nodes come back after kill -9 of the server, and what a unary call takes meanwhile."""
    with tempfile.TemporaryDirectory(prefix="vantage-bench-") as name:
        directory = Path(name)
        async with Installation.running(directory, ["clara"]) as network:
            await network.nodes["clara"].stop()
            await _admit(network)
            home = directory / "clara"
            arguments = [network.address, fingerprint(network.data), str(home / "ca"), str(NODES)]
            fleet = Program(["-m", "scripts.benchlib.storm_nodes", *arguments], directory / "fleet.log")
            began = time.time()
            first = float((await fleet.start(READY)).split()[0]) - began
            try:
                await asyncio.sleep(15)  # the first heartbeats are over, and spread
                rest = await _calls(network, asyncio.create_task(asyncio.sleep(_REST)))
                killed = time.time()
                await network.server.stop(kill=True)
                returned = asyncio.create_task(fleet.said(READY, again=True))
                await network.start_server()
                ready = time.time()
                server = psutil.Process(network.server.pid)
                before = _cpu(server)
                storm = await _calls(network, returned)
                busy = _cpu(server) - before
                last, median = map(float, returned.result().partition(READY)[2].split())
                online = await _online(network)
            finally:
                await fleet.stop()
    if online != NODES:
        raise RuntimeError(f"{NODES - online} of {NODES} nodes are lost")
    back, p99 = last - killed, percentile(storm, 99)
    return [
        Figure(f"{NODES:,} nodes connect for the first time", f"{first:.1f} s"),
        Figure("server ready again after kill -9", f"{ready - killed:.1f} s"),
        Figure(f"half of {NODES:,} nodes back", f"{median - killed:.1f} s"),
        Figure(f"{NODES:,} nodes back, none lost", f"{back:.1f} s", goal=at_most(10, back, " s")),
        Figure("of that, since the server was ready", f"{last - ready:.1f} s"),
        Figure("CPU of the server meanwhile", f"{busy:.1f} s"),
        Figure("unary call meanwhile, p50", milliseconds(percentile(storm, 50)), milliseconds(percentile(rest, 50))),
        Figure(
            "unary call meanwhile, p99",
            milliseconds(p99),
            milliseconds(percentile(rest, 99)),
            p99 / percentile(rest, 99),
            at_most(0.25, p99, " s"),
        ),
    ]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _admit(network: Installation) -> None:
    async with network.channel() as channel:
        stub = node_service_pb2_grpc.NodeServiceStub(channel)
        metadata = (bearer(network.root_token),)
        for number in range(NODES):
            request = node_service_pb2.CreateNodeRequest(
                organization=_ORGANIZATION, node_id=f"storm-{number}", collaborations=[COLLABORATION]
            )
            await stub.CreateNode(request, metadata=metadata)


async def _calls(network: Installation, until: asyncio.Task[object]) -> list[float]:
    """Seconds that each of the calls took that were begun, one after the other in equal steps, until then."""
    took: list[float] = []

    async def call() -> None:
        began = time.perf_counter()
        request = task_service_pb2.ListTasksRequest(page_size=10)
        await stub.ListTasks(request, metadata=network.metadata, wait_for_ready=True, timeout=60)
        took.append(time.perf_counter() - began)

    async with network.channel() as channel, asyncio.TaskGroup() as calls:
        stub = task_service_pb2_grpc.TaskServiceStub(channel)
        await call()  # connects, and is not counted
        took.clear()
        while not until.done():
            calls.create_task(call())
            await asyncio.sleep(_EVERY)
    return took


async def _online(network: Installation) -> int:
    async with network.channel() as channel:
        stub = node_service_pb2_grpc.NodeServiceStub(channel)
        online, token = 0, ""
        while True:
            request = node_service_pb2.ListNodesRequest(organization=_ORGANIZATION, page_size=500, page_token=token)
            page = await stub.ListNodes(request, metadata=network.metadata)
            online += sum(each.online for each in page.nodes)
            if not (token := page.next_page_token):
                return online
