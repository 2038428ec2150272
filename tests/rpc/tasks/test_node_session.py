"""Sessions of nodes, as streams and in unary calls: leases, acknowledgements, reconnects, fencing, expiry, subtasks."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common.backoff import Backoff
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.node import transport
from vantage.server.storage import claim_store
from vantage.testing.losses import Losses
from vantage.testing.scripted_node import ScriptedNode
from vantage.testing.task_server import ROSA, Network, as_, request_id, spec

ONE = "organizations/alpha/nodes/one"
TWO = "organizations/alpha/nodes/two"


@pytest.fixture(params=["stream", "sync", "sync with losses"])
def network(network: Network, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Network:
    network.sync = request.param != "stream"
    if request.param == "sync with losses":
        network.interceptors = [Losses()]
        monkeypatch.setattr(transport, "Backoff", partial(Backoff, base=0.01))  # the losses do not pass with time
    return network


async def test_welcome_says_how_to_behave(network: Network) -> None:
    node = network.node()
    welcome = await node.hello(datasets=[pb.DatasetInfo(name="lungs", format="csv")])
    assert welcome.heartbeat_interval.ToSeconds() == 10
    assert welcome.lease_duration.ToSeconds() == 30
    assert list(welcome.collaborations) == ["collaborations/lungs"]
    assert welcome.max_inline_payload_bytes == 1024 * 1024
    presence = network.sessions.presence(ONE)
    assert presence.online
    assert presence.datasets == (("lungs", "csv"),)
    network.clock.advance(timedelta(seconds=10))
    reply = await node.heartbeat()
    assert reply.server_time.ToSeconds() == int(network.clock.now().timestamp())
    assert network.sessions.presence(ONE).last_seen == network.clock.now()
    await node.finish()
    assert not network.sessions.presence(ONE).online
    assert network.sessions.presence(ONE).version == "1.0.0"


async def test_the_more_nodes_there_are_the_longer_they_take_to_come_back(network: Network) -> None:
    spreads = []
    for name in (ONE, TWO, "organizations/beta/nodes/one"):
        welcome = await network.node(name).hello()
        spreads.append(welcome.reconnect_spread.ToMilliseconds())
    assert spreads == [5, 10, 15]


async def test_the_first_message_must_be_hello(network: Network) -> None:
    node = network.node()
    await node.send(heartbeat=pb.Heartbeat())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.ended()
    assert error_from_rpc(caught.value).reason is Reason.PROTOCOL_VIOLATION


async def test_slots_bound_what_is_assigned(network: Network) -> None:
    node = network.node()
    await node.hello(slots=1)
    for _ in range(2):
        await _create(network)
    first = await node.assigned()
    assert not (await node.heartbeat([first.lease])).revoked  # nothing but the reply came: the second run waits
    await node.succeed(first)
    second = await node.assigned()
    assert second.lease.run != first.lease.run


async def test_a_node_that_is_being_stopped_gets_subtasks_alone(network: Network) -> None:
    node = network.node()
    await node.hello()
    await _create(network)
    assign = await node.assigned()
    await node.start(assign)
    assert not (await node.heartbeat([assign.lease], stopping=True)).revoked
    await _create(network)
    child = spec("organizations/alpha", collaboration="", parent_run=assign.lease.run)
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=child)
    await network.stub().CreateTask(request, metadata=as_(ONE))
    asked = await node.assigned()
    assert asked.spec.parent_run == assign.lease.run
    leases = [assign.lease, asked.lease]
    assert not (await node.heartbeat(leases, stopping=True)).revoked  # and nothing else came
    await node.finish()
    node = network.node()
    await node.hello(leases=leases, stopping=True)
    assert not (await node.heartbeat(leases, stopping=True)).revoked  # nor now
    other = network.node(TWO)
    await other.hello()
    assert not (await other.assigned()).spec.parent_run


async def test_everything_twice_has_one_effect(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    await node.start(assign)
    await node.acknowledged(await node.start(assign))
    done = await node.succeed(assign, b"1")
    await node.succeed(assign, b"1", sequence=done)
    await node.acknowledged(await node.succeed(assign, b"2"))
    task = await _get(network, name)
    assert task.runs[0].result.inline == b"1"
    assert task.last_sequence == 5  # created, assigned, running, succeeded, ended


async def test_only_the_holder_with_the_latest_lease_counts(network: Network) -> None:
    node, other = network.node(ONE), network.node("organizations/beta/nodes/one")
    await node.hello()
    await other.hello()
    name = await _create(network)
    assign = await node.assigned()
    await other.acknowledged(await other.succeed(assign, b"stolen"))
    forged = pb.Assign(lease=pb.Lease(run=assign.lease.run, lease_id="guess", attempt=1))
    await node.acknowledged(await node.succeed(forged, b"forged"))
    later = pb.Assign(lease=pb.Lease(run=assign.lease.run, lease_id=assign.lease.lease_id, attempt=2))
    await node.acknowledged(await node.succeed(later, b"later"))
    assert (await node.heartbeat([forged.lease])).revoked == [forged.lease]
    assert (await _get(network, name)).runs[0].state == task_pb2.RUN_STATE_ASSIGNED
    await node.acknowledged(await node.succeed(assign, b"true"))
    assert (await _get(network, name)).runs[0].result.inline == b"true"


async def test_a_node_refuses_or_fails_and_the_reason_arrives(network: Network) -> None:
    node = network.node()
    await node.hello()
    refused, failed = await _create(network), await _create(network)
    assigns = {assign.lease.run: assign for assign in [await node.assigned(), await node.assigned()]}
    by_task = {run.rpartition("/runs/")[0]: assign for run, assign in assigns.items()}
    await node.refuse(by_task[refused], "IMAGE_UNSIGNED")
    await node.acknowledged(await node.fail(by_task[failed], "OUT_OF_MEMORY"))
    first, second = await _get(network, refused), await _get(network, failed)
    assert first.runs[0].state == task_pb2.RUN_STATE_REFUSED
    assert first.runs[0].failure.reason == "IMAGE_UNSIGNED"
    assert second.runs[0].state == task_pb2.RUN_STATE_FAILED
    assert second.runs[0].failure.reason == "OUT_OF_MEMORY"
    assert first.state == second.state == task_pb2.TASK_STATE_FAILED


async def test_after_a_reconnect_held_leases_go_on_and_lost_assignments_come_again(network: Network) -> None:
    node = network.node()
    await node.hello()
    kept, lost = await _create(network), await _create(network)
    assigns = [await node.assigned(), await node.assigned()]
    by_task = {assign.lease.run.rpartition("/runs/")[0]: assign for assign in assigns}
    await node.disconnect()
    back = network.node()
    unknown = pb.Lease(run=f"{kept}/runs/00000000-0000-0000-0000-000000000000", lease_id="x", attempt=1)
    welcome = await back.hello(leases=[by_task[kept].lease, unknown])
    assert list(welcome.revoked) == [unknown]
    again = await back.assigned()
    assert again.lease == by_task[lost].lease
    assert again.spec == by_task[lost].spec
    await back.succeed(again)
    await back.acknowledged(await back.succeed(by_task[kept]))
    for name in (kept, lost):
        task = await _get(network, name)
        assert task.state == task_pb2.TASK_STATE_SUCCEEDED
        assert task.runs[0].attempt == 1


async def test_a_newer_session_fences_the_older(network: Network) -> None:
    older, newer = network.node(), network.node()
    await older.hello()
    await newer.hello(instance="instance-2")
    assert (await older.receive("goodbye")).goodbye.reason == "SESSION_FENCED"
    await older.ended()
    await _create(network)
    await newer.succeed(await newer.assigned())
    assert network.sessions.presence(ONE).online


async def test_a_cancel_reaches_a_node_that_was_away(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    await node.disconnect()
    await network.stub().CancelTask(task_service_pb2.CancelTaskRequest(name=name), metadata=ROSA)
    back = network.node()
    assert list((await back.hello(leases=[assign.lease])).revoked) == [assign.lease]


async def test_an_ended_lease_goes_to_another_node_and_the_late_answer_is_stale(network: Network) -> None:
    node = network.node(ONE)
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    await node.disconnect()
    watch = aiter(network.stub().WatchTask(task_service_pb2.WatchTaskRequest(name=name), metadata=ROSA))
    assert (await anext(watch)).event.snapshot.task.runs[0].state == task_pb2.RUN_STATE_ASSIGNED
    network.advance(timedelta(seconds=29))
    network.advance(timedelta(seconds=2))
    assert (await anext(watch)).event.run_changed.run.state == task_pb2.RUN_STATE_QUEUED
    other = network.node(TWO)
    await other.hello()
    second = await other.assigned()
    assert (second.lease.run, second.lease.attempt) == (assign.lease.run, 2)
    late = network.node(ONE)
    assert list((await late.hello(leases=[assign.lease])).revoked) == [assign.lease]
    await late.acknowledged(await late.succeed(assign, b"late"))
    await other.acknowledged(await other.succeed(second, b"second"))
    assert (await _get(network, name)).runs[0].result.inline == b"second"


async def test_heartbeats_keep_leases_and_the_current_attempt_is_believed(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    for _ in range(4):
        network.advance(timedelta(seconds=20))
        assert not (await node.heartbeat([assign.lease])).revoked
    await node.disconnect()
    watch = aiter(network.stub().WatchTask(task_service_pb2.WatchTaskRequest(name=name), metadata=ROSA))
    await anext(watch)
    network.advance(timedelta(seconds=31))
    assert (await anext(watch)).event.run_changed.run.state == task_pb2.RUN_STATE_QUEUED
    back = network.node()
    assert not (await back.hello(leases=[assign.lease])).revoked
    await back.acknowledged(await back.succeed(assign, b"mine"))
    task = await _get(network, name)
    assert task.runs[0].result.inline == b"mine"
    assert task.runs[0].attempt == 1


async def test_a_silent_session_ends(network: Network) -> None:
    silent, lively = network.node(ONE), network.node(TWO)
    await silent.hello()
    await lively.hello()
    network.advance(timedelta(seconds=20))
    await lively.heartbeat()
    network.advance(timedelta(seconds=11))
    await silent.ended()
    await lively.heartbeat()
    assert network.sessions.presence(TWO).online


async def test_a_run_that_is_lost_too_often_fails(network: Network) -> None:
    name = await _create(network)
    event = task_pb2.TaskEvent()
    for attempt in (1, 2, 3):
        node = network.node()
        await node.hello()
        assert (await node.assigned()).lease.attempt == attempt
        await node.disconnect()
        watch = aiter(network.stub().WatchTask(task_service_pb2.WatchTaskRequest(name=name), metadata=ROSA))
        await anext(watch)
        network.advance(timedelta(seconds=31))
        event = (await anext(watch)).event
    assert event.run_finished.run.state == task_pb2.RUN_STATE_FAILED
    assert event.run_finished.run.failure.reason == "NODE_LOST"


async def test_a_server_restart_gives_nodes_a_full_lease(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    stopping = asyncio.create_task(network.sessions.stop())
    assert (await node.receive("goodbye")).goodbye.reason == "SERVER_STOPPING"
    await node.ended()
    await stopping
    await network.stop()
    network.clock.advance(timedelta(hours=0.5))
    await network.start()
    network.advance(timedelta(seconds=29))
    back = network.node()
    assert not (await back.hello(leases=[assign.lease])).revoked
    await back.acknowledged(await back.succeed(assign))
    assert (await _get(network, name)).state == task_pb2.TASK_STATE_SUCCEEDED


async def test_a_stream_that_ends_in_order_loses_nothing(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    await node.start(assign)
    await node.succeed(assign)
    await node.finish()
    assert (await _get(network, name)).state == task_pb2.TASK_STATE_SUCCEEDED


async def test_progress_and_lines_pass_by_and_are_not_kept(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    await node.acknowledged(await node.start(assign))
    watch = aiter(network.stub().WatchTask(task_service_pb2.WatchTaskRequest(name=name), metadata=ROSA))
    await anext(watch)
    await node.send(progress=pb.Progress(lease=assign.lease, fraction=0.5, message="half"))
    event = (await anext(watch)).event
    assert (event.sequence, event.run_progress.fraction, event.run_progress.message) == (0, 0.5, "half")
    await node.send(log_lines=pb.LogLines(lease=assign.lease, lines=["a" * 3000, "b"], dropped_lines=3))
    event = (await anext(watch)).event
    assert [len(line) for line in event.run_log.lines] == [2000, 1]
    assert event.run_log.dropped_lines == 3
    assert event.run_log.organization == "organizations/alpha"
    assert (await _get(network, name)).runs[0].progress == 0.5
    assert (await _get(network, name)).last_sequence == 3


async def test_a_run_asks_others_and_its_end_ends_what_it_asked(network: Network) -> None:
    central, other = network.node(ONE), network.node("organizations/beta/nodes/one")
    await central.hello()
    await other.hello()
    name = await _create(network)
    assign = await central.assigned()
    stub = network.stub()

    async def ask(caller: str, **fields: Any) -> task_pb2.Task:
        child = spec("organizations/beta", **{"collaboration": "", "parent_run": assign.lease.run, **fields})
        request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=child)
        return (await stub.CreateTask(request, metadata=as_(caller))).task

    child = await ask(ONE)
    assert child.creator == ONE
    assert child.spec.collaboration == "collaborations/lungs"
    got = await other.assigned()
    assert got.creator_organization == "organizations/alpha"
    await other.acknowledged(await other.succeed(got, b"partial"))
    assert (await _get(network, child.name, ONE)).runs[0].result.inline == b"partial"
    assert (await _get(network, child.name)).runs[0].result.inline == b"partial"  # whoever sees the parent sees it

    for caller in (TWO, "organizations/beta/nodes/one", "users/rosa"):
        assert await _reason(ask(caller)) is Reason.PARENT_NOT_HELD
    image = "registry.example/other@sha256:" + "00" * 32
    assert await _reason(ask(ONE, image=image)) is Reason.PERMISSION_DENIED

    open_child = await ask(ONE)
    running = await other.assigned()
    await central.acknowledged(await central.fail(assign))
    assert (await other.receive("cancel_run")).cancel_run.lease == running.lease
    assert (await _get(network, open_child.name)).state == task_pb2.TASK_STATE_CANCELLED
    assert (await _get(network, name)).state == task_pb2.TASK_STATE_FAILED
    assert await _reason(ask(ONE)) is Reason.PARENT_NOT_HELD


async def test_cancel_reaches_descendants_and_nesting_is_bounded(network: Network) -> None:
    node = network.node()
    await node.hello(slots=10)
    root = await _create(network)
    stub = network.stub()
    parent, names = await node.assigned(), [root]
    for _ in range(4):
        request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(parent_run=parent.lease.run))
        names.append((await stub.CreateTask(request, metadata=as_(ONE))).task.name)
        parent = await node.assigned()
    deeper = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(parent_run=parent.lease.run))
    assert await _reason(stub.CreateTask(deeper, metadata=as_(ONE))) is Reason.TOO_MANY_SUBTASKS
    await stub.CancelTask(task_service_pb2.CancelTaskRequest(name=root), metadata=ROSA)
    cancelled = {(await node.receive("cancel_run")).cancel_run.lease.run.rpartition("/runs/")[0] for _ in names}
    assert cancelled == set(names)
    for name in names:
        assert (await _get(network, name)).state == task_pb2.TASK_STATE_CANCELLED


async def test_a_reference_that_the_node_did_not_upload_is_no_result(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    payload = types_pb2.Payload(
        media_type="application/json",
        sealing=types_pb2.SEALING_NONE,
        reference="payloads/00000000-0000-7000-8000-000000000000",
    )
    await node.acknowledged(await node.report(completed=pb.Completed(lease=assign.lease, result=payload)))
    run = (await _get(network, name)).runs[0]
    assert run.state == task_pb2.RUN_STATE_FAILED
    assert run.failure.reason == "NO_RESULT"


async def test_two_nodes_of_one_organization_never_get_the_same_run(network: Network) -> None:
    nodes: list[ScriptedNode] = [network.node(ONE), network.node(TWO)]
    for node in nodes:
        await node.hello(slots=3)
    for _ in range(6):
        await _create(network)
    taken = [(await node.assigned()).lease.run for node in nodes for _ in range(3)]
    assert len(set(taken)) == 6


async def _create(network: Network) -> str:
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
    return (await network.stub().CreateTask(request, metadata=ROSA)).task.name


async def _get(network: Network, name: str, caller: str = "users/rosa") -> task_pb2.Task:
    request = task_service_pb2.GetTaskRequest(name=name)
    return (await network.stub().GetTask(request, metadata=as_(caller))).task


async def _reason(call: Any) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason


async def test_who_asks_much_does_not_keep_others_waiting(network: Network) -> None:
    stub = network.stub()
    for asker, count in ((ROSA, 8), (as_("users/otto"), 2)):
        for _ in range(count):
            request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
            await stub.CreateTask(request, metadata=asker)
    node = network.node()
    await node.hello(slots=4)
    askers = [(await node.assigned()).creator for _ in range(4)]
    assert askers == ["users/rosa", "users/otto", "users/rosa", "users/otto"]


async def test_many_whose_runs_a_node_cannot_take_do_not_keep_others_waiting(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_store, "MAX_OWNERS", 2)
    stub = network.stub()
    for asker, target, count in ((as_("users/olga"), TWO, 1), (as_("users/otto"), TWO, 1), (ROSA, "", 2)):
        for _ in range(count):
            asked = spec()
            asked.targets[0].node = target
            request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=asked)
            await stub.CreateTask(request, metadata=asker)
    node = network.node()
    await node.hello(slots=1)
    assert (await node.assigned()).creator == "users/rosa"
