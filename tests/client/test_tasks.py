"""Questions and answers against a server and nodes, also while connections are lost."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from vantage.api.types.v1 import types_pb2
from vantage.client import (
    AsyncClient,
    Client,
    OnFailure,
    Question,
    RunChanged,
    RunLog,
    RunProgress,
    RunState,
    Target,
    TaskFinished,
    TaskSnapshot,
    TaskState,
    WaitCause,
    many,
)
from vantage.client.connection import GrpcTransport, ServerAddress
from vantage.client.models import Content
from vantage.client.payloads import Payloads
from vantage.common.errors import (
    InvalidArgumentError,
    NotFoundError,
    Reason,
    RefusedError,
    RunError,
    UnauthenticatedError,
    UnavailableError,
)
from vantage.server.certificate import fingerprint
from vantage.testing.processes import PASSWORD, RESEARCHER, Installation
from vantage.testing.proxy import Proxy
from vantage.testing.station import COLLABORATION, IMAGE

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK: dict[str, Any] = {"image": IMAGE, "collaboration": "trial"}


async def test_answers_come_in_the_order_of_the_questions(client: AsyncClient) -> None:
    targets = [Target("hilda", arguments={"value": 2}), Target("clara", node="clara-1")]
    task = await client.tasks.run(**ASK, function="echo", arguments={"value": 1}, targets=targets, title="a title")
    hilda, clara = await task.results(timeout=30)
    assert (hilda.organization, hilda.value, clara.organization, clara.value) == (
        "organizations/hilda",
        {"value": 2},
        "organizations/clara",
        {"value": 1},
    )
    assert clara.node == "organizations/clara/nodes/clara-1"
    assert task.state is TaskState.SUCCEEDED
    assert [each.value for each in await task.results()] == [{"value": 2}, {"value": 1}]
    stored = await client.tasks.get(task.name)
    assert (stored.title, stored.collaboration, stored.creator) == ("a title", COLLABORATION, "users/rosa")


async def test_a_failure_is_an_answer_and_raises_where_the_answer_is_wanted(client: AsyncClient) -> None:
    task = await client.tasks.run(
        **ASK, function="report", arguments={"reason": "TOO_FEW_RECORDS"}, organizations=["clara"]
    )
    (result,) = await task.results(timeout=30)
    assert (result.ok, result.state) == (False, RunState.FAILED)
    with pytest.raises(RunError, match="organizations/clara: too few rows") as caught:
        await task.result()
    assert caught.value.reason is Reason.TOO_FEW_RECORDS
    refused = await client.tasks.run(**ASK, function="count", organizations=["clara"], datasets={"table": "no-such"})
    with pytest.raises(RefusedError):
        await refused.result(timeout=30)


async def test_as_many_answers_as_suffice_and_why_the_others_are_missing(client: AsyncClient) -> None:
    targets = [Target("clara"), Target("hilda", node="nobody")]
    limits: dict[str, Any] = {"max_runtime": timedelta(seconds=89.5), "max_attempts": 2}
    task = await client.tasks.run(**ASK, function="echo", arguments={"value": 7}, targets=targets, quorum=1, **limits)
    assert (task.task.quorum, task.task.max_runtime, task.task.max_attempts) == (1, timedelta(seconds=90), 2)
    wait = task.task.runs[1].wait
    assert wait is not None
    assert wait.cause is WaitCause.NO_NODE
    clara, hilda = await task.results(timeout=30)
    assert task.state is TaskState.SUCCEEDED
    assert clara.value == {"value": 7}
    assert hilda.failure is not None
    assert (hilda.state, hilda.failure.reason) == (RunState.CANCELLED, "QUORUM_REACHED")

    arguments = {"reason": "TOO_FEW_RECORDS"}
    task = await client.tasks.run(
        **ASK, function="report", arguments=arguments, targets=targets, on_failure=OnFailure.CANCEL_REST
    )
    results = await task.results(timeout=30)
    assert task.state is TaskState.FAILED
    assert [each.failure and each.failure.reason for each in results] == ["TOO_FEW_RECORDS", "OTHER_RUN_FAILED"]


async def test_events_tell_everything_from_the_first_moment(client: AsyncClient) -> None:
    task = await client.tasks.run(**ASK, function="talk", arguments={"lines": 20}, organizations=["clara"])
    events = [event async for event in task.events()]
    assert isinstance(events[0], TaskSnapshot)
    assert isinstance(events[-1], TaskFinished)
    kept = [event.sequence for event in events if event.sequence]
    assert kept == list(range(kept[0], kept[0] + len(kept)))
    assert any(isinstance(event, RunProgress) and event.fraction == 1 for event in events)
    assert not any(isinstance(event, RunLog) for event in events)  # the node keeps them
    again = [event async for event in (await client.tasks.attach(task.name)).events()]
    assert isinstance(again[0], TaskSnapshot)
    assert again[0].task.state is TaskState.SUCCEEDED


async def test_events_go_on_after_a_lost_connection(client: AsyncClient, proxy: Proxy) -> None:
    task = await client.tasks.run(**ASK, function="hold", arguments={"gate": "lost"}, organizations=["clara"])
    states, last = [], None
    async for event in task.events():
        last = event
        if isinstance(event, RunChanged):
            states.append(event.run.state)
            if event.run.state is RunState.RUNNING:
                proxy.cut()
                await client.tasks.cancel(task.name)
    assert isinstance(last, TaskFinished)
    assert last.state is TaskState.CANCELLED
    assert states.count(RunState.RUNNING) == 1
    assert proxy.connections >= 2


async def test_waiting_has_an_end_and_the_task_has_none(client: AsyncClient) -> None:
    task = await client.tasks.run(**ASK, function="hold", arguments={"gate": "late"}, organizations=["clara"])
    with pytest.raises(UnavailableError, match="it goes on") as caught:
        await task.result(timeout=0.2)
    assert caught.value.reason is Reason.DEADLINE_EXCEEDED
    assert (await task.refresh()).state is TaskState.ACTIVE
    await task.cancel()
    with pytest.raises(RunError):
        await task.result(timeout=30)


async def test_the_same_request_id_is_the_same_task(client: AsyncClient) -> None:
    request_id = str(uuid.uuid4())
    first, again = [
        await client.tasks.run(
            **ASK, function="echo", arguments={"value": 1}, organizations=["clara"], request_id=request_id
        )
        for _ in range(2)
    ]
    assert first.name == again.name
    assert await again.result(timeout=30) == {"value": 1}


async def test_a_large_result_arrives_whole_over_several_connections(network: Installation, proxy: Proxy) -> None:
    size = 12_000_000
    cuts = iter([2_000_000, 7_000_000])
    threshold = next(cuts)
    seen: list[tuple[str, int, int]] = []

    def transfer(direction: str, done: int, total: int) -> None:
        nonlocal threshold
        seen.append((direction, done, total))
        if done > threshold:
            threshold = next(cuts, size + 1)
            proxy.cut()

    trust = fingerprint(network.data)
    async with AsyncClient.connect(proxy.address, fingerprint=trust, transfer=transfer) as client:
        await client.auth.login(RESEARCHER, PASSWORD)
        task = await client.tasks.run(**ASK, function="large", arguments={"size": size}, organizations=["clara"])
        assert await task.result(timeout=60) == bytes(size)
    assert seen[-1] == ("download", size, size)
    assert [done for _direction, done, _total in seen] == sorted(done for _direction, done, _total in seen)
    assert proxy.connections >= 3


async def test_large_arguments_are_uploaded_whole_over_several_connections(
    client: AsyncClient, proxy: Proxy, tmp_path: Path
) -> None:
    path = tmp_path / "arguments.json"
    path.write_bytes(b'{"gate": "' + b"x" * 12_000_000 + b'"}')
    told: list[tuple[str, int, int]] = []
    lost = set()

    def transfer(direction: str, done: int, total: int) -> None:
        told.append((direction, done, total))
        if done > 5_000_000 and direction not in lost:
            lost.add(direction)
            proxy.cut()

    payloads = Payloads(client._caller, transfer)
    packed = await payloads.pack(path, "application/json")
    assert not [each.path for each in psutil.Process().open_files() if each.path == str(path)]
    assert packed.WhichOneof("content") == "reference"  # given only when the digest of what arrived is right
    content = Content(packed.media_type, packed.size_bytes, packed.digest, None, packed.reference)
    async with payloads.fetched(content, tmp_path) as fetched:
        assert isinstance(fetched.content, Path)
        assert (fetched.content.read_bytes(), fetched.digest) == (path.read_bytes(), content.digest)
    async with payloads.fetched(content) as held:
        assert (held.content, held.digest) == (path.read_bytes(), content.digest)
    assert lost == {"upload", "download"}
    ends = {way: [done for each, done, _total in told if each == way] for way in lost}
    assert ends["upload"][-1] == packed.size_bytes
    # Whatever has arrived is not asked for again. (How much of an upload had arrived, buffers on the way decide.)
    fetched_first = ends["download"][: ends["download"].index(packed.size_bytes) + 1]
    assert all(after > before for before, after in pairwise(fetched_first))

    with pytest.raises(InvalidArgumentError, match="changed on its way"):
        async with payloads.fetched(replace(content, digest=f"sha256:{'0' * 64}"), tmp_path):
            pass
    assert os.listdir(tmp_path) == ["arguments.json"]  # noqa: PTH208
    small = await Payloads(client._caller).pack(b"{}", "application/json")
    assert small == types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_NONE, inline=b"{}")


async def test_many_questions_are_answered_once_each_although_connections_are_lost(
    client: AsyncClient, proxy: Proxy
) -> None:
    title = f"many {uuid.uuid4()}"

    def ask(number: int, organization: str = "clara") -> Question:
        return Question(**ASK, function="echo", arguments={"value": number}, organizations=(organization,), title=title)

    questions = [ask(number) for number in range(150)]
    stranger = ask(-1, "eve")

    async def asked() -> AsyncIterator[Question]:
        for question in [*questions[:50], stranger, *questions[50:]]:
            yield question

    answers = []
    async for answer in client.tasks.run_many(asked()):
        answers.append(answer)
        if len(answers) in (20, 90):
            proxy.cut()
    failed = [answer for answer in answers if answer.failure is not None]
    assert [(answer.question, answer.failure and answer.failure.reason) for answer in failed] == [
        (stranger, "ORGANIZATION_NOT_MEMBER")
    ]
    values = {answer.question.arguments["value"]: answer.get() for answer in answers if answer.failure is None}  # type: ignore[index]
    assert values == {number: [{"value": number}] for number in range(150)}
    assert len(answers) == 151
    stored = [task async for task in client.tasks.list(collaboration="trial") if task.title == title]
    assert len(stored) == 150


async def test_a_question_that_cannot_be_sent_does_not_stop_the_others(client: AsyncClient) -> None:
    bad = Question(**ASK, function="echo", arguments={"value": object()}, organizations=("clara",))
    good = Question(**ASK, function="echo", arguments={"value": 1}, organizations=("clara",))

    def asked() -> Iterator[Question]:
        yield from (bad, good)

    answers = {id(answer.question): answer async for answer in client.tasks.run_many(asked())}
    failure = answers[id(bad)].failure
    assert failure is not None
    assert failure.reason == "ARGUMENTS_INVALID"
    assert answers[id(good)].get() == [{"value": 1}]


async def test_many_questions_that_are_left_early_leave_nothing_running(client: AsyncClient) -> None:
    async def asked() -> AsyncIterator[Question]:
        yield Question(**ASK, function="echo", arguments={"value": 1}, organizations=("clara",))
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    answers = client.tasks.run_many(asked())
    assert (await anext(answers)).get() == [{"value": 1}]
    workers = {task for task in asyncio.all_tasks() - before if "Batch" in repr(task.get_coro())}
    assert len(workers) == 3  # asks, listens, writes
    await answers.aclose()  # type: ignore[attr-defined]  # a generator
    assert all(task.done() for task in workers)


async def test_answers_that_nobody_takes_do_not_pile_up(client: AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "MAX_OPEN", 3)
    taken = 0

    async def asked() -> AsyncIterator[Question]:
        nonlocal taken
        while True:
            taken += 1
            yield Question(**ASK, function="echo", arguments={"value": taken}, organizations=("clara",))

    answers = client.tasks.run_many(asked())
    await anext(answers)
    for _ in range(3):  # meanwhile the others are answered
        other = await client.tasks.run(**ASK, function="echo", arguments={"value": 0}, organizations=["clara"])
        await other.result(timeout=30)
    assert taken <= 5  # one answer is taken, three wait, and one question for room
    for value in range(2, 12):
        assert (await anext(answers)).failure is None, value
    await answers.aclose()  # type: ignore[attr-defined]  # a generator


async def test_tasks_are_listed_by_what_they_are(client: AsyncClient) -> None:
    task = await client.tasks.run(**ASK, function="crash", organizations=["hilda"])
    await task.results(timeout=30)
    failed = [
        each async for each in client.tasks.list(collaboration="trial", states=[TaskState.FAILED], creator="rosa")
    ]
    assert task.name in {each.name for each in failed}
    assert {each.state for each in failed} == {TaskState.FAILED}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image": "registry.test/x:latest"}, Reason.IMAGE_NOT_BY_DIGEST),
        ({"arguments": {"value": float("nan")}}, Reason.ARGUMENTS_INVALID),
        ({"organizations": ["No Such"]}, Reason.INVALID_ARGUMENT),
        ({"organizations": []}, Reason.INVALID_ARGUMENT),
        ({"organizations": ["eve"]}, Reason.ORGANIZATION_NOT_MEMBER),
        ({"organizations": [], "targets": [Target("clara", node="hilda/hilda-1")]}, Reason.INVALID_ARGUMENT),
        ({"timeout": timedelta(days=400)}, Reason.INVALID_ARGUMENT),
        ({"arguments": Path("/nowhere/arguments.json")}, Reason.INVALID_ARGUMENT),
    ],
)
async def test_bad_questions_are_refused_at_once(client: AsyncClient, changes: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        await client.tasks.run(
            **{**ASK, "function": "echo", "arguments": {"value": 1}, "organizations": ["clara"], **changes}
        )
    assert caught.value.reason is reason


async def test_what_is_not_there(client: AsyncClient) -> None:
    with pytest.raises(NotFoundError):
        await client.tasks.attach(str(uuid.uuid4()))
    several = await client.tasks.run(**ASK, function="echo", arguments={"value": 1}, organizations=["clara", "hilda"])
    with pytest.raises(InvalidArgumentError, match="results"):
        await several.result()


async def test_the_ordinary_client_does_the_same(network: Installation) -> None:
    def program() -> None:
        with Client.connect(network.address, fingerprint=fingerprint(network.data)) as client:
            with pytest.raises(UnauthenticatedError, match="log in"):
                client.auth.whoami()
            client.auth.login(RESEARCHER, PASSWORD)
            task = client.tasks.run(**ASK, function="echo", arguments={"value": 1}, organizations=["clara"])
            assert isinstance(next(task.events()), TaskSnapshot)  # left early: the rest is not waited for
            assert task.result(timeout=30) == {"value": 1}
            questions = (
                Question(**ASK, function="echo", arguments={"value": number}, organizations=("clara",))
                for number in range(3)
            )
            assert sorted(answer.get()[0]["value"] for answer in client.tasks.run_many(questions)) == [0, 1, 2]
            assert [node.name for node in client.nodes.list(organization="clara")] == [
                "organizations/clara/nodes/clara-1"
            ]
        with pytest.raises(RuntimeError, match="closed"):
            client.auth.whoami()

    await asyncio.to_thread(program)


async def test_expired_tokens_are_renewed_once_for_all_that_wait(client: AsyncClient) -> None:
    credentials = client._caller.credentials
    before = await credentials._store.load()
    assert before is not None
    expired = replace(before, access_expires=before.access_expires - timedelta(days=1))
    await credentials.replace(expired)
    principals = await asyncio.gather(*(client.auth.whoami() for _ in range(20)))
    assert {each.name for each in principals} == {"users/rosa"}
    after = await credentials._store.load()
    assert after is not None
    assert after.refresh_token != before.refresh_token
    assert (await client.auth.whoami()).name == "users/rosa"


async def test_another_server_is_not_talked_to(network: Installation) -> None:
    other = AsyncClient(GrpcTransport(ServerAddress(network.address, fingerprint="sha256:" + "0" * 64)))
    with pytest.raises(UnauthenticatedError) as caught:
        await other.auth.server_info()
    assert caught.value.reason is Reason.SERVER_CERTIFICATE_MISMATCH
    await other.close()
