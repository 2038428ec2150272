"""Cancel reaches everything below a task, everywhere, at once, and whoever was away when they return."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.server.storage import lifecycle
from vantage.testing.task_server import ROSA, Network, as_, request_id, spec

ALPHA, TWO, BETA, GAMMA = (
    "organizations/alpha/nodes/one",
    "organizations/alpha/nodes/two",
    "organizations/beta/nodes/one",
    "organizations/gamma/nodes/one",
)


async def test_it_reaches_every_node_of_a_tree_at_once_and_the_absent_ones_later(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "BATCH", 2)
    nodes = {name: network.node(name) for name in (ALPHA, BETA, GAMMA)}
    for node in nodes.values():
        await node.hello()
    root = await _create(network)
    leases = {ALPHA: (await nodes[ALPHA].assigned()).lease}
    names = [root]
    for asker, asked in ((ALPHA, BETA), (BETA, GAMMA)):
        names.append(await _ask(network, asker, leases[asker], asked))
        leases[asked] = (await nodes[asked].assigned()).lease
    waiting = await _ask(network, GAMMA, leases[GAMMA], TWO)  # for a node that is not there
    absent = await _ask(network, ALPHA, leases[ALPHA], GAMMA)
    given = await nodes[GAMMA].assigned()
    await nodes[GAMMA].disconnect()

    # At once: here the time of the server stands still.
    cancelled = await _cancel(network, root)
    for name in (ALPHA, BETA):
        message = (await nodes[name].receive("cancel_run")).cancel_run
        assert (message.lease, message.reason) == (leases[name], "TASK_CANCELLED")
    assert cancelled.state == task_pb2.TASK_STATE_CANCELLED
    for name in (*names, waiting, absent):
        task = await _get(network, name)
        assert task.state == task_pb2.TASK_STATE_CANCELLED
        assert {run.failure.reason for run in task.runs} == {"TASK_CANCELLED"}

    # Who was away: with the attempts that it still has, and with the result of one.
    back = network.node(GAMMA)
    welcome = await back.hello(leases=[leases[GAMMA], given.lease])
    assert list(welcome.revoked) == [leases[GAMMA], given.lease]
    await back.acknowledged(await back.succeed(given, b"too late"))
    assert not (await _get(network, absent)).runs[0].HasField("result")
    taker = network.node(TWO)
    await taker.hello()
    assert not (await taker.heartbeat()).revoked  # and nothing was assigned


async def test_again_or_after_the_end_it_changes_nothing(network: Network) -> None:
    node = network.node(ALPHA)
    await node.hello()
    running, done = await _create(network), await _create(network)
    first, second = await node.assigned(), await node.assigned()
    await node.acknowledged(await node.succeed(second, b"kept"))
    both = await asyncio.gather(_cancel(network, running), _cancel(network, running))
    assert both[0] == both[1]
    assert (await node.receive("cancel_run")).cancel_run.lease == first.lease
    finished = await _get(network, done)
    assert await _cancel(network, done) == finished
    assert finished.runs[0].result.inline == b"kept"
    assert await _cancel(network, running) == both[0]
    assert not (await node.heartbeat()).revoked  # and no second word of the first


async def test_a_run_that_was_given_up_is_stopped_where_it_may_still_be_at_work(network: Network) -> None:
    node = network.node(ALPHA)
    await node.hello()
    name = await _create(network)
    lease = (await node.assigned()).lease
    network.clock.advance(timedelta(seconds=20))
    await node.heartbeat()  # alive, but it does not mention the run, as if that message was lost
    network.advance(timedelta(seconds=15))
    again = await node.assigned()
    assert (again.lease.run, again.lease.attempt) == (lease.run, 2)
    await _cancel(network, name)
    assert (await node.receive("cancel_run")).cancel_run.lease == again.lease
    assert (await node.heartbeat([lease])).revoked == [lease]


async def test_what_a_run_asked_ends_when_its_node_is_lost_for_good(network: Network) -> None:
    parent, other = network.node(ALPHA), network.node(BETA)
    await parent.hello()
    await other.hello()
    root = await _create(network, max_attempts=1)
    lease = (await parent.assigned()).lease
    child = await _ask(network, ALPHA, lease, BETA)
    asked = (await other.assigned()).lease
    await parent.disconnect()
    network.clock.advance(timedelta(seconds=25))
    await other.heartbeat([asked])
    network.advance(timedelta(seconds=6))
    assert (await other.receive("cancel_run")).cancel_run == pb.CancelRun(lease=asked, reason="TASK_CANCELLED")
    assert (await _get(network, child)).state == task_pb2.TASK_STATE_CANCELLED
    ended = await _get(network, root)
    assert (ended.state, ended.runs[0].failure.reason) == (task_pb2.TASK_STATE_FAILED, "NODE_LOST")


async def _create(network: Network, max_attempts: int = 0) -> str:
    made = spec("organizations/alpha", max_attempts=max_attempts)
    made.targets[0].node = ALPHA
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=made)
    return (await network.stub().CreateTask(request, metadata=ROSA)).task.name


async def _ask(network: Network, asker: str, lease: pb.Lease, asked: str) -> str:
    made = spec(asked.partition("/nodes/")[0], parent_run=lease.run)
    made.targets[0].node = asked
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=made)
    return (await network.stub().CreateTask(request, metadata=as_(asker))).task.name


async def _cancel(network: Network, name: str) -> task_pb2.Task:
    return (await network.stub().CancelTask(task_service_pb2.CancelTaskRequest(name=name), metadata=ROSA)).task


async def _get(network: Network, name: str) -> task_pb2.Task:
    return (await network.stub().GetTask(task_service_pb2.GetTaskRequest(name=name), metadata=ROSA)).task
