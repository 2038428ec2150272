"""Signed and sealed questions and answers, against a real server and nodes that seal and sign."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vantage.api.types.v1 import types_pb2
from vantage.client import AsyncClient, Delegate, Identity, OnFailure, Question, RunState, Target, TaskState
from vantage.client.connection import GrpcTransport, ServerAddress
from vantage.common import dsse, sealing
from vantage.common.clock import ManualClock
from vantage.common.errors import ConflictError, InvalidArgumentError, Reason, RunError
from vantage.common.statements import Order
from vantage.testing.hostile import HostileServer
from vantage.testing.sealed_network import COLLABORATION, IMAGE, RESEARCHER, SealedNetwork
from vantage.testing.server import PASSWORD, RunningServer

ASK: dict[str, Any] = {"image": IMAGE, "collaboration": "trial", "function": "summary"}
WAIT = timedelta(seconds=90)
MARKERS = (b"pancreas-marker-1", b"answer-marker-2")


async def reopened(network: SealedNetwork, hostile: HostileServer, task: str, into: Path | None = None) -> Any:
    """The only answer of a task, or the reason why there is none, for a program that is started now."""
    keyring = network.files().open()
    identity = Identity(keyring, network.trust(keyring))
    async with AsyncClient(GrpcTransport(ServerAddress(hostile.address, tls=False)), identity=identity) as client:
        await client.auth.login("rosa", PASSWORD)
        (result,) = await (await client.tasks.attach(task)).results(into=into)
        return result.value if result.failure is None else result.failure.reason


async def test_questions_to_datasets_are_sealed_with_the_arguments(client: AsyncClient, network: SealedNetwork) -> None:
    given: dict[str, Any] = {"column": "age"}
    await client.tasks.run(
        **ASK,
        arguments=given,
        organizations=["clara"],
        targets=[Target("hilda", datasets={"table": "lung"})],
        datasets={"table": "registry:adults?min_age=50&site=noord%20oost"},
    )
    clara = await network.nodes["clara"].take()
    assert [each.dataset for each in clara.spec.targets[0].datasets] == ["registry"]
    assert b"min_age" not in clara.SerializeToString()
    asked = {"query": "adults", "arguments": {"min_age": "50", "site": "noord oost"}}
    assert network.nodes["clara"].arguments(clara) == {"column": "age", "$data": {"table": asked}}
    (target,) = network.nodes["clara"].order(clara).order.targets[:1]
    assert target.datasets == {"table": "registry"}
    hilda = await network.nodes["hilda"].take()
    assert network.nodes["hilda"].arguments(hilda) == given == {"column": "age"}
    for wrong in ({"table": "registry:"}, {"table": "registry:adults?min_age"}):
        with pytest.raises(InvalidArgumentError):
            await client.tasks.run(**ASK, arguments=given, organizations=["clara"], datasets=wrong)
    with pytest.raises(InvalidArgumentError):
        await client.tasks.run(
            **ASK, arguments={"$data": {}}, organizations=["clara"], datasets={"table": "registry:adults"}
        )


async def test_who_is_no_member_is_said_to_be_none(client: AsyncClient) -> None:
    for delegate in (True, False):
        with pytest.raises(InvalidArgumentError, match="emma is not a member of collaborations/trial") as caught:
            await client.tasks.run(**ASK, organizations=["clara", "emma"], delegate=delegate)
        assert caught.value.reason is Reason.ORGANIZATION_NOT_MEMBER


async def test_a_question_is_signed_and_sealed_and_its_answer_verified_and_opened(
    client: AsyncClient, network: SealedNetwork
) -> None:
    task = await client.tasks.run(
        **ASK, arguments={"column": "age"}, organizations=["clara"], datasets={"table": "lung"}, title="a title"
    )
    clara = network.nodes["clara"]
    assign = await clara.take()
    assert assign.spec.targets[0].arguments.sealing == types_pb2.SEALING_AGE_V1
    assert clara.arguments(assign) == {"column": "age"}
    order = clara.order(assign).order
    (target,) = order.targets
    assert (order.requester, order.collaboration, order.image, order.function) == (
        RESEARCHER,
        COLLABORATION,
        IMAGE,
        "summary",
    )
    assert target.arguments is not None
    assert target.arguments.digest == dsse.digest_of(assign.spec.targets[0].arguments.inline)
    assert target.datasets == {"table": "lung"}
    assert order.expires >= assign.deadline.ToDatetime(UTC)
    assert order.expires - datetime.now(UTC) < timedelta(minutes=70)
    assert order.delegation is not None
    assert set(order.delegation.organizations) == {f"organizations/{name}" for name in ("clara", "dora", "hilda")}
    assert (order.delegation.max_tasks, order.delegation.max_depth) == (1_000, 4)
    await clara.succeed(assign, {"mean": 61})
    (result,) = await task.results(timeout=30)
    assert (result.value, result.verified, result.node, result.state) == (
        {"mean": 61},
        True,
        clara.name,
        RunState.SUCCEEDED,
    )
    again = await client.tasks.attach(task.name)
    assert [(each.value, each.verified) for each in await again.results()] == [({"mean": 61}, True)]
    (kept,) = await again.results(sealed=True)
    assert json.loads(sealing.unseal(sealing.SealedPayload(kept.value), network.files().identities())) == {"mean": 61}


async def test_the_limit_of_a_run_is_signed_and_what_the_server_decides_is_not(
    client: AsyncClient, network: SealedNetwork
) -> None:
    task = await client.tasks.run(
        **ASK,
        arguments={"column": "age"},
        organizations=["clara", "hilda"],
        datasets={"table": "lung"},
        max_runtime=timedelta(seconds=59.5),
        quorum=1,
        on_failure=OnFailure.CANCEL_REST,
    )
    clara = network.nodes["clara"]
    assign = await clara.take()
    order = clara.order(assign).order
    assert order.max_runtime == assign.spec.max_runtime.ToSeconds() == 60
    assert not {"quorum", "on_failure", "max_attempts", "detached"} & set(order.model_dump())
    await clara.succeed(assign, {"mean": 61})
    answered, missing = await task.results(timeout=30)
    assert (answered.value, answered.verified) == ({"mean": 61}, True)
    assert missing.failure is not None
    # Only the server can know that: it is its word.
    assert (missing.failure.reason, missing.verified) == ("QUORUM_REACHED", False)


async def test_the_same_arguments_of_several_organizations_are_sealed_and_uploaded_once(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    large = {"text": "x" * 1_500_000}
    task = await client.tasks.run(
        **ASK, arguments=large, organizations=["clara"], targets=[Target("hilda", datasets={"table": "other"})]
    )
    assert hostile.calls["UploadPayload"] == 1
    references = set()
    for node in network.nodes.values():
        assign = await node.take()
        references.add(assign.spec.targets[0].arguments.reference)
        content = await network.download(node, assign)
        assert node.opened(assign, content) == large
        await node.succeed(assign, 1)
    assert len(references) == 1
    assert [each.verified for each in await task.results(timeout=30)] == [True, True]


async def test_a_file_of_arguments_is_sealed(client: AsyncClient, network: SealedNetwork, tmp_path: Path) -> None:
    path = tmp_path / "arguments.json"
    path.write_text(json.dumps({"column": "bmi"}))
    task = await client.tasks.run(**ASK, arguments=path, organizations=["clara"])
    clara = network.nodes["clara"]
    assign = await clara.take()
    assert clara.arguments(assign) == {"column": "bmi"}
    await clara.succeed(assign, b"\x00\x01", "application/octet-stream")
    assert await task.result(timeout=30) == b"\x00\x01"


async def test_what_may_be_delegated_is_narrowed_or_switched_off(client: AsyncClient, network: SealedNetwork) -> None:
    clara = network.nodes["clara"]
    await client.tasks.run(**ASK, organizations=["clara"], delegate=False)
    assert clara.order(await clara.take()).order.delegation is None
    await client.tasks.run(
        **ASK, organizations=["clara"], delegate=Delegate(("hilda",), functions=("partial",), max_tasks=2, max_depth=1)
    )
    given = clara.order(await clara.take()).order.delegation
    assert given is not None
    assert (given.organizations, given.functions, given.datasets) == (("organizations/hilda",), ("partial",), None)
    assert (given.max_tasks, given.max_depth) == (2, 1)


async def test_failures_and_refusals_are_verified_and_what_the_server_ends_is_its_word(
    client: AsyncClient, network: SealedNetwork
) -> None:
    clara, hilda = network.nodes["clara"], network.nodes["hilda"]
    task = await client.tasks.run(**ASK, organizations=["clara", "hilda"])
    await clara.fail(await clara.take(), "TOO_FEW_RECORDS", "too few rows")
    await hilda.refuse(await hilda.session.assigned())
    failed, refused = await task.results(timeout=30)
    assert (failed.verified, failed.failure and failed.failure.reason) == (True, "TOO_FEW_RECORDS")
    assert (refused.verified, refused.failure and refused.failure.reason) == (True, "POLICY_REFUSED")
    with pytest.raises(RunError, match="too few rows"):
        failed.get()
    cancelled = await client.tasks.run(**ASK, organizations=["clara"])
    await cancelled.cancel()
    (result,) = await cancelled.results(timeout=30)
    assert (result.verified, result.failure and result.failure.reason) == (False, "TASK_CANCELLED")


async def test_keys_that_changed_are_fetched_again(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    clara = network.nodes["clara"]
    first = await client.tasks.run(**ASK, arguments={"n": 1}, organizations=["clara"])
    await clara.succeed(await clara.take(), 1)
    assert await first.result(timeout=30) == 1
    await clara.rotate()
    second = await client.tasks.run(**ASK, arguments={"n": 2}, organizations=["clara"])
    assign = await clara.take()
    assert clara.arguments(assign) == {"n": 2}
    await clara.succeed(assign, 2)
    assert await second.result(timeout=30) == 2
    assert hostile.calls["ListNodeKeys"] == 2
    await clara.rotate()

    async def answer() -> None:
        for assign in [await clara.take(), await clara.take()]:
            await clara.succeed(assign, clara.arguments(assign)["n"])

    async with asyncio.TaskGroup() as group:
        group.create_task(answer())
        questions = [Question(**ASK, organizations=("clara",), arguments={"n": n}) for n in (3, 4)]
        answers = [each async for each in client.tasks.run_many(questions)]
    assert sorted(each.get()[0] for each in answers) == [3, 4]
    assert all(each.results[0].verified for each in answers)


async def test_a_request_id_attaches_also_from_another_program(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    request_id = str(uuid.uuid4())
    first = await client.tasks.run(**ASK, arguments={"n": 1}, organizations=["clara"], request_id=request_id.upper())
    again = await client.tasks.run(**ASK, arguments={"n": 1}, organizations=["clara"], request_id=request_id)
    assert first.name == again.name
    clara = network.nodes["clara"]
    await clara.succeed(await clara.take(), 1)
    assert await again.result(timeout=30) == 1
    with pytest.raises(ConflictError) as caught:
        await client.tasks.run(**ASK, organizations=["hilda"], request_id=request_id)
    assert caught.value.reason is Reason.REQUEST_ID_REUSED


async def test_old_answers_open_after_a_rotation_and_not_after_a_revocation(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer, tmp_path: Path
) -> None:
    task = await client.tasks.run(**ASK, organizations=["clara"])
    clara = network.nodes["clara"]
    await clara.succeed(await clara.take(), 1)
    await task.results(timeout=30)
    into = tmp_path / "into"
    into.mkdir()
    files = network.files()
    files.rotate()
    assert await reopened(network, hostile, task.name) == 1
    files.revoke(files.seal_keys()[1].recipient)
    for where in (None, into):
        assert await reopened(network, hostile, task.name, where) == "SEAL_INVALID"
    assert not os.listdir(into)  # noqa: PTH208


async def test_without_keys_tasks_are_neither_signed_nor_sealed(network: SealedNetwork, hostile: HostileServer) -> None:
    async with AsyncClient(GrpcTransport(ServerAddress(hostile.address, tls=False))) as client:
        await client.auth.login("rosa", PASSWORD)
        task = await client.tasks.run(**ASK, arguments={"n": 1}, organizations=["clara"])
        node = network.nodes["clara"].session
        assign = await node.assigned()
        assert not assign.spec.order
        assert assign.spec.targets[0].arguments.inline == b'{"n":1}'
        await node.acknowledged(await node.succeed(assign, b"5"))
        (result,) = await task.results(timeout=30)
        assert (result.value, result.verified) == (5, False)


async def test_nothing_of_arguments_and_answers_is_at_the_server(
    client: AsyncClient, network: SealedNetwork, server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    arguments = {"secret": MARKERS[0].decode(), "large": MARKERS[0].decode() * 80_000}
    task = await client.tasks.run(**ASK, arguments=arguments, organizations=["clara"])
    clara = network.nodes["clara"]
    await clara.succeed(await clara.take(), {"secret": MARKERS[1].decode()})
    (result,) = await task.results(timeout=30)
    assert result.value == {"secret": MARKERS[1].decode()}
    assert task.state is TaskState.SUCCEEDED
    files = [each for each in server.server.data.rglob("*") if each.is_file()]
    contents = {each: each.read_bytes() for each in files}
    assert any(b"summary" in content for content in contents.values())  # the scan looks at the right files
    for marker in MARKERS:
        assert not [each for each, content in contents.items() if marker in content]
        assert marker.decode() not in caplog.text


@pytest.mark.parametrize("answer", [False, True])
async def test_a_question_that_waits_long_for_a_connection_is_signed_anew_and_asked_once(
    network: SealedNetwork, hostile: HostileServer, answer: bool
) -> None:
    clock = ManualClock(datetime.now(UTC))
    transport = GrpcTransport(ServerAddress(hostile.address, tls=False))
    clara = network.nodes["clara"]
    # Behind the others' clocks at first, so that what is signed later is not from the future.
    clock.jump(-WAIT)
    async with AsyncClient(transport, identity=network.identity(), clock=clock) as client:
        await client.auth.login("rosa", PASSWORD)
        hostile.lose("RunTasks", lambda: clock.advance(WAIT), answer=answer)

        async def respond() -> Any:
            assign = await clara.take()
            order = Order.decode(dsse.peek(assign.spec.order))
            await clara.succeed(assign, clara.arguments(assign)["n"])
            return order

        async with asyncio.TaskGroup() as group:
            responding = group.create_task(respond())
            question = Question(**ASK, organizations=("clara",), arguments={"n": 3})
            (got,) = [each async for each in client.tasks.run_many([question])]
        assert got.get() == [3]
        assert got.results[0].verified
        assert clock.now() - responding.result().created == (WAIT if answer else timedelta(0))
    assert len([each async for each in _tasks(hostile)]) == 1


async def _tasks(hostile: HostileServer) -> AsyncIterator[Any]:
    async with AsyncClient(GrpcTransport(ServerAddress(hostile.address, tls=False))) as client:
        await client.auth.login("rosa", PASSWORD)
        async for each in client.tasks.list():
            yield each


async def test_answers_go_into_files_verified_and_opened_or_kept_sealed(
    client: AsyncClient, network: SealedNetwork, tmp_path: Path
) -> None:
    task = await client.tasks.run(**ASK, organizations=["clara", "hilda"])
    content = b"x" * 300_000
    await network.nodes["clara"].succeed(await network.nodes["clara"].take(), content, "application/octet-stream")
    await network.nodes["hilda"].succeed(await network.nodes["hilda"].take(), {"n": 1})
    (tmp_path / "opened").mkdir()
    (tmp_path / "opened" / "hilda.json").write_text("of earlier")
    others = tmp_path / "opened" / ".hilda.json.part"
    others.write_text("of somebody else, who may write there as well")
    results = await task.results(into=tmp_path / "opened")
    assert [(each.verified, each.value) for each in results] == [
        (True, tmp_path / "opened" / "clara.bin"),
        (True, tmp_path / "opened" / "hilda.json"),
    ]
    assert results[0].value.read_bytes() == content
    assert json.loads(results[1].value.read_text()) == {"n": 1}
    assert others.read_text() == "of somebody else, who may write there as well"
    assert len(list((tmp_path / "opened").iterdir())) == 3

    (tmp_path / "sealed").mkdir()
    sealed = await task.results(into=tmp_path / "sealed", sealed=True)
    identities = network.files().open().identities
    for each, expected in zip(sealed, (content, b'{"n": 1}'), strict=True):
        assert each.value.suffix == ".age"
        assert sealing.unseal(sealing.SealedPayload(each.value.read_bytes()), identities) == expected


async def test_an_answer_that_is_not_verified_leaves_no_file(
    client: AsyncClient, network: SealedNetwork, tmp_path: Path
) -> None:
    task = await client.tasks.run(**ASK, organizations=["clara"])
    clara = network.nodes["clara"]
    assign = await clara.take()
    clara.key = network.certified(f"{clara.name}")[0]  # which its certificate does not vouch for
    await clara.succeed(assign, {"n": 1})
    into = tmp_path / "into"
    into.mkdir()
    (result,) = await task.results(into=into)
    assert result.failure is not None
    assert result.failure.reason == "RESULT_UNVERIFIED"
    assert not os.listdir(into)  # noqa: PTH208
