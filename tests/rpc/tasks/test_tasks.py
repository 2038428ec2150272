"""Create, run, watch, list and cancel over a real server with a scripted node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.server.domain.tasks import MAX_ORDER_BYTES
from vantage.testing.task_server import IMAGE, LIMIT, ROSA, Network, as_, request_id, spec


async def test_a_task_runs_and_its_stream_ends_with_the_result(network: Network) -> None:
    node = network.node()
    await node.hello()
    call = network.stub().RunTask(
        task_service_pb2.RunTaskRequest(request_id=request_id(), spec=spec(title="Ages")), metadata=ROSA
    )
    snapshot = (await anext(aiter(call))).event
    # A node that is free gets the run in the transaction that creates the task: the snapshot mostly includes that.
    assert snapshot.sequence in (1, 2)
    assert snapshot.sequence == snapshot.snapshot.task.last_sequence
    assert (snapshot.snapshot.task.runs[0].state == task_pb2.RUN_STATE_ASSIGNED) == (snapshot.sequence == 2)
    assert snapshot.snapshot.task.state == task_pb2.TASK_STATE_ACTIVE
    assert snapshot.snapshot.task.runs[0].node_online
    assert not snapshot.snapshot.task.spec.targets[0].HasField("arguments")

    assign = await node.assigned()
    assert assign.spec.targets[0].arguments.inline == b'{"column": "age"}'
    assert assign.spec.image == IMAGE
    assert assign.creator == "users/rosa"
    assert assign.creator_organization == "organizations/alpha"
    assert list(assign.organizations) == ["organizations/alpha", "organizations/beta", "organizations/gamma"]
    await node.accept(assign)
    await node.acknowledged(await node.start(assign))
    last = await node.succeed(assign, b'{"mean": 63}')
    await node.acknowledged(last)

    events = [response.event async for response in call]
    assert [event.sequence for event in events] == list(range(snapshot.sequence + 1, 6))
    if snapshot.sequence == 1:
        assert events.pop(0).run_changed.run.state == task_pb2.RUN_STATE_ASSIGNED
    assert [event.WhichOneof("event") for event in events] == ["run_changed", "run_finished", "task_finished"]
    assert events[0].run_changed.run.state == task_pb2.RUN_STATE_RUNNING
    assert events[1].run_finished.run.result.inline == b'{"mean": 63}'
    assert events[1].run_finished.run.result.digest.startswith("sha256:")
    assert events[2].task_finished.state == task_pb2.TASK_STATE_SUCCEEDED
    assert events[2].task_finished.succeeded_runs == 1


async def test_watching_from_each_sequence_gives_exactly_what_follows(network: Network) -> None:
    name = await _finished(network)
    everything = [event.sequence for event in await _watch(network, name, 1)]
    assert everything == [5, 2, 3, 4, 5]  # the snapshot includes all, then each event after the first
    for after in range(2, 7):
        events = await _watch(network, name, after)
        assert [event.sequence for event in events[1:]] == list(range(after + 1, 6))
    from_the_start = await _watch(network, name, 0)
    assert [event.WhichOneof("event") for event in from_the_start] == ["snapshot"]
    assert from_the_start[0].snapshot.task.runs[0].result.inline == b"{}"
    replayed = (await _watch(network, name, 2))[1:]
    assert replayed[0].run_changed.run.state == task_pb2.RUN_STATE_RUNNING
    assert not replayed[0].run_changed.run.HasField("result")
    assert replayed[1].run_finished.run.result.inline == b"{}"


async def test_the_same_request_creates_once_and_attaches(network: Network) -> None:
    stub, request = network.stub(), task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
    answers = await asyncio.gather(*(stub.CreateTask(request, metadata=ROSA) for _ in range(5)))
    assert len({answer.task.name for answer in answers}) == 1
    call = stub.RunTask(
        task_service_pb2.RunTaskRequest(request_id=request.request_id, spec=request.spec), metadata=ROSA
    )
    assert (await anext(aiter(call))).event.snapshot.task.name == answers[0].task.name
    call.cancel()
    request.spec.title = "another"
    assert await _reason(stub.CreateTask(request, metadata=ROSA)) is Reason.REQUEST_ID_REUSED
    other = await stub.CreateTask(request, metadata=as_("users/otto"))
    assert other.task.name != answers[0].task.name


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": "registry/summary:latest"}, Reason.IMAGE_NOT_BY_DIGEST),
        ({"function": ""}, Reason.INVALID_ARGUMENT),
        ({"title": "x" * 201}, Reason.INVALID_ARGUMENT),
        ({"collaboration": "collaborations/nowhere"}, Reason.PERMISSION_DENIED),
        ({"parent_run": "tasks/x"}, Reason.INVALID_ARGUMENT),
    ],
)
async def test_what_cannot_be_asked_is_refused(network: Network, change: dict[str, Any], reason: Reason) -> None:
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(**change))
    assert await _reason(network.stub().CreateTask(request, metadata=ROSA)) is reason


async def test_who_may_not_ask(network: Network) -> None:
    stub = network.stub()
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
    assert await _reason(stub.CreateTask(request, metadata=as_("users/vera"))) is Reason.PERMISSION_DENIED
    assert await _reason(stub.CreateTask(request, metadata=as_("users/stranger"))) is Reason.PERMISSION_DENIED
    node = as_("organizations/alpha/nodes/one")
    assert await _reason(stub.CreateTask(request, metadata=node)) is Reason.PARENT_NOT_HELD
    outside = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec("organizations/delta"))
    assert await _reason(stub.CreateTask(outside, metadata=ROSA)) is Reason.ORGANIZATION_NOT_MEMBER
    large = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
    large.spec.targets[0].arguments.inline = b"x" * (LIMIT + 1)
    assert await _reason(stub.CreateTask(large, metadata=ROSA)) is Reason.PAYLOAD_TOO_LARGE
    no_uuid = task_service_pb2.CreateTaskRequest(request_id="1", spec=spec())
    assert await _reason(stub.CreateTask(no_uuid, metadata=ROSA)) is Reason.INVALID_ARGUMENT


async def test_who_sees_tasks_and_results(network: Network) -> None:
    name = await _finished(network)
    stub, request = network.stub(), task_service_pb2.GetTaskRequest(name=name)
    assert (await stub.GetTask(request, metadata=ROSA)).task.runs[0].result.inline == b"{}"
    seen = (await stub.GetTask(request, metadata=as_("users/vera"))).task
    assert seen.state == task_pb2.TASK_STATE_SUCCEEDED
    assert not seen.runs[0].HasField("result")
    assert await _reason(stub.GetTask(request, metadata=as_("users/otto"))) is Reason.NOT_FOUND
    assert await _reason(stub.GetTask(request, metadata=as_("users/stranger"))) is Reason.NOT_FOUND
    watched = stub.WatchTask(task_service_pb2.WatchTaskRequest(name=name, after_sequence=3), metadata=as_("users/vera"))
    assert not any(response.event.run_finished.run.HasField("result") for response in [e async for e in watched])


async def test_listing_pages_newest_first_and_filters(network: Network) -> None:
    stub = network.stub()
    created = []
    for number in range(5):
        request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(title=str(number)))
        created.append((await stub.CreateTask(request, metadata=ROSA)).task.name)
    await stub.CancelTask(task_service_pb2.CancelTaskRequest(name=created[0]), metadata=ROSA)
    found, token = [], ""
    while True:
        page = await stub.ListTasks(task_service_pb2.ListTasksRequest(page_size=2, page_token=token), metadata=ROSA)
        found += [task.name for task in page.tasks]
        if not (token := page.next_page_token):
            break
    assert sorted(found) == sorted(created)
    assert found == sorted(found, reverse=True)
    active = task_service_pb2.TaskFilter(states=[task_pb2.TASK_STATE_ACTIVE])
    page = await stub.ListTasks(task_service_pb2.ListTasksRequest(filter=active), metadata=ROSA)
    assert {task.name for task in page.tasks} == set(created[1:])
    nobody = await stub.ListTasks(task_service_pb2.ListTasksRequest(), metadata=as_("users/stranger"))
    assert not nobody.tasks


async def test_lists_of_large_tasks_have_shorter_pages(network: Network) -> None:
    stub = network.stub()
    created = []
    for number in range(10):
        # 19 MiB together; a message has 16.
        request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(title=str(number)))
        request.spec.order = bytes([number]) * (MAX_ORDER_BYTES - 100_000)
        created.append((await stub.CreateTask(request, metadata=ROSA)).task.name)
    found, token = [], ""
    while True:
        page = await stub.ListTasks(task_service_pb2.ListTasksRequest(page_size=20, page_token=token), metadata=ROSA)
        assert 2 <= len(page.tasks) <= 4
        assert all(len(task.spec.order) == MAX_ORDER_BYTES - 100_000 for task in page.tasks)
        found += [task.name for task in page.tasks]
        if not (token := page.next_page_token):
            break
    assert found == created[::-1]


async def test_a_node_that_does_not_read_is_not_given_all_that_waits(network: Network) -> None:
    number, stub = 60, network.stub()
    node = network.node()
    await node.hello(slots=number)
    for _ in range(number):
        request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(order=bytes(1024 * 1024)))
        await stub.CreateTask(request, metadata=ROSA)
    await network.commits.settle()
    # What waits at the server, and what is on the way.
    assert network.sessions.book.count("organizations/alpha/nodes/one") < number
    assert len({(await node.assigned()).lease.run for _ in range(number)}) == number


async def test_many_tasks_over_one_stream_each_with_its_own_outcome(network: Network) -> None:
    node = network.node()
    await node.hello(slots=8)
    number = 40
    call = network.stub().RunTasks(metadata=ROSA)
    ids = [request_id() for _ in range(number)]
    for each in ids:
        await call.write(task_service_pb2.RunTasksRequest(request_id=each, spec=spec()))
    bad = request_id()
    await call.write(task_service_pb2.RunTasksRequest(request_id=bad, spec=spec(image="latest")))
    await call.write(task_service_pb2.RunTasksRequest(request_id=ids[0], spec=spec()))
    await call.done_writing()

    async def work() -> None:
        for _ in range(number):
            assign = await node.assigned()
            await node.succeed(assign, assign.lease.run.encode())

    working = asyncio.create_task(work())
    sequences: dict[str, list[int]] = {}
    results: dict[str, bytes] = {}
    async for response in call:
        if response.WhichOneof("outcome") == "failure":
            assert response.request_id == bad
            assert response.failure.reason == "IMAGE_NOT_BY_DIGEST"
            continue
        kind = response.event.WhichOneof("event")
        if kind == "snapshot":
            sequences.setdefault(response.request_id, [response.event.sequence])
            continue
        sequences[response.request_id].append(response.event.sequence)
        if kind == "run_finished":
            results[response.request_id] = response.event.run_finished.run.result.inline
    await working
    assert set(results) == set(ids)
    assert len(set(results.values())) == number
    # The snapshot includes what had happened by then; each event after it comes once, in its order.
    assert all(found == list(range(found[0], 5)) for found in sequences.values())


async def test_cancel_reaches_the_node_and_leaves_finished_tasks_alone(network: Network) -> None:
    node, stub = network.node(), network.stub()
    await node.hello()
    created = await stub.CreateTask(
        task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec()), metadata=ROSA
    )
    assign = await node.assigned()
    cancel = task_service_pb2.CancelTaskRequest(name=created.task.name)
    assert await _reason(stub.CancelTask(cancel, metadata=as_("users/vera"))) is Reason.PERMISSION_DENIED
    after = (await stub.CancelTask(cancel, metadata=ROSA)).task
    assert after.state == task_pb2.TASK_STATE_CANCELLED
    assert after.runs[0].state == task_pb2.RUN_STATE_CANCELLED
    assert after.runs[0].failure.reason == "TASK_CANCELLED"
    pushed = (await node.receive("cancel_run")).cancel_run
    assert pushed.lease == assign.lease
    assert pushed.reason == "TASK_CANCELLED"
    # What the node had finished meanwhile comes too late, and is acknowledged all the same.
    await node.acknowledged(await node.succeed(assign))
    again = (await stub.CancelTask(cancel, metadata=ROSA)).task
    assert again.last_sequence == after.last_sequence
    assert again.runs[0].state == task_pb2.RUN_STATE_CANCELLED


async def test_a_task_ends_at_its_deadline_even_after_a_restart(network: Network) -> None:
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
    request.spec.timeout.FromTimedelta(timedelta(minutes=5))
    name = (await network.stub().CreateTask(request, metadata=ROSA)).task.name
    await network.stop()
    await network.start()
    call = network.stub().WatchTask(task_service_pb2.WatchTaskRequest(name=name), metadata=ROSA)
    assert (await anext(aiter(call))).event.snapshot.task.state == task_pb2.TASK_STATE_ACTIVE
    network.advance(timedelta(minutes=4))
    network.advance(timedelta(minutes=2))
    events = [response.event async for response in call]
    assert events[0].run_finished.run.state == task_pb2.RUN_STATE_EXPIRED
    assert events[0].run_finished.run.failure.reason == "NODE_UNAVAILABLE"
    assert events[1].task_finished.state == task_pb2.TASK_STATE_EXPIRED


async def test_a_server_that_stops_sends_those_away_who_follow_tasks(network: Network) -> None:
    """Each by its call: nothing happens to a task until the server is back, and a stop had taken its whole grace."""
    stub = network.stub()
    run = stub.RunTask(task_service_pb2.RunTaskRequest(request_id=request_id(), spec=spec()), metadata=ROSA)
    name = (await anext(aiter(run))).event.snapshot.task.name
    watch = stub.WatchTask(task_service_pb2.WatchTaskRequest(name=name, after_sequence=1), metadata=ROSA)
    await anext(aiter(watch))

    async def questions() -> AsyncIterator[task_service_pb2.RunTasksRequest]:
        yield task_service_pb2.RunTasksRequest(request_id=request_id(), spec=spec())
        await asyncio.Event().wait()  # more may come

    many = stub.RunTasks(questions(), metadata=ROSA)
    await anext(aiter(many))
    ending = [asyncio.create_task(_reason(_drained(call))) for call in (run, watch, many)]
    node = network.node()
    await node.hello()
    given = {each.lease.run.partition("/runs/")[0]: each for each in [await node.assigned() for _ in range(2)]}
    await node.acknowledged(await node.start(given[name]))
    await network.sessions.stop()
    await network.tasks.stop()
    async with asyncio.timeout(30):
        assert await asyncio.gather(*ending) == [Reason.SERVER_STOPPING] * 3
    late = stub.WatchTask(task_service_pb2.WatchTaskRequest(name=name, after_sequence=1), metadata=ROSA)
    answers = aiter(late)
    kinds = [(await anext(answers)).event.WhichOneof("event") for _ in range(3)]
    assert kinds == ["snapshot", "run_changed", "run_changed"]  # what has happened is told
    assert await _reason(_drained(answers)) is Reason.SERVER_STOPPING


async def _drained(answers: Any) -> None:
    async for _ in answers:
        pass


async def _finished(network: Network) -> str:
    node = network.node()
    await node.hello()
    created = await network.stub().CreateTask(
        task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec()), metadata=ROSA
    )
    assign = await node.assigned()
    await node.acknowledged(await node.start(assign))
    await node.acknowledged(await node.succeed(assign))
    await node.finish()
    return created.task.name


async def _watch(network: Network, name: str, after: int) -> list[task_pb2.TaskEvent]:
    call = network.stub().WatchTask(task_service_pb2.WatchTaskRequest(name=name, after_sequence=after), metadata=ROSA)
    return [response.event async for response in call]


async def _reason(call: Any) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason
