"""Orders and signed statements on their way through the server: passed on byte by byte, never made up."""

from __future__ import annotations

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.testing.task_server import ROSA, Network, as_, request_id, spec

ONE = "organizations/alpha/nodes/one"
FAILURE = types_pb2.Failure(reason="ALGORITHM_FAILED", message="no")


async def test_an_order_reaches_the_node_and_the_statement_the_researcher(network: Network) -> None:
    node, stub = network.node(), network.stub()
    await node.hello()
    question = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(order=b"the order"))
    name = (await stub.CreateTask(question, metadata=ROSA)).task.name
    assign = await node.assigned()
    assert assign.spec.order == b"the order"
    assert not assign.spec.parent_orders
    result = types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_AGE_V1, inline=b"sealed")
    done = pb.Completed(lease=assign.lease, result=result, statement=b"signed by the node")
    await node.acknowledged(await node.report(completed=done))
    (run,) = (await stub.GetTask(task_service_pb2.GetTaskRequest(name=name), metadata=ROSA)).task.runs
    assert run.statement == b"signed by the node"
    events = [
        answer.event
        async for answer in stub.WatchTask(
            task_service_pb2.WatchTaskRequest(name=name, after_sequence=1), metadata=ROSA
        )
    ]
    (finished,) = [event.run_finished.run for event in events if event.HasField("run_finished")]
    assert finished.statement == b"signed by the node"
    assert not any(event.run_changed.run.statement for event in events if event.HasField("run_changed"))


async def test_refusals_and_failures_are_signed_too_and_what_the_server_ends_is_not(network: Network) -> None:
    node, stub = network.node(), network.stub()
    await node.hello()
    names = []
    for _ in range(3):
        question = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
        names.append((await stub.CreateTask(question, metadata=ROSA)).task.name)
    refused, failed = await node.assigned(), await node.assigned()
    await node.assigned()
    await node.report(refused=pb.Refused(lease=refused.lease, failure=FAILURE, statement=b"refusal"))
    done = await node.report(completed=pb.Completed(lease=failed.lease, failure=FAILURE, statement=b"failure"))
    await node.acknowledged(done)
    await stub.CancelTask(task_service_pb2.CancelTaskRequest(name=names[2]), metadata=ROSA)
    found = []
    for name in names:
        (run,) = (await stub.GetTask(task_service_pb2.GetTaskRequest(name=name), metadata=ROSA)).task.runs
        found.append(run.statement)
    assert found == [b"refusal", b"failure", b""]


async def test_the_orders_above_a_subtask_are_those_that_the_server_has(network: Network) -> None:
    alpha, stub = network.node(), network.stub()
    beta = network.node("organizations/beta/nodes/one")
    await alpha.hello()
    await beta.hello()
    question = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(order=b"root"))
    await stub.CreateTask(question, metadata=ROSA)
    parent = await alpha.assigned()
    below = spec(
        "organizations/beta", order=b"below", parent_orders=[b"made up"], parent_run=parent.lease.run, collaboration=""
    )
    await stub.CreateTask(task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=below), metadata=as_(ONE))
    child = await beta.assigned()
    assert (child.spec.order, list(child.spec.parent_orders)) == (b"below", [b"root"])
    deeper = spec("organizations/alpha", order=b"deeper", parent_run=child.lease.run, collaboration="")
    await stub.CreateTask(
        task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=deeper),
        metadata=as_("organizations/beta/nodes/one"),
    )
    assert list((await alpha.assigned()).spec.parent_orders) == [b"root", b"below"]
