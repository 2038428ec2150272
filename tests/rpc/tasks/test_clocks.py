"""A clock that is set, by a day in either direction, ends nothing and keeps nothing alive."""

from __future__ import annotations

from datetime import timedelta

import pytest

from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.testing.task_server import ROSA, Network, request_id, spec

ONE = "organizations/alpha/nodes/one"
TWO = "organizations/alpha/nodes/two"
DAY = timedelta(days=1)
JUMPS = pytest.mark.parametrize("jump", [DAY, -DAY], ids=["ahead", "back"])


@JUMPS
async def test_leases_and_sessions_last_as_long_as_they_last(network: Network, jump: timedelta) -> None:
    node = network.node(ONE)
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    watch = aiter(network.stub().WatchTask(task_service_pb2.WatchTaskRequest(name=name), metadata=ROSA))
    await anext(watch)
    for _ in range(2):
        network.jump(jump)
        network.advance(timedelta(seconds=20))
        assert not (await node.heartbeat([assign.lease])).revoked
    assert network.sessions.presence(ONE).online
    network.jump(jump)
    network.advance(timedelta(seconds=29))
    assert (await _get(network, name)).runs[0].state == task_pb2.RUN_STATE_ASSIGNED
    network.advance(timedelta(seconds=2))
    assert (await anext(watch)).event.run_changed.run.state == task_pb2.RUN_STATE_QUEUED
    await node.ended()
    other = network.node(TWO)
    await other.hello()
    assert (await other.assigned()).lease.attempt == 2


@JUMPS
async def test_deadlines_come_when_the_time_has_passed(network: Network, jump: timedelta) -> None:
    name = await _create(network, minutes=5)
    watch = aiter(network.stub().WatchTask(task_service_pb2.WatchTaskRequest(name=name), metadata=ROSA))
    await anext(watch)
    network.jump(jump)
    network.advance(timedelta(minutes=4))
    assert (await _get(network, name)).state == task_pb2.TASK_STATE_ACTIVE
    network.advance(timedelta(minutes=2))
    assert (await anext(watch)).event.run_finished.run.state == task_pb2.RUN_STATE_EXPIRED


@JUMPS
async def test_a_node_finds_its_leases_when_the_clock_was_set_while_the_server_was_down(
    network: Network, jump: timedelta
) -> None:
    node = network.node(ONE)
    await node.hello()
    name = await _create(network, minutes=60 * 24 * 3)
    assign = await node.assigned()
    await node.disconnect()
    await network.stop()
    network.clock.jump(jump)
    await network.start()
    back = network.node(ONE)
    assert not (await back.hello(leases=[assign.lease])).revoked
    await back.acknowledged(await back.succeed(assign))
    assert (await _get(network, name)).state == task_pb2.TASK_STATE_SUCCEEDED


async def _create(network: Network, minutes: int = 60) -> str:
    made = spec()
    made.timeout.FromTimedelta(timedelta(minutes=minutes))
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=made)
    return (await network.stub().CreateTask(request, metadata=ROSA)).task.name


async def _get(network: Network, name: str) -> task_pb2.Task:
    return (await network.stub().GetTask(task_service_pb2.GetTaskRequest(name=name), metadata=ROSA)).task
