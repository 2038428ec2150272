"""Runs of a real agent against a scripted server: outcomes, refusals, cancel."""

from __future__ import annotations

import asyncio
import hashlib
import json

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common.backoff import Backoff
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, error
from vantage.node import config as node_config
from vantage.node import payloads as node_payloads
from vantage.node import runner
from vantage.node.connection import Connection
from vantage.node.door import StoredResult
from vantage.node.identity import Identity
from vantage.node.payloads import Payloads
from vantage.testing import inprocess
from vantage.testing.scripted_server import TIMEOUT, ScriptedServer, ScriptedSession
from vantage.testing.station import COLLABORATION, Station, assign, send


async def finish(session: ScriptedSession, message: pb.Assign) -> pb.Completed:
    send(session, message)
    await session.receive("accepted")
    await session.receive("started")
    return (await session.receive("completed")).completed


async def test_a_run_is_accepted_started_and_completed_with_its_result(station: Station) -> None:
    async with station.running():
        session = await station.session()
        assert [(each.name, each.format) for each in session.hello.datasets] == [("lung", "csv")]
        assert session.hello.slots == 2 + 4  # four wait here, and fetch their images meanwhile
        assert session.hello.executor == "process"  # without a sandbox, and says so
        message = assign("echo", '{"value": 7}')
        completed = await finish(session, message)
        assert completed.lease == message.lease
        assert json.loads(completed.result.inline) == {"value": 7}
        assert completed.result.digest == f"sha256:{hashlib.sha256(completed.result.inline).hexdigest()}"
        sequences = [each.sequence for each in session.received]
        assert sequences == sorted(set(sequences))
        assert min(sequences) > 0
        assert station.runs == []


async def test_a_function_reads_the_dataset_that_was_bound(station: Station) -> None:
    async with station.running():
        completed = await finish(await station.session(), assign("count", "{}", datasets={"table": "lung"}))
        assert json.loads(completed.result.inline) == {"rows": 3}


@pytest.mark.parametrize(
    ("message", "reason", "hint"),
    [
        (assign(collaboration="collaborations/other"), "COLLABORATION_NOT_SERVED", "collaborations/other"),
        (assign("count", "{}", datasets={"table": "heart"}), "DATASET_UNKNOWN", "it offers lung"),
        (assign("count", "{}"), "ARGUMENTS_INVALID", "bind one"),
        (assign("exec", "{}"), "FUNCTION_UNKNOWN", "it has count"),
        (assign("echo", '{"value": "seven"}'), "ARGUMENTS_INVALID", "argument value"),
        (assign("echo", '{"value": 1, "valeu": 7}'), "ARGUMENTS_INVALID", "valeu"),
        (assign("echo", "[]"), "ARGUMENTS_INVALID", "JSON object"),
        (assign("echo", "{"), "ARGUMENTS_INVALID", "not JSON"),
        (assign(image="registry.test/other@sha256:" + "b" * 64), "IMAGE_NOT_ALLOWED", "registry.test/other"),
        (assign(image="registry.test/algorithms/inprocess:latest"), "IMAGE_NOT_BY_DIGEST", "digest"),
    ],
)
async def test_what_is_not_allowed_is_refused_with_the_reason(
    station: Station, message: pb.Assign, reason: str, hint: str
) -> None:
    async with station.running():
        session = await station.session()
        send(session, message)
        refused = (await session.receive("refused")).refused
        assert refused.lease == message.lease
        assert refused.failure.reason == reason
        assert hint in refused.failure.message
        assert "seven" not in refused.failure.message
        await finish(session, assign())  # the node lives on


@pytest.mark.parametrize(
    ("function", "arguments", "reason", "hint"),
    [
        ("nothing", "{}", "NO_RESULT", "without an answer"),
        ("crash", "{}", "ALGORITHM_CRASHED", "exit status 1"),
        ("report", '{"reason": "TOO_FEW_RECORDS"}', "TOO_FEW_RECORDS", "too few rows"),
        ("report", '{"reason": "IMAGE_UNSIGNED"}', "ALGORITHM_FAILED", "too few rows"),
        ("large", '{"size": 70000}', "RESULT_TOO_LARGE", "at most 65536"),
    ],
)
async def test_a_run_that_fails_says_why(
    station: Station, function: str, arguments: str, reason: str, hint: str
) -> None:
    station.settings["limits"] = {"max_result_bytes": 65536}
    async with station.running():
        session = await station.session()
        completed = await finish(session, assign(function, arguments))
        assert completed.failure.reason == reason
        assert hint in completed.failure.message
        assert "secret" not in completed.failure.message  # logs are not allowed by default
        await finish(session, assign())
        assert station.runs == []


async def test_messages_of_authors_and_logs_leave_only_when_allowed(station: Station) -> None:
    station.settings["policy"] = {"allow_messages": False, "allow_logs": True}
    async with station.running():
        session = await station.session()
        completed = await finish(session, assign("report", '{"reason": "TOO_FEW_RECORDS"}'))
        assert "withheld" in completed.failure.message
        completed = await finish(session, assign("crash", "{}"))
        assert "secret value 42" in completed.failure.message


async def test_a_flood_of_lines_is_bounded_and_counted(station: Station) -> None:
    station.settings["policy"] = {"allow_logs": True}
    station.settings["limits"] = {"max_log_lines": 500}
    async with station.running():
        session = await station.session()
        await finish(session, assign("talk", '{"lines": 50000}'))
        messages = [each.log_lines for each in session.received if each.HasField("log_lines")]
        progress = [each for each in session.received if each.HasField("progress")]
        lines = [line for each in messages for line in each.lines]
        assert lines == [f"line {number}" for number in range(len(lines))]
        assert 0 < len(lines) <= 500
        assert sum(each.dropped_lines for each in messages) > 40_000
        assert len(messages) + len(progress) < 100


async def test_lines_and_progress_stay_when_the_policy_says_so(station: Station) -> None:
    station.settings["policy"] = {"allow_progress": False}
    async with station.running():
        session = await station.session()
        await finish(session, assign("talk", '{"lines": 10}'))
        await finish(session, assign())
        kinds = {each.WhichOneof("message") for each in session.received}
        assert kinds == {"accepted", "started", "completed"}


async def test_cancel_stops_the_run_and_leaves_nothing(station: Station) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign("hold", '{"gate": "a"}'))
        await inprocess.gates["a"].entered.wait()
        for _ in range(2):  # cancelling twice is harmless
            session.send(pb.ConnectResponse(cancel_run=pb.CancelRun(lease=lease, reason="TASK_CANCELLED")))
        await session.receive("accepted")
        await session.receive("started")
        completed = (await session.receive("completed")).completed
        assert completed.cancelled.reason == "TASK_CANCELLED"
        assert inprocess.gates["a"].left == "cancelled"
        assert station.runs == []
        await finish(session, assign())


async def test_a_run_ends_at_its_limit_of_time(station: Station) -> None:
    station.settings["limits"] = {"max_runtime": 3}
    async with station.running():
        session = await station.session()
        long = send(session, assign("hold", '{"gate": "a"}'))
        late = send(session, assign("hold", '{"gate": "b"}', seconds=2))
        failures: dict[str, types_pb2.Failure] = {}
        while len(failures) < 2:
            message = await session.receive("accepted", "started", "completed")
            if message.HasField("completed"):
                failures[message.completed.lease.run] = message.completed.failure
        assert failures[long.run].reason == "RUNTIME_EXCEEDED"
        assert "longer than the node allows" in failures[long.run].message
        assert failures[late.run].reason == "TASK_EXPIRED"
        assert {gate.left for gate in inprocess.gates.values()} == {"cancelled"}


async def test_more_runs_than_slots_wait_for_their_turn(station: Station) -> None:
    async with station.running():
        session = await station.session()
        for gate in "abc":
            send(session, assign("hold", json.dumps({"gate": gate})))
        await inprocess.gates["a"].entered.wait()
        await inprocess.gates["b"].entered.wait()
        assert not inprocess.gates["c"].entered.is_set()
        inprocess.gates["a"].leave.set()
        await inprocess.gates["c"].entered.wait()


async def test_a_server_that_sends_more_than_was_offered_is_not_obeyed(station: Station) -> None:
    station.settings |= {"slots": 1, "queue": 0}
    async with station.running():
        session = await station.session()
        leases = [send(session, assign("hold", json.dumps({"gate": gate}))) for gate in "ab"]
        for _ in range(3):
            await session.receive("accepted", "started")
        send(session, assign("hold", '{"gate": "c"}'))
        session.send(pb.ConnectResponse(cancel_run=pb.CancelRun(lease=leases[1])))
        await session.receive("completed")  # what came before was dealt with
        session.end()
        assert list((await station.session()).hello.leases) == leases


async def test_a_server_that_acknowledges_nothing_is_not_served_for_ever(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    station.settings |= {"slots": 1, "queue": 0}
    monkeypatch.setattr(runner, "MAX_UNTOLD", 3)
    async with station.running():
        session = await station.session()
        for _ in range(2):
            await finish(session, assign())
        send(session, assign("exec", "{}"))  # refusals count as well
        await session.receive("refused")
        send(session, assign("hold", '{"gate": "a"}'))
        session.end()
        session = await station.session()
        assert len(session.hello.leases) == 3
        said = session.receive("accepted", "started", "completed", "refused")  # again
        while (message := await said).WhichOneof("message") != "refused":
            said = session.receive("accepted", "started", "completed", "refused")
        session.acknowledge(message.sequence)
        await finish(session, assign())
        assert "a" not in inprocess.gates


async def test_a_large_result_is_uploaded_and_the_upload_goes_on_after_a_break(
    station: Station, server: ScriptedServer
) -> None:
    async with station.running():
        session = await station.session(max_inline=1000)
        server.script("UploadPayload", error(Reason.UNAVAILABLE, "cut"))
        completed = await finish(session, assign("large", '{"size": 300000}'))
        assert completed.HasField("result"), completed.failure
        assert server.uploads[completed.result.reference] == bytes(300_000)
        assert completed.result.size_bytes == 300_000
        offsets = [call.offset for call in server.calls["UploadPayload"]]  # type: ignore[attr-defined]
        assert offsets[0] == 0
        assert offsets[1] > 0


async def test_a_result_waits_no_longer_than_until_the_server_is_back(
    station: Station, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = asyncio.Event()

    class Endless(Backoff):
        def next_delay(self) -> float:
            waits.set()
            return 3600.0

    monkeypatch.setattr(node_payloads, "Backoff", Endless)
    async with station.running():
        session = await station.session(max_inline=1000)
        server.script("UploadPayload", error(Reason.UNAVAILABLE, "away"))
        send(session, assign("large", '{"size": 300000}'))
        async with asyncio.timeout(TIMEOUT):
            await waits.wait()
        session.end()
        session = await station.session(max_inline=1000)
        while not (message := await session.receive("accepted", "started", "completed")).HasField("completed"):
            pass
        assert server.uploads[message.completed.result.reference] == bytes(300_000)


async def test_bytes_wait_for_a_server_that_does_not_admit_the_node(station: Station, server: ScriptedServer) -> None:
    config = node_config.load(station.write())
    connection = Connection(config.server, Identity.load(config.identity, SystemClock()), SystemClock())
    payloads = Payloads(connection)
    content = b"x" * 2000
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    server.token_seconds = 0
    server.script("ExchangeAssertion", error(Reason.PRINCIPAL_UNKNOWN, "not created yet"))
    result = StoredResult("text/plain", content, len(content), digest)
    stored = await payloads.upload(result, "key", sealed=False)
    assert server.uploads[stored.reference] == content
    server.downloads = {stored.reference: content}
    server.script("ExchangeAssertion", error(Reason.PRINCIPAL_UNKNOWN, "deleted for a moment"))
    assert await payloads.read(stored, len(content)) == content
    await connection.close()


async def test_arguments_by_reference_are_fetched_and_checked(station: Station, server: ScriptedServer) -> None:
    content = json.dumps({"value": 1, "padding": "x" * 5000}).encode()
    small = b'{"value": 3}' + b" " * 3000
    server.downloads = {"payloads/a": content, "payloads/b": small}
    async with station.running():
        session = await station.session()
        message = assign()
        payload = message.spec.targets[0].arguments
        payload.reference, payload.digest = "payloads/b", f"sha256:{hashlib.sha256(small).hexdigest()}"
        server.script("DownloadPayload", error(Reason.UNAVAILABLE, "cut"))
        completed = await finish(session, message)
        assert json.loads(completed.result.inline) == {"value": 3}
        assert [call.offset for call in server.calls["DownloadPayload"]] == [0, 1000]  # type: ignore[attr-defined]

        message = assign()
        payload = message.spec.targets[0].arguments
        payload.reference, payload.digest = "payloads/a", f"sha256:{'0' * 64}"
        send(session, message)
        assert (await session.receive("refused")).refused.failure.reason == "PAYLOAD_DIGEST_MISMATCH"


async def test_policy_of_who_may_ask(station: Station) -> None:
    station.settings["policy"] = {
        "organizations": ["dora"],
        "users": ["alice"],
        "nodes": ["organizations/dora/nodes/d1"],
    }
    async with station.running():
        session = await station.session()
        await finish(session, assign())
        await finish(session, assign(creator="organizations/dora/nodes/d1"))
        for change in (
            {"creator": "users/bob"},
            {"creator_organization": "organizations/eve"},
            {"creator": "organizations/dora/nodes/d2"},
        ):
            send(session, assign(**change))  # type: ignore[arg-type]
            assert (await session.receive("refused")).refused.failure.reason == "POLICY_REFUSED"


async def test_a_dataset_serves_only_its_collaborations(station: Station) -> None:
    station.settings["datasets"][0]["collaborations"] = ["elsewhere"]
    async with station.running():
        session = await station.session()
        send(session, assign("count", "{}", datasets={"table": "lung"}))
        failure = (await session.receive("refused")).refused.failure
        assert failure.reason == "DATASET_UNKNOWN"
        assert COLLABORATION in failure.message
