"""A watcher over connections that are cut, and servers that are restarted, after every single event."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client import Event, RunChanged, RunFinished, RunWaits, TaskFinished, TaskSnapshot
from vantage.client.caller import Caller
from vantage.client.connection import Stubs
from vantage.client.handles import follow
from vantage.common.rpc import CHANNEL_OPTIONS, error_from_rpc
from vantage.testing.proxy import Proxy
from vantage.testing.scripted_node import ScriptedNode
from vantage.testing.task_server import ROSA, Network, request_id, spec

ONE = "organizations/alpha/nodes/one"


class Direct:
    """The client's calls as Rosa, through a proxy; only the log-in is left out."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stubs = Stubs(channel)
        self.watches = 0

    async def stream(self, method: Callable[[Stubs], Any], request: Any) -> AsyncGenerator[Any, None]:
        self.watches += 1
        call = method(self.stubs)(request, metadata=ROSA)
        try:
            async for response in call:
                yield response
        except grpc.aio.AioRpcError as failure:
            raise error_from_rpc(failure) from failure
        finally:
            call.cancel()


class Course:
    """A task that goes on by a step whenever it is told to: tried, tried again, answered."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.node: ScriptedNode | None = None
        self.lease = pb.Lease()
        self.steps = 0

    async def create(self) -> str:
        request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
        return (await self.network.stub().CreateTask(request, metadata=ROSA)).task.name

    async def go_on(self) -> None:
        """Make the next event happen."""
        self.steps += 1
        node = await self.connected()
        assign = pb.Assign(lease=self.lease)
        match self.steps:
            case 1:
                self.lease = (await node.assigned()).lease
            case 4:
                self.network.advance(timedelta(seconds=2))
                self.lease = (await node.assigned()).lease
            case 2 | 5:
                await node.acknowledged(await node.start(assign))
            case 3:
                failure = types_pb2.Failure(reason="EXECUTOR_UNAVAILABLE", message="not now")
                completed = pb.Completed(lease=self.lease, failure=failure, retryable=True)
                await node.acknowledged(await node.report(completed=completed))
                self.lease = pb.Lease()
            case 6:
                await node.acknowledged(await node.succeed(assign, b'{"mean": 1}'))

    async def connected(self) -> ScriptedNode:
        if self.node is None:
            self.node = self.network.node(ONE)
            await self.node.hello(leases=[self.lease] if self.lease.run else [])
        return self.node


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    running = Network(tmp_path)
    await running.start()
    yield running
    await running.stop()


@pytest.mark.parametrize("what", ["cut before it", "cut after it", "restart before it", "restart after it"])
async def test_every_event_arrives_once_and_in_order_whatever_happens_between_them(network: Network, what: str) -> None:
    course = Course(network)
    name = await course.create()
    events: list[Event] = []
    async with Proxy.to(f"127.0.0.1:{network.port}") as proxy:

        async def disturb() -> None:
            if what.startswith("restart"):
                await network.stop()
                await network.start()
                proxy.lead_to(f"127.0.0.1:{network.port}")
                course.node = None
            proxy.cut()

        async with grpc.aio.insecure_channel(proxy.address, options=CHANNEL_OPTIONS) as channel:
            caller = Direct(channel)
            async for event in follow(cast("Caller", caller), name):
                if isinstance(event, RunWaits):
                    continue  # not kept: comes or not, with the node that the restart disconnects
                events.append(event)
                if course.steps == 6:
                    continue
                if what.endswith("before it"):
                    await disturb()
                await course.go_on()
                if what.endswith("after it"):
                    await disturb()
    assert [(type(event), event.sequence) for event in events] == [
        (TaskSnapshot, 1),
        (RunChanged, 2),
        (RunChanged, 3),
        (RunChanged, 4),
        (RunChanged, 5),
        (RunChanged, 6),
        (RunFinished, 7),
        (TaskFinished, 8),
    ]
    states = [event.run.state.name for event in events if isinstance(event, RunChanged | RunFinished)]
    assert states == ["ASSIGNED", "RUNNING", "QUEUED", "ASSIGNED", "RUNNING", "SUCCEEDED"]
    assert caller.watches >= 2
