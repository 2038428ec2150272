"""Whom a run waits for, since when, and what it is left with when nobody came."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, delete, update

from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.server.domain.membership import Standing
from vantage.server.domain.session import Hello, NodeMessage
from vantage.server.rpc.node_converters import lease_from_proto
from vantage.server.storage import presence_store, schema
from vantage.testing.task_server import ROSA, Network, request_id, spec

ONE = "organizations/alpha/nodes/one"
TWO = "organizations/alpha/nodes/two"


async def test_the_researcher_sees_for_whom_a_run_waits_and_since_when(network: Network) -> None:
    for name in (TWO, ONE):
        node = network.node(name)
        await node.hello()
        await node.finish()
        network.advance(timedelta(minutes=5))
    left = network.clock.now() - timedelta(minutes=5)
    snapshot = await anext(_run(network))
    wait = snapshot.snapshot.task.runs[0].wait
    assert wait.cause == task_pb2.WAIT_CAUSE_NODE_OFFLINE
    assert list(wait.nodes) == [ONE, TWO]  # the one that was here last is the first to come back
    assert wait.last_seen_time.ToSeconds() == int(left.timestamp())
    assert not snapshot.snapshot.task.runs[0].node_online
    # The same after a restart, from the database.
    await network.stop()
    await network.start()
    assert (await _get(network, snapshot.snapshot.task.name)).runs[0].wait == wait
    # Somebody comes, has no room for a second one, and goes.
    node = network.node(TWO)
    await node.hello(slots=1)
    lease = (await node.assigned()).lease
    assert not (await _get(network, snapshot.snapshot.task.name)).runs[0].HasField("wait")
    second = await _create(network)
    wait = second.runs[0].wait
    assert (wait.cause, list(wait.nodes)) == (task_pb2.WAIT_CAUSE_NODE_BUSY, [TWO])
    assert not wait.HasField("last_seen_time")
    assert second.runs[0].node_online
    await node.heartbeat([lease])


async def test_a_node_that_is_being_stopped_is_not_said_to_be_busy(network: Network) -> None:
    node = network.node(ONE)
    await node.hello(slots=1)
    await _create(network)
    lease = (await node.assigned()).lease
    events = _run(network)
    snapshot = (await anext(events)).snapshot.task
    assert snapshot.runs[0].wait.cause == task_pb2.WAIT_CAUSE_NODE_BUSY
    await node.heartbeat([lease], stopping=True)
    wait = (await anext(events)).run_waits.wait
    assert (wait.cause, wait.nodes[0]) == (task_pb2.WAIT_CAUSE_NODE_OFFLINE, ONE)
    assert not (await _get(network, snapshot.name)).runs[0].node_online
    other = network.node(TWO)
    await other.hello()
    assert (await other.assigned()).lease.run == snapshot.runs[0].name


async def test_a_lost_run_says_for_whom_it_waits_in_its_event(network: Network) -> None:
    node = network.node(ONE)
    await node.hello()
    events = _run(network, target=ONE)
    await anext(events)
    await node.accept(await node.assigned())
    await node.disconnect()
    network.advance(timedelta(seconds=31))
    while (event := await anext(events)).run_changed.run.state != task_pb2.RUN_STATE_QUEUED:
        pass
    run = event.run_changed.run
    assert (run.wait.cause, list(run.wait.nodes)) == (task_pb2.WAIT_CAUSE_NODE_OFFLINE, [ONE])
    assert run.last_failure.reason == "NODE_LOST"


async def test_who_watches_is_told_when_a_node_comes_or_goes(network: Network) -> None:
    holder = network.node(ONE)
    await holder.hello(slots=1)
    taken = await _create(network)
    lease = (await holder.assigned()).lease
    events = _run(network)
    snapshot = await anext(events)
    assert list(snapshot.snapshot.task.runs[0].wait.nodes) == [ONE]
    others = _watch(network, taken.name)
    await anext(others)
    second = network.node("organizations/beta/nodes/one")
    await second.hello()  # of no concern to a run of alpha
    await holder.disconnect()
    told = await anext(events)
    assert (told.sequence, told.run_waits.run) == (0, snapshot.snapshot.task.runs[0].name)
    assert told.run_waits.organization == "organizations/alpha"
    assert told.run_waits.wait.cause == task_pb2.WAIT_CAUSE_NODE_OFFLINE
    assert told.run_waits.wait.nodes[0] == ONE
    back = network.node(ONE)
    await back.hello(slots=1, leases=[lease])
    told = await anext(events)
    assert told.run_waits.wait == task_pb2.Wait(cause=task_pb2.WAIT_CAUSE_NODE_BUSY, nodes=[ONE])
    # The run that the node has waits for nobody, and its watcher was told nothing.
    await network.stub().CancelTask(task_service_pb2.CancelTaskRequest(name=taken.name), metadata=ROSA)
    assert (await anext(others)).HasField("run_finished")


async def test_a_session_that_is_cancelled_while_it_ends_is_told_of(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = network.node(ONE)
    await node.hello(slots=1)
    await _create(network)
    lease = (await node.assigned()).lease
    events = _run(network)
    await anext(events)
    sessions, over = network.sessions, asyncio.Event()
    (principal,) = sessions.of_organization("organizations/alpha")

    async def says() -> AsyncIterator[NodeMessage]:
        yield Hello("1", str(uuid.uuid4()), (), (lease_from_proto(lease),), 1)
        await over.wait()

    async def serve() -> None:
        async with aclosing(sessions.serve(principal, says())) as messages:
            async for _ack, _message in messages:
                welcomed.set()

    welcomed, ending, cancelled = asyncio.Event(), threading.Event(), threading.Event()
    seen = presence_store.seen

    def slowly(connection: Connection, **known: Any) -> None:
        ending.set()
        assert cancelled.wait(30)
        seen(connection, **known)

    serving = asyncio.create_task(serve())
    await welcomed.wait()
    await node.receive("goodbye")  # fenced
    assert (await anext(events)).run_waits.wait.cause == task_pb2.WAIT_CAUSE_NODE_BUSY
    monkeypatch.setattr(presence_store, "seen", slowly)
    over.set()
    assert await asyncio.to_thread(ending.wait, 30)
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)
    cancelled.set()
    async with asyncio.timeout(30):
        assert (await anext(events)).run_waits.wait.cause == task_pb2.WAIT_CAUSE_NODE_OFFLINE


async def test_where_nobody_serves_the_collaboration_the_run_says_so(network: Network) -> None:
    await network.database.write(lambda connection: connection.execute(delete(schema.node_collaboration)))
    assert (await _create(network)).runs[0].wait == task_pb2.Wait(cause=task_pb2.WAIT_CAUSE_NO_NODE)


async def test_nor_may_a_node_take_it_whose_organization_takes_no_part_for_a_while(network: Network) -> None:
    name = (await _create(network)).name
    suspended = update(schema.member).values(state=int(Standing.SUSPENDED))
    await network.database.write(lambda connection: connection.execute(suspended))
    assert (await _get(network, name)).runs[0].wait == task_pb2.Wait(cause=task_pb2.WAIT_CAUSE_NO_NODE)
    events = _watch(network, name)
    await anext(events)
    network.advance(timedelta(seconds=61))
    failure = (await anext(events)).run_finished.run.failure
    assert (failure.reason, failure.metadata["cause"]) == ("NODE_UNAVAILABLE", "NO_NODE")
    assert "suspended its membership" in failure.message


async def test_a_run_that_never_met_its_node_says_which(network: Network) -> None:
    never = await _create(network, target=TWO)
    node = network.node(ONE)
    await node.hello(slots=1)
    taken = await _create(network)
    assign = await node.assigned()
    busy = await _create(network)
    for _ in range(2):
        network.clock.advance(timedelta(seconds=29))
        await node.heartbeat([assign.lease])
    seen = _watch(network, busy.name), _watch(network, never.name), _watch(network, taken.name)
    for each in seen:
        await anext(each)
    network.advance(timedelta(seconds=3))
    reasons = []
    for each in seen:
        run = (await anext(each)).run_finished.run
        assert run.state == task_pb2.RUN_STATE_EXPIRED
        reasons.append((run.failure.reason, run.failure.metadata.get("cause")))
    assert reasons == [("NODE_UNAVAILABLE", "NODE_BUSY"), ("NODE_UNAVAILABLE", "NODE_OFFLINE"), ("TASK_EXPIRED", None)]
    failure = (await _get(network, never.name)).runs[0].failure
    assert f"{TWO} has never connected" in failure.message


async def _create(network: Network, target: str = "") -> task_pb2.Task:
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=_spec(target))
    return (await network.stub().CreateTask(request, metadata=ROSA)).task


async def _run(network: Network, target: str = "") -> AsyncIterator[task_pb2.TaskEvent]:
    request = task_service_pb2.RunTaskRequest(request_id=request_id(), spec=_spec(target))
    async for response in network.stub().RunTask(request, metadata=ROSA):
        yield response.event


def _spec(target: str) -> task_pb2.TaskSpec:
    made = spec()
    made.targets[0].node = target
    made.timeout.FromSeconds(60)
    return made


async def _watch(network: Network, name: str) -> AsyncIterator[task_pb2.TaskEvent]:
    request = task_service_pb2.WatchTaskRequest(name=name)
    async for response in network.stub().WatchTask(request, metadata=ROSA):
        yield response.event


async def _get(network: Network, name: str) -> task_pb2.Task:
    return (await network.stub().GetTask(task_service_pb2.GetTaskRequest(name=name), metadata=ROSA)).task
