"""Subtasks of a run, through a scripted server that loses connections."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import sqlite3
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import audit, dsse
from vantage.common.argument_files import MEDIA_TYPE, Archive, ArgumentFile
from vantage.common.clock import ManualClock, SystemClock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.names import new_id
from vantage.common.trust import TrustStore
from vantage.node import config as node_config
from vantage.node import subtasks as subtasks_module
from vantage.node.answers import Answers
from vantage.node.audit import NodeAudit
from vantage.node.connection import Connection
from vantage.node.door import RunContext, StoredResult
from vantage.node.identity import Identity
from vantage.node.journal import Journal
from vantage.node.payloads import Payloads
from vantage.node.questions import Questions
from vantage.node.release.approvals import Approvals, attempt_of
from vantage.node.release.consent import Consent
from vantage.node.release.terms import Terms
from vantage.node.seal_keys import SealKeys
from vantage.node.sealed import Sealer
from vantage.node.staging import Staging
from vantage.node.subtask_orders import SubtaskOrders
from vantage.node.subtasks import Subtasks
from vantage.testing.scripted_server import ScriptedServer
from vantage.testing.station import COLLABORATION, IMAGE, NODE, ORGANIZATION, Station

TASK = f"tasks/{new_id()}"
RUN = f"{TASK}/runs/{new_id()}"
UPLOAD = "payloads/of-dora"
CONTENT = b"0123456789" * 500
MAX_BYTES = 10_000
NOTHING = Staging(Path("nowhere"), 0)


def context(minutes: float = 10) -> RunContext:
    return RunContext(
        run=f"tasks/{new_id()}/runs/{new_id()}",
        function="central",
        organization=ORGANIZATION,
        collaboration=COLLABORATION,
        organizations=(ORGANIZATION,),
        datasets=(),
        arguments=b"{}",
        arguments_media_type="application/json",
        max_result_bytes=1000,
        deadline=datetime.now(UTC) + timedelta(minutes=minutes),
        image=IMAGE,
        token="t",
    )


def question(**fields: object) -> algorithm_pb.RunSubtaskRequest:
    return algorithm_pb.RunSubtaskRequest(
        request_id=str(uuid.uuid4()),
        function="partial",
        targets=[task_pb2.Target(organization="organizations/dora")],
        **fields,  # type: ignore[arg-type]
    )


def event(sequence: int, kind: str) -> task_pb2.TaskEvent:
    message = task_pb2.TaskEvent(sequence=sequence)
    if kind == "snapshot":
        message.snapshot.task.name = TASK
    getattr(message, kind).SetInParent()
    return message


def ended_snapshot(sequence: int) -> task_pb2.TaskEvent:
    message = event(sequence, "snapshot")
    message.snapshot.task.state = task_pb2.TASK_STATE_SUCCEEDED
    return message


def run_events(*events: tuple[int, str]) -> list[object]:
    return [task_service_pb2.RunTaskResponse(event=event(*each)) for each in events]


def watch_events(*events: tuple[int, str]) -> list[object]:
    return [task_service_pb2.WatchTaskResponse(event=event(*each)) for each in events]


def secrecy(connection: Connection, station: Station) -> tuple[SubtaskOrders, Answers]:
    keys = SealKeys(station.directory / "data", SystemClock())
    sealer = Sealer(lambda: keys.identities)
    certify = TrustStore(station.directory / "data").certify
    payloads = Payloads(connection)
    orders = SubtaskOrders(connection, certify, sealer, payloads, SystemClock())
    return orders, Answers(certify, sealer, payloads, MAX_BYTES)


@asynccontextmanager
async def opened(station: Station, say: Callable[[str], None]) -> AsyncGenerator[tuple[Subtasks, Approvals], None]:
    config = node_config.load(station.write())
    identity = Identity.load(config.identity, SystemClock())
    connection = Connection(config.server, identity, SystemClock())
    noted = NodeAudit(station.directory / "audit.log", identity.key, SystemClock())
    path = station.directory / "journal.db"
    journal = await Journal.open(path)
    questions = await Questions.open(journal, path)
    approvals = await Approvals.open(journal, path, noted, SystemClock(), say)
    consent = Consent(NODE, approvals, SystemClock())
    orders, answers = secrecy(connection, station)
    yield Subtasks(connection, orders, answers, noted, questions, consent, SystemClock()), approvals
    await journal.close()
    await noted.close()
    await connection.close()


@pytest.fixture
async def subtasks(station: Station) -> AsyncIterator[Subtasks]:
    async with opened(station, print) as (made, _approvals):
        yield made


async def collect(
    subtasks: Subtasks,
    run: RunContext,
    request: algorithm_pb.RunSubtaskRequest,
    staging: Staging = NOTHING,
) -> list[tuple[int, str]]:
    async with asyncio.timeout(20):
        return [(each.sequence, each.WhichOneof("event") or "") async for each in subtasks.run(run, request, staging)]


async def chunks(*contents: bytes) -> AsyncIterator[bytes]:
    for each in contents:
        yield each


def names(stored: StoredResult, *organizations: str) -> algorithm_pb.RunSubtaskRequest:
    """A question with staged arguments."""
    arguments = types_pb2.Payload(media_type=stored.media_type, digest=stored.digest)
    targets = [task_pb2.Target(organization=f"organizations/{each}", arguments=arguments) for each in organizations]
    return algorithm_pb.RunSubtaskRequest(request_id=str(uuid.uuid4()), function="partial", targets=targets)


async def test_a_subtask_has_image_collaboration_and_parent_of_its_run(
    subtasks: Subtasks, server: ScriptedServer
) -> None:
    server.script("RunTask", run_events((1, "snapshot"), (2, "run_finished"), (3, "task_finished")))
    run = context(minutes=10)
    request = question(title="part")
    assert await collect(subtasks, run, request) == [(1, "snapshot"), (2, "run_finished"), (3, "task_finished")]
    sent = cast(task_service_pb2.RunTaskRequest, server.calls["RunTask"][0])
    assert sent.request_id != request.request_id
    assert sent.spec.parent_run == run.run
    assert sent.spec.image == IMAGE
    assert sent.spec.collaboration == COLLABORATION
    assert sent.spec.targets == request.targets
    assert 590 < sent.spec.timeout.seconds <= 600


async def test_a_lost_connection_is_not_noticed(subtasks: Subtasks, server: ScriptedServer) -> None:
    cut = error(Reason.UNAVAILABLE, "cut")
    server.script("RunTask", [cut], [*run_events((2, "snapshot"), (3, "run_changed")), cut])
    server.script(
        "WatchTask",
        [*watch_events((5, "snapshot"), (4, "run_finished")), cut],
        watch_events((6, "snapshot"), (5, "run_finished"), (6, "task_finished")),
    )
    events = await collect(subtasks, context(), question())
    assert events == [
        (2, "snapshot"),
        (3, "run_changed"),
        (4, "run_finished"),
        (5, "run_finished"),
        (6, "task_finished"),
    ]
    ids = {cast(task_service_pb2.RunTaskRequest, call).request_id for call in server.calls["RunTask"]}
    assert len(ids) == 1
    watched = [cast(task_service_pb2.WatchTaskRequest, call) for call in server.calls["WatchTask"]]
    assert [(each.name, each.after_sequence) for each in watched] == [(TASK, 3), (TASK, 4)]


async def test_an_algorithm_attaches_again_after_the_event_that_it_has(
    subtasks: Subtasks, server: ScriptedServer
) -> None:
    server.script("CreateTask", task_service_pb2.CreateTaskResponse(task=task_pb2.Task(name=TASK)))
    server.script("WatchTask", watch_events((8, "snapshot"), (8, "task_finished")))
    assert await collect(subtasks, context(), question(after_sequence=7)) == [(8, "task_finished")]
    assert cast(task_service_pb2.WatchTaskRequest, server.calls["WatchTask"][0]).after_sequence == 7


async def test_a_refusal_reaches_the_algorithm(subtasks: Subtasks, server: ScriptedServer) -> None:
    server.script("RunTask", error(Reason.ORGANIZATION_NOT_MEMBER, "organizations/dora is no member"))
    with pytest.raises(VantageError, match="no member"):
        await collect(subtasks, context(), question())


async def test_two_runs_cannot_meet_by_choosing_the_same_id(subtasks: Subtasks, server: ScriptedServer) -> None:
    request = question()
    for _ in range(2):
        server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
        await collect(subtasks, context(), request)
    first, second = (cast(task_service_pb2.RunTaskRequest, call) for call in server.calls["RunTask"])
    assert first.request_id != second.request_id


async def test_a_subtask_lives_no_longer_than_its_run(subtasks: Subtasks, monkeypatch: pytest.MonkeyPatch) -> None:
    request = question()
    request.timeout.FromSeconds(3600)
    monkeypatch.setattr(subtasks, "_clock", ManualClock(datetime.now(UTC) + timedelta(hours=1)))
    with pytest.raises(VantageError, match="no time left"):
        async with aclosing(subtasks.run(context(), request, NOTHING)) as events:
            await anext(events)


async def test_two_calls_with_one_id_ask_the_same(subtasks: Subtasks, server: ScriptedServer) -> None:
    for _ in range(2):
        server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    run, request = context(), question()
    first = subtasks.run(run, request, NOTHING)
    second = subtasks.run(run, request, NOTHING)
    async with asyncio.timeout(20), aclosing(first), aclosing(second):
        await asyncio.gather(anext(first), anext(second))
    # The time that is left, as it was when the question was made, is part of it.
    sent = server.calls["RunTask"]
    assert len(sent) == 2
    assert sent[0] == sent[1]


async def test_who_comes_later_attaches_to_what_there_is(subtasks: Subtasks, server: ScriptedServer) -> None:
    run, request = context(), question()
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    await collect(subtasks, run, request)
    server.script("WatchTask", [task_service_pb2.WatchTaskResponse(event=ended_snapshot(2))])
    assert await collect(subtasks, run, request) == [(2, "snapshot")]
    watched = cast(task_service_pb2.WatchTaskRequest, server.calls["WatchTask"][0])
    assert (watched.name, watched.after_sequence) == (TASK, 0)
    assert len(server.calls["RunTask"]) == 1


async def test_a_subtask_that_ended_meanwhile_is_over(subtasks: Subtasks, server: ScriptedServer) -> None:
    cut = error(Reason.UNAVAILABLE, "cut")
    server.script("RunTask", [cut], [task_service_pb2.RunTaskResponse(event=ended_snapshot(5))])
    assert await collect(subtasks, context(), question()) == [(5, "snapshot")]


async def test_the_end_follows_the_snapshot_for_who_missed_it(subtasks: Subtasks, server: ScriptedServer) -> None:
    cut = error(Reason.UNAVAILABLE, "cut")
    server.script("RunTask", [*run_events((1, "snapshot")), cut])
    server.script(
        "WatchTask",
        [
            task_service_pb2.WatchTaskResponse(event=ended_snapshot(3)),
            *watch_events((2, "run_finished"), (3, "task_finished")),
        ],
    )
    events = await collect(subtasks, context(), question())
    assert events == [(1, "snapshot"), (2, "run_finished"), (3, "task_finished")]


async def test_what_was_refused_takes_no_room(
    subtasks: Subtasks, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subtasks_module, "MAX_SUBTASKS", 1)
    run = context()
    for _ in range(2):
        server.script("RunTask", error(Reason.ORGANIZATION_NOT_MEMBER, "organizations/dora is no member"))
        with pytest.raises(VantageError, match="no member"):
            await collect(subtasks, run, question())
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    await collect(subtasks, run, question())
    with pytest.raises(VantageError) as caught:
        await collect(subtasks, run, question())
    assert caught.value.reason is Reason.TOO_MANY_SUBTASKS
    assert len(server.calls["RunTask"]) == 3
    subtasks.forget(run.run, run.attempt)
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    await collect(subtasks, run, question())


async def test_what_is_refused_cannot_be_asked_for_ever(
    subtasks: Subtasks, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subtasks_module, "MAX_ASKED", 2)
    run = context()
    server.script("RunTask", *[error(Reason.ORGANIZATION_NOT_MEMBER, "organizations/dora is no member")] * 2)
    for reason in (Reason.ORGANIZATION_NOT_MEMBER, Reason.ORGANIZATION_NOT_MEMBER, Reason.TOO_MANY_SUBTASKS):
        with pytest.raises(VantageError) as caught:
            await collect(subtasks, run, question())
        assert caught.value.reason is reason
    assert len(server.calls["RunTask"]) == 2


async def test_an_attempt_that_ends_leaves_the_questions_of_the_next_alone(
    subtasks: Subtasks, server: ScriptedServer
) -> None:
    """A server that took a run away may give it back before the attempt before has ended."""
    request = question()
    old, new = (dataclasses.replace(context(), run="tasks/t/runs/r", attempt=each) for each in (1, 2))
    for run in (old, new):
        server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
        await collect(subtasks, run, request)
    first, second = (cast(task_service_pb2.RunTaskRequest, call) for call in server.calls["RunTask"])
    assert first.request_id != second.request_id
    subtasks.forget(old.run, old.attempt)
    server.script("WatchTask", [task_service_pb2.WatchTaskResponse(event=ended_snapshot(2))])
    assert await collect(subtasks, new, request) == [(2, "snapshot")]


async def test_an_unclear_end_is_followed_by_the_same_question(subtasks: Subtasks, server: ScriptedServer) -> None:
    run, request = context(), question()
    server.script("RunTask", error(Reason.INTERNAL, "cut in the middle"))
    with pytest.raises(VantageError, match="in the middle"):
        await collect(subtasks, run, request)
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    await collect(subtasks, run, request)
    first, second = server.calls["RunTask"]
    assert first == second


async def test_arguments_are_in_the_audit_log_before_they_leave(
    station: Station, subtasks: Subtasks, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, request = context(), question()
    content = b'{"secret": 31337}'
    request.targets[0].arguments.CopyFrom(types_pb2.Payload(media_type="application/json", inline=content, digest="d"))
    request.targets[0].datasets.add(parameter="df", dataset="lung")
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    path = station.directory / "audit.log"
    async with asyncio.timeout(20), aclosing(subtasks.run(run, request, NOTHING)) as events:
        await anext(events)
        (line,) = audit.records(path)
    assert line["event"] == "run.subtask"
    assert (line["run"], line["function"]) == (run.run, "partial")
    assert (line["organization"], line["datasets"]) == ("organizations/dora", ["lung"])
    assert (line["arguments_digest"], line["arguments_bytes"]) == (dsse.digest_of(content), len(content))
    assert "31337" not in path.read_text()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(audit.AuditLog, "append_all", full)
    with pytest.raises(VantageError, match="audit log"):
        await collect(subtasks, run, question())
    assert len(server.calls["RunTask"]) == 1


async def test_arguments_leave_within_the_bounds_of_results(subtasks: Subtasks, server: ScriptedServer) -> None:
    run = dataclasses.replace(context(), terms=Terms(max_bytes=100))
    asked = question()
    asked.targets[0].arguments.inline = b"x" * 101
    with pytest.raises(VantageError, match="at most 100") as caught:
        await collect(subtasks, run, asked)
    assert caught.value.reason is Reason.RESULT_TOO_LARGE
    assert "RunTask" not in server.calls
    asked.targets[0].arguments.inline = b"x" * 100
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    assert len(await collect(subtasks, run, asked)) == 2


async def test_what_nobody_can_be_shown_does_not_leave(subtasks: Subtasks, server: ScriptedServer) -> None:
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    asked = question()
    asked.targets[0].MergeFromString(b"\xfa\x3e\x06Jansen")  # a field that no version has
    assert b"Jansen" in asked.SerializeToString()
    await collect(subtasks, context(), asked)
    assert b"Jansen" not in server.calls["RunTask"][0].SerializeToString()
    asked = question()
    asked.timeout.seconds = 2**62
    with pytest.raises(VantageError, match="time limit") as caught:
        await collect(subtasks, context(), asked)
    assert caught.value.reason is Reason.INVALID_ARGUMENT


async def test_arguments_wait_for_a_person_where_everything_that_leaves_does(
    station: Station, server: ScriptedServer
) -> None:
    said = asyncio.Queue[str]()
    async with opened(station, said.put_nowait) as (subtasks, approvals):
        run = dataclasses.replace(context(), terms=Terms(every_result=True))
        asked = question(title="of Jansen")
        asked.targets[0].arguments.inline = b'{"secret": 1}'
        asked.targets[0].arguments.media_type = "application/json; of=Visser"
        # Numbers are chosen by the algorithm, and may say something too.
        asked.timeout.seconds, asked.max_runtime.nanos = 1961, 1974
        asked.quorum, asked.max_attempts = 7331, 7332
        asked.on_failure, asked.detached = task_pb2.ON_FAILURE_CANCEL_REST, True
        waiting = asyncio.create_task(collect(subtasks, run, asked))
        name = (await said.get()).split()[-1]
        shown = await approvals.commands()["approvals.show"]({"id": name}, "me")
        for each in (
            *("secret", "organizations/dora", "of Jansen", "of=Visser"),
            *("1961s", "0.000001974s", "7331", "7332", "CANCEL_REST", "detached"),
        ):
            assert each in shown["preview"]
        file = Path(shown["file"])
        assert file.stat().st_mode & 0o777 == 0o600  # noqa: ASYNC240
        assert "RunTask" not in server.calls
        await approvals.decide(name, allow=False, told="not this", who="me")
        with pytest.raises(VantageError, match="not this") as caught:
            await waiting
        assert caught.value.reason is Reason.APPROVAL_DENIED
        server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
        asked.targets[0].arguments.inline = b'{"public": 1}'
        going = asyncio.create_task(collect(subtasks, run, asked))
        await approvals.decide((await said.get()).split()[-1], allow=True, told="", who="me")
        assert len(await going) == 2
        approvals.forget(attempt_of(run.run, run.attempt))
        assert not file.exists()  # noqa: ASYNC240


def large() -> task_pb2.Run:
    """A run without a signed order whose result does not fit into a message."""
    run = task_pb2.Run(name=RUN, organization="organizations/dora", state=task_pb2.RUN_STATE_SUCCEEDED)
    run.result.reference, run.result.media_type = UPLOAD, "application/octet-stream"
    run.result.size_bytes, run.result.digest = len(CONTENT), dsse.digest_of(CONTENT)
    return run


def answered_large(server: ScriptedServer) -> None:
    finished = task_pb2.TaskEvent(sequence=2, run_finished=task_pb2.RunFinished(run=large()))
    server.script(
        "RunTask", [task_service_pb2.RunTaskResponse(event=each) for each in (event(1, "snapshot"), finished)]
    )
    server.downloads[UPLOAD] = CONTENT


def told(*runs: task_pb2.Run) -> task_service_pb2.GetTaskResponse:
    return task_service_pb2.GetTaskResponse(task=task_pb2.Task(name=TASK, runs=runs))


async def test_a_large_answer_is_read_by_the_run_also_in_the_next_process(
    station: Station, server: ScriptedServer
) -> None:
    run, request = context(), question()
    cut = error(Reason.UNAVAILABLE, "cut")
    async with opened(station, print) as (subtasks, _approvals):
        answered_large(server)
        async with asyncio.timeout(20), aclosing(subtasks.run(run, request, NOTHING)) as events:
            finished = [await anext(events) for _ in range(2)][1].run_finished.run
        # The process may end here, before the next commit: of what it has announced it must be known what it is.
        questions = sqlite3.connect(station.directory / "journal.db")
        assert questions.execute("SELECT name FROM question").fetchall() == [(TASK,)]
        questions.close()
        assert (finished.result.reference, finished.result.size_bytes) == (RUN, len(CONTENT))
        server.script("GetTask", cut, told(large()))
        server.script("DownloadPayload", cut)
        file = io.BytesIO()
        await subtasks.read(run, RUN, file)
        assert file.getvalue() == CONTENT


async def test_only_answers_to_own_subtasks_are_read(subtasks: Subtasks, server: ScriptedServer) -> None:
    run = dataclasses.replace(context(), run="tasks/t/runs/r", attempt=1)
    answered_large(server)
    async with asyncio.timeout(20), aclosing(subtasks.run(run, question(), NOTHING)) as events:
        [await anext(events) for _ in range(2)]
    other = f"{TASK}/runs/{new_id()}"
    for who, name in (
        (context(), RUN),
        (dataclasses.replace(run, attempt=2), RUN),
        *((run, name) for name in ("", "/runs/", f"{TASK}x/runs/r", f"../{RUN}", run.run, UPLOAD)),
    ):
        with pytest.raises(VantageError) as caught:
            await subtasks.read(who, name, io.BytesIO())
        assert caught.value.reason is Reason.NOT_FOUND
    assert "GetTask" not in server.calls
    unfinished = large()
    unfinished.state = task_pb2.RUN_STATE_RUNNING
    for name, answer in ((other, told(large())), (TASK, told(large())), (RUN, told(unfinished)), (RUN, told())):
        server.script("GetTask", answer)
        with pytest.raises(VantageError) as caught:
            await subtasks.read(run, name, io.BytesIO())
        assert caught.value.reason is Reason.NOT_FOUND
    endless = large()
    endless.result.size_bytes = 1
    server.downloads[UPLOAD] = b"x" * (MAX_BYTES + 1)
    server.script("GetTask", told(endless))
    with pytest.raises(VantageError, match=r"limits\.max_input_bytes") as caught:
        await subtasks.read(run, RUN, io.BytesIO())
    assert caught.value.reason is Reason.PAYLOAD_TOO_LARGE


async def test_staged_arguments_are_uploaded_once_and_are_in_the_audit_log_before(
    station: Station, subtasks: Subtasks, server: ScriptedServer, tmp_path: Path
) -> None:
    staging = Staging(tmp_path / "staged", 10_000)
    stored = await staging.take("application/json", chunks(b'{"secret": 3', b"1337}"))
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    request = names(stored, "dora", "hilda")
    await collect(subtasks, context(), request, staging)
    (reference,) = server.uploads
    assert server.uploads[reference] == b'{"secret": 31337}'
    (sent,) = (cast(task_service_pb2.RunTaskRequest, call) for call in server.calls["RunTask"])
    assert {(each.arguments.reference, each.arguments.digest) for each in sent.spec.targets} == {
        (reference, stored.digest)
    }
    lines = audit.records(station.directory / "audit.log")
    assert [(each["organization"], each["arguments_digest"], each["arguments_bytes"]) for each in lines] == [
        (f"organizations/{each}", stored.digest, 17) for each in ("dora", "hilda")
    ]


async def test_what_was_not_staged_does_not_leave_and_may_be_asked_again(
    subtasks: Subtasks, server: ScriptedServer, tmp_path: Path
) -> None:
    run, staging = context(), Staging(tmp_path / "staged", 10_000)
    stored = await Staging(tmp_path / "other", 10_000).take("application/json", chunks(b"{}"))
    request = names(stored, "dora")
    with pytest.raises(VantageError) as caught:
        await collect(subtasks, run, request, staging)
    assert caught.value.reason is Reason.ARGUMENTS_NOT_STAGED
    assert "RunTask" not in server.calls
    await staging.take("application/json", chunks(b"{}"))
    server.script("RunTask", run_events((1, "snapshot"), (2, "task_finished")))
    assert len(await collect(subtasks, run, request, staging)) == 2


async def test_staged_arguments_leave_within_the_bounds_of_results(
    subtasks: Subtasks, server: ScriptedServer, tmp_path: Path
) -> None:
    staging = Staging(tmp_path / "staged", 10_000)
    stored = await staging.take("application/json", chunks(b"x" * 101))
    request = names(stored, "dora")
    with pytest.raises(VantageError, match="at most 100") as caught:
        await collect(subtasks, dataclasses.replace(context(), terms=Terms(max_bytes=100)), request, staging)
    assert caught.value.reason is Reason.RESULT_TOO_LARGE
    assert not server.uploads


async def test_people_are_shown_what_is_in_staged_arguments(
    station: Station, server: ScriptedServer, tmp_path: Path
) -> None:
    said = asyncio.Queue[str]()
    staging = Staging(tmp_path / "staged", 10_000)
    (tmp_path / "model.bin").write_bytes(b"weights")
    with Archive(b'{"secret": 1}', [ArgumentFile("model", tmp_path / "model.bin")]).open() as stream:
        stored = await staging.take(MEDIA_TYPE, chunks(stream.read()))
    async with opened(station, said.put_nowait) as (subtasks, approvals):
        run = dataclasses.replace(context(), terms=Terms(every_result=True))
        waiting = asyncio.create_task(collect(subtasks, run, names(stored, "dora"), staging))
        name = (await said.get()).split()[-1]
        shown = json.loads((await approvals.commands()["approvals.show"]({"id": name}, "me"))["preview"])
        assert shown["staged"] == [
            {
                "digest": stored.digest,
                "size_bytes": stored.size,
                "file": str(stored.content),
                "files": [{"name": "model.bin", "size_bytes": 7}],
                "arguments": '{"secret": 1}',
            }
        ]
        assert shown["targets"][0]["arguments"]["digest"] == stored.digest
        # It waits for as long as people think; what comes meanwhile does not push it out.
        with pytest.raises(VantageError, match="ask those first"):
            await staging.take("application/json", chunks(b"x" * 9_000))
        assert not server.uploads
        await approvals.decide(name, allow=False, told="not this", who="me")
        with pytest.raises(VantageError, match="not this"):
            await waiting
    assert not server.uploads


async def test_staged_arguments_are_there_still_when_they_must_be_made_anew(
    subtasks: Subtasks, server: ScriptedServer, tmp_path: Path
) -> None:
    staging = Staging(tmp_path / "staged", 10_000)
    stored = await staging.take("application/json", chunks(b"{}"))
    server.script("RunTask", error(Reason.KEYS_STALE, "new keys"), run_events((1, "snapshot"), (2, "task_finished")))
    assert len(await collect(subtasks, context(), names(stored, "dora"), staging)) == 2
    first, second = (cast(task_service_pb2.RunTaskRequest, call) for call in server.calls["RunTask"])
    assert first.request_id == second.request_id
    assert second.spec.targets[0].arguments.reference in server.uploads
    assert len(server.uploads) == 1
