"""How a task goes on and ends: quorum, failure policy, attempts, retries, what a run leaves behind when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.testing.scripted_node import ScriptedNode
from vantage.testing.task_server import ORGANIZATIONS, ROSA, Network, as_, request_id, spec

ONE = "organizations/alpha/nodes/one"
TWO = "organizations/alpha/nodes/two"


async def test_as_many_answers_as_are_needed_end_the_task(network: Network) -> None:
    nodes = await _nodes(network)
    name = await _create(network, *ORGANIZATIONS, quorum=2)
    assigns = [await node.assigned() for node in nodes]
    await nodes[0].acknowledged(await nodes[0].fail(assigns[0]))
    await nodes[1].acknowledged(await nodes[1].succeed(assigns[1], b"1"))
    assert (await _get(network, name)).state == task_pb2.TASK_STATE_ACTIVE
    # An answer that is not needed any more is one that does not come, not one that is taken away.
    late = await _create(network, *ORGANIZATIONS, quorum=1)
    others = [await node.assigned() for node in nodes]
    await nodes[2].acknowledged(await nodes[2].succeed(assigns[2], b"2"))
    task = await _get(network, name)
    assert task.state == task_pb2.TASK_STATE_SUCCEEDED
    assert [run.result.inline for run in task.runs] == [b"", b"1", b"2"]
    assert task.runs[0].failure.reason == "ALGORITHM_FAILED"

    await nodes[1].succeed(others[1], b"mine")
    for node, assign in ((nodes[0], others[0]), (nodes[2], others[2])):
        stopped = (await node.receive("cancel_run")).cancel_run
        assert (stopped.lease, stopped.reason) == (assign.lease, "QUORUM_REACHED")
    events = [event async for event in _events(network, late, 1)]
    assert [event.sequence for event in events[1:]] == list(range(2, events[-1].sequence + 1))
    assert events[-1].task_finished.state == task_pb2.TASK_STATE_SUCCEEDED
    assert (events[-1].task_finished.succeeded_runs, events[-1].task_finished.failed_runs) == (1, 2)
    task = await _get(network, late)
    assert [run.state for run in task.runs] == [
        task_pb2.RUN_STATE_CANCELLED,
        task_pb2.RUN_STATE_SUCCEEDED,
        task_pb2.RUN_STATE_CANCELLED,
    ]
    assert {run.failure.reason for run in task.runs if run.HasField("failure")} == {"QUORUM_REACHED"}
    # What the others had finished meanwhile has no effect.
    await nodes[0].acknowledged(await nodes[0].succeed(others[0], b"late"))
    assert not (await _get(network, late)).runs[0].HasField("result")


async def test_a_quorum_that_cannot_be_reached_ends_the_task_at_once(network: Network) -> None:
    alpha, beta, _gamma = await _nodes(network, "alpha", "beta")
    name = await _create(network, *ORGANIZATIONS, quorum=2)
    await alpha.acknowledged(await alpha.succeed(await alpha.assigned()))
    await beta.acknowledged(await beta.refuse(await beta.assigned()))
    assert (await _get(network, name)).state == task_pb2.TASK_STATE_ACTIVE  # gamma, which is not there, may answer
    waiting = await _create(network, *ORGANIZATIONS, quorum=3)
    assign = await alpha.assigned()
    await beta.acknowledged(await beta.refuse(await beta.assigned()))
    assert (await alpha.receive("cancel_run")).cancel_run.reason == "QUORUM_MISSED"
    task = await _get(network, waiting)
    assert task.state == task_pb2.TASK_STATE_FAILED
    assert [run.failure.reason for run in task.runs] == ["QUORUM_MISSED", "POLICY_REFUSED", "QUORUM_MISSED"]
    assert task.runs[0].name == assign.lease.run


async def test_one_failure_cancels_the_rest_if_the_task_says_so(network: Network) -> None:
    nodes = await _nodes(network)
    policy = task_pb2.ON_FAILURE_CANCEL_REST
    name, other = await _create(network, *ORGANIZATIONS, on_failure=policy), await _create(network, *ORGANIZATIONS)
    assigns = [[await node.assigned(), await node.assigned()] for node in nodes]
    for first, second in assigns:
        assert [first.lease.run.startswith(name), second.lease.run.startswith(other)] == [True, True]
        assert first.spec.on_failure == task_pb2.ON_FAILURE_CONTINUE  # of no concern to a node
    await nodes[0].acknowledged(await nodes[0].succeed(assigns[0][0], b"kept"))
    for each in (0, 1):
        await nodes[1].acknowledged(await nodes[1].fail(assigns[1][each]))
    assert (await nodes[2].receive("cancel_run")).cancel_run.reason == "OTHER_RUN_FAILED"
    task = await _get(network, name)
    assert task.state == task_pb2.TASK_STATE_FAILED
    assert task.spec.on_failure == policy
    assert task.runs[0].result.inline == b"kept"
    assert [run.failure.reason for run in task.runs] == ["", "ALGORITHM_FAILED", "OTHER_RUN_FAILED"]
    assert (await _get(network, other)).state == task_pb2.TASK_STATE_ACTIVE


@pytest.mark.parametrize(
    "fields",
    [
        {"quorum": 2},
        {"quorum": -1},
        {"max_attempts": 11},
        {"max_attempts": -1},
        {"on_failure": 7},
        {"max_runtime": timedelta(0)},
        {"max_runtime": timedelta(seconds=1.5)},
        {"max_runtime": timedelta(days=31)},
        {"detached": True},
    ],
)
async def test_what_makes_no_sense_is_refused(network: Network, fields: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _create(network, **fields)
    problem = error_from_rpc(caught.value)
    assert problem.reason is Reason.INVALID_ARGUMENT
    assert problem.metadata["field"] == f"spec.{next(iter(fields))}"


async def test_a_cause_that_may_pass_is_tried_again_after_a_while(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    events = _events(network, name)
    seen = (await anext(events)).sequence
    first = await node.assigned()
    failed = await node.report(
        refused=pb.Refused(lease=first.lease, failure=_failure("REGISTRY_UNAVAILABLE"), retryable=True)
    )
    await node.acknowledged(failed)
    run = (await _get(network, name)).runs[0]
    assert (run.state, run.attempt) == (task_pb2.RUN_STATE_QUEUED, 1)
    assert run.last_failure.reason == "REGISTRY_UNAVAILABLE"
    assert not run.HasField("failure")
    waits = run.retry_time.ToDatetime() - network.clock.now().replace(tzinfo=None)
    assert timedelta(seconds=1) <= waits <= timedelta(seconds=2)
    # The same report again, and word of the lease again, have no effect.
    await node.report(failed, refused=pb.Refused(lease=first.lease, failure=_failure("REGISTRY_UNAVAILABLE")))
    await node.acknowledged(await node.succeed(first, b"of an attempt that has ended"))
    assert (await node.heartbeat([first.lease])).revoked == [first.lease]
    assert (await _get(network, name)).runs[0] == run
    # Neither a slot that is free nor another task makes it come sooner.
    await node.acknowledged(await node.succeed(await _assigned_of(node, await _create(network))))
    network.advance(timedelta(seconds=0.9))
    assert not (await node.heartbeat()).revoked  # and nothing else came
    network.advance(timedelta(seconds=1.1))
    second = await node.assigned()
    assert (second.lease.run, second.lease.attempt) == (first.lease.run, 2)
    assert second.lease.lease_id != first.lease.lease_id
    await node.acknowledged(await node.start(second))
    run = (await _get(network, name)).runs[0]
    assert (run.state, run.last_failure.reason) == (task_pb2.RUN_STATE_RUNNING, "REGISTRY_UNAVAILABLE")
    await node.acknowledged(await node.succeed(second, b"now"))
    task = await _get(network, name)
    assert task.state == task_pb2.TASK_STATE_SUCCEEDED
    assert not task.runs[0].HasField("last_failure")
    assert [each.sequence async for each in events] == list(range(seen + 1, task.last_sequence + 1))


@pytest.mark.parametrize(
    ("reason", "retryable"), [("ALGORITHM_FAILED", True), ("OUT_OF_MEMORY", True), ("REGISTRY_UNAVAILABLE", False)]
)
async def test_no_other_failure_is_tried_again(network: Network, reason: str, retryable: bool) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    await node.acknowledged(
        await node.report(completed=pb.Completed(lease=assign.lease, failure=_failure(reason), retryable=retryable))
    )
    run = (await _get(network, name)).runs[0]
    assert (run.state, run.failure.reason) == (task_pb2.RUN_STATE_FAILED, reason)


async def test_attempts_are_as_many_as_the_task_allows(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network, max_attempts=2)
    for attempt in (1, 2):
        assign = await node.assigned()
        assert assign.lease.attempt == attempt
        failure = _failure("EXECUTOR_UNAVAILABLE")
        await node.acknowledged(
            await node.report(completed=pb.Completed(lease=assign.lease, failure=failure, retryable=True))
        )
        network.advance(timedelta(seconds=2))
    run = (await _get(network, name)).runs[0]
    assert (run.state, run.failure.reason) == (task_pb2.RUN_STATE_FAILED, "EXECUTOR_UNAVAILABLE")
    once = await _create(network, max_attempts=1)
    assign = await node.assigned()
    await node.disconnect()
    events = _events(network, once)
    await anext(events)
    network.advance(timedelta(seconds=31))
    ended = (await anext(events)).run_finished.run
    assert (ended.state, ended.failure.reason) == (task_pb2.RUN_STATE_FAILED, "NODE_LOST")
    assert "lost once" in ended.failure.message


async def test_a_wait_outlives_the_server_and_a_clock_that_was_set(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    failure = _failure("EXECUTOR_UNAVAILABLE")
    await node.acknowledged(
        await node.report(completed=pb.Completed(lease=assign.lease, failure=failure, retryable=True))
    )
    await network.stop()
    network.clock.jump(-timedelta(days=1))
    await network.start()
    network.advance(timedelta(minutes=1))  # as long as any run waits, whatever the time of day says
    back = network.node()
    await back.hello()
    assert (await back.assigned()).lease.attempt == 2
    assert (await _get(network, name)).runs[0].state == task_pb2.RUN_STATE_ASSIGNED


async def test_what_waits_to_be_tried_again_can_be_cancelled(network: Network) -> None:
    node = network.node()
    await node.hello()
    name = await _create(network)
    assign = await node.assigned()
    failure = _failure("EXECUTOR_UNAVAILABLE")
    await node.acknowledged(
        await node.report(completed=pb.Completed(lease=assign.lease, failure=failure, retryable=True))
    )
    await network.stub().CancelTask(task_service_pb2.CancelTaskRequest(name=name), metadata=ROSA)
    run = (await _get(network, name)).runs[0]
    assert (run.state, run.failure.reason) == (task_pb2.RUN_STATE_CANCELLED, "TASK_CANCELLED")
    assert "its last attempt failed: not now [EXECUTOR_UNAVAILABLE]" in run.failure.message
    assert run.failure.metadata["last_failure"] == "EXECUTOR_UNAVAILABLE"
    assert not run.HasField("retry_time")
    network.advance(timedelta(seconds=2))
    assert not (await node.heartbeat()).revoked  # and no assignment came


@pytest.mark.parametrize("end", ["succeed", "fail", "retry", "lose"])
async def test_subtasks_end_with_the_attempt_that_asked_unless_they_are_detached(network: Network, end: str) -> None:
    central, other = network.node(ONE), network.node("organizations/beta/nodes/one")
    await central.hello()
    await other.hello(slots=8)
    name = await _create(network)
    assign = await central.assigned()
    child = await _ask(network, assign, max_attempts=9)
    detached = await _ask(network, assign, detached=True)
    assert child.spec.max_attempts == 3  # never more than its parent
    leases = [(await other.assigned()).lease for _ in range(2)]
    assert {lease.run.rpartition("/runs/")[0] for lease in leases} == {child.name, detached.name}
    match end:
        case "succeed":
            await central.acknowledged(await central.succeed(assign))
        case "fail":
            await central.acknowledged(await central.fail(assign))
        case "retry":
            failure = _failure("EXECUTOR_UNAVAILABLE")
            await central.report(completed=pb.Completed(lease=assign.lease, failure=failure, retryable=True))
        case "lose":
            await central.disconnect()
            network.clock.advance(timedelta(seconds=20))
            await other.heartbeat(leases)
            network.advance(timedelta(seconds=11))
            back = network.node(ONE)
            assert not (await back.hello(leases=[assign.lease])).revoked
            assert (await _get(network, child.name)).state == task_pb2.TASK_STATE_ACTIVE  # it was at work all the time
            await back.disconnect()
            network.clock.advance(timedelta(seconds=20))
            await other.heartbeat(leases)
            network.advance(timedelta(seconds=11))
            taker = network.node(TWO)
            await taker.hello()
            assert (await taker.assigned()).lease.attempt == 2
    stopped = (await other.receive("cancel_run")).cancel_run
    assert stopped.lease.run.startswith(child.name)
    assert (await _get(network, child.name)).state == task_pb2.TASK_STATE_CANCELLED
    assert (await _get(network, detached.name)).state == task_pb2.TASK_STATE_ACTIVE
    # Who cancels the task above means everything below it, also when that has ended itself.
    await network.stub().CancelTask(task_service_pb2.CancelTaskRequest(name=name), metadata=ROSA)
    assert (await other.receive("cancel_run")).cancel_run.lease.run.startswith(detached.name)
    assert (await _get(network, detached.name)).state == task_pb2.TASK_STATE_CANCELLED


async def test_what_an_earlier_attempt_asked_is_not_begun_with_the_next(network: Network) -> None:
    node = network.node(ONE)
    await node.hello(slots=1)
    name = await _create(network)
    assign = await node.assigned()
    child = await _ask(network, assign, "organizations/alpha")  # waits: the node is full
    await node.disconnect()
    network.advance(timedelta(seconds=31))
    taker = network.node(TWO)
    await taker.hello()  # with room for both, which it looks for in one commit
    assert (await taker.assigned()).lease.run.startswith(name)
    assert not (await taker.heartbeat()).revoked  # and the child was not assigned
    assert (await _get(network, child.name)).state == task_pb2.TASK_STATE_CANCELLED
    assert network.sessions.book.count(TWO) == 1


async def test_a_subtask_runs_no_longer_than_its_parent_may(network: Network) -> None:
    node = network.node()
    await node.hello(slots=8)
    await _create(network, max_runtime=timedelta(seconds=60), max_attempts=1)
    assign = await node.assigned()
    assert assign.spec.max_runtime.ToSeconds() == 60
    for wanted, given in ((None, 60), (timedelta(seconds=30), 30), (timedelta(hours=1), 60)):
        fields = {} if wanted is None else {"max_runtime": wanted}
        child = await _ask(network, assign, "organizations/alpha", max_attempts=5, **fields)
        assert (child.spec.max_runtime.ToSeconds(), child.spec.max_attempts) == (given, 1)
        assert (await node.assigned()).spec.max_runtime.ToSeconds() == given


def _failure(reason: str) -> types_pb2.Failure:
    return types_pb2.Failure(reason=reason, message="not now")


async def _nodes(network: Network, *organizations: str) -> list[ScriptedNode]:
    nodes = [network.node(f"{organization}/nodes/one") for organization in ORGANIZATIONS]
    for organization, node in zip(ORGANIZATIONS, nodes, strict=True):
        if not organizations or organization.partition("/")[2] in organizations:
            await node.hello()
    return nodes


async def _assigned_of(node: ScriptedNode, task: str) -> pb.Assign:
    assign = await node.assigned()
    assert assign.lease.run.startswith(task)
    return assign


async def _create(network: Network, *organizations: str, **fields: Any) -> str:
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=_spec(*organizations, **fields))
    return (await network.stub().CreateTask(request, metadata=ROSA)).task.name


async def _ask(
    network: Network, parent: pb.Assign, organization: str = "organizations/beta", **fields: Any
) -> task_pb2.Task:
    child = _spec(organization, parent_run=parent.lease.run, **fields)
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=child)
    return (await network.stub().CreateTask(request, metadata=as_(ONE))).task


def _spec(*organizations: str, max_runtime: timedelta | None = None, **fields: Any) -> task_pb2.TaskSpec:
    made = spec(*organizations, **fields)
    if max_runtime is not None:
        made.max_runtime.FromTimedelta(max_runtime)
    return made


async def _get(network: Network, name: str) -> task_pb2.Task:
    return (await network.stub().GetTask(task_service_pb2.GetTaskRequest(name=name), metadata=ROSA)).task


async def _events(network: Network, name: str, after: int = 0) -> AsyncIterator[task_pb2.TaskEvent]:
    request = task_service_pb2.WatchTaskRequest(name=name, after_sequence=after)
    async for response in network.stub().WatchTask(request, metadata=ROSA):
        yield response.event
