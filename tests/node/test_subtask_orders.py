"""What leaves a node in a subtask, and what its algorithm gets back from a server that lies."""

from __future__ import annotations

import io
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.identity.v1 import key_service_pb2 as key_pb
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import dsse, pki, sealing
from vantage.common.attestation import KEYS_LIFETIME, sign_keys, sign_result
from vantage.common.bound_arguments import arguments_of
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.names import new_id
from vantage.common.orders import VerifiedOrder, order_digest, sign_order
from vantage.common.statements import (
    Content,
    Delegation,
    KeyBundle,
    Order,
    OrderTarget,
    Parent,
    ResultFailure,
    ResultStatement,
)
from vantage.common.trust import TrustStore
from vantage.node import answers as answers_module
from vantage.node import config as node_config
from vantage.node.answers import Answers
from vantage.node.connection import Connection
from vantage.node.door import RunContext
from vantage.node.identity import Identity
from vantage.node.orders import GivenOrder
from vantage.node.payloads import Payloads
from vantage.node.seal_keys import SealKeys
from vantage.node.sealed import Sealer
from vantage.node.staging import Staging
from vantage.node.subtask_orders import SubtaskOrders
from vantage.testing.scripted_server import ScriptedServer
from vantage.testing.station import COLLABORATION, IMAGE, NODE, ORGANIZATION, Station

DORA = "organizations/dora"
DORAS = f"{DORA}/nodes/dora-1"
TASK = f"tasks/{new_id()}"
RUN = f"{TASK}/runs/{new_id()}"
MAX_BYTES = 1000
UPLOAD = "payloads/of-dora"


class Sides:
    """The station's node, which asks, and dora's, which answers."""

    def __init__(self, station: Station, directory: Path) -> None:
        config = node_config.load(station.write())
        self.connection = Connection(config.server, Identity.load(config.identity, SystemClock()), SystemClock())
        self.keys = SealKeys(station.directory / "data", SystemClock())
        trust = TrustStore(station.directory / "data" / "trust")
        authority = pki.CertificateAuthority.create(directory / "dora", DORA)
        trust.pin(DORA, authority.certificate)
        self.key = pki.create_key()
        self.chain = (authority.issue(DORAS, self.key.public_key()),)
        sealer = Sealer(lambda: self.keys.identities)
        payloads = Payloads(self.connection)
        self.orders = SubtaskOrders(self.connection, trust.certify, sealer, payloads, SystemClock())
        self.answers = Answers(trust.certify, sealer, payloads, MAX_BYTES)
        self.identity = sealing.create_identity()
        self.content = sealing.seal(b'{"rows": 3}', (sealing.recipient_of(self.identity),)).content

    def sent(self) -> task_pb2.TaskSpec:
        """A subtask that asks dora."""
        order = _order(NODE, (DORA,), parent=Parent(order="sha256:" + "0" * 64, run=RUN))
        key, chain = self.connection.identity.key, self.connection.identity.chain
        return task_pb2.TaskSpec(order=sign_order(order, key, chain), targets=[task_pb2.Target(organization=DORA)])

    def answered(self, spec: task_pb2.TaskSpec, **changes: object) -> task_pb2.Run:
        """Its run, as dora's node has signed it."""
        fields: dict[str, object] = {
            "order": dsse.digest_of(dsse.peek(spec.order)),
            "run": RUN,
            "node": DORAS,
            "outcome": "succeeded",
            "result": Content(
                digest=dsse.digest_of(self.content), size=len(self.content), media_type="application/json"
            ),
            "finished": datetime.now(UTC),
        }
        statement = sign_result(ResultStatement.model_validate(fields | changes), self.key, self.chain)
        run = task_pb2.Run(
            name=RUN, organization=DORA, state=task_pb2.RUN_STATE_SUCCEEDED, node=DORAS, statement=statement
        )
        run.result.CopyFrom(
            types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_AGE_V1, inline=self.content)
        )
        return run


def _order(requester: str, organizations: tuple[str, ...], **changes: object) -> Order:
    now = datetime.now(UTC)
    fields: dict[str, object] = {
        "id": str(uuid.uuid4()),
        "requester": requester,
        "collaboration": COLLABORATION,
        "image": IMAGE,
        "function": "central",
        "targets": tuple(OrderTarget(organization=each) for each in organizations),
        "recipients": (sealing.recipient_of(sealing.create_identity()),),
        "created": now,
        "expires": now + timedelta(hours=1),
    }
    return Order.model_validate(fields | changes)


def given(**changes: object) -> GivenOrder:
    """An order of a researcher that the run obeys."""
    delegation = Delegation(
        organizations=(ORGANIZATION, DORA), functions=("partial",), datasets=("lung",), max_tasks=10, max_depth=1
    )
    order = _order(f"{DORA}/users/alice", (ORGANIZATION,), delegation=delegation, **changes)
    digest = order_digest(order)
    return GivenOrder(
        VerifiedOrder(order, digest, DORA, digest, order.requester, order.expires, (digest,), 0, frozenset()), ()
    )


def context(order: GivenOrder) -> RunContext:
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
        deadline=datetime.now(UTC) + timedelta(minutes=10),
        image=IMAGE,
        token="t",
        order=order,
    )


@pytest.fixture
async def sides(station: Station, tmp_path: Path) -> AsyncIterator[Sides]:
    made = Sides(station, tmp_path)
    yield made
    await made.connection.close()


def question(organization: str = DORA, function: str = "partial", node: str = "") -> algorithm_pb.RunSubtaskRequest:
    request = algorithm_pb.RunSubtaskRequest(request_id=str(uuid.uuid4()), function=function)
    arguments = types_pb2.Payload(media_type="application/json", inline=b'{"secret": 1}')
    request.targets.add(organization=organization, node=node, arguments=arguments)
    return request


async def nothing_leaves(_: Iterable[task_pb2.Target]) -> None:
    """See ``Leaves``."""


def other_dataset() -> algorithm_pb.RunSubtaskRequest:
    request = question()
    request.targets[0].datasets.add(parameter="df", dataset="liver")
    return request


@pytest.mark.parametrize(
    "request_",
    [
        question("organizations/mallory"),
        question(function="central"),
        question(node="organizations/mallory/nodes/mallory-1"),
        other_dataset(),
    ],
)
async def test_nothing_is_sealed_to_whom_the_order_does_not_name(
    sides: Sides, server: ScriptedServer, request_: algorithm_pb.RunSubtaskRequest
) -> None:
    order = given()
    with pytest.raises(VantageError) as caught:
        await sides.orders.spec(context(order), order, request_, timedelta(minutes=5), nothing_leaves, sides.identity)
    assert caught.value.reason is Reason.ORDER_EXCEEDS_PARENT
    assert not server.calls["ListNodeKeys"]


async def test_rubbish_of_an_algorithm_is_called_that(sides: Sides) -> None:
    order = given()
    with pytest.raises(VantageError) as caught:
        await sides.orders.spec(
            context(order), order, question(function="f" * 1000), timedelta(minutes=5), nothing_leaves, sides.identity
        )
    assert caught.value.reason is Reason.INVALID_ARGUMENT


async def test_a_subtask_hands_the_limit_of_time_on(sides: Sides) -> None:
    order = given(max_runtime=60)
    request = question()
    request.targets[0].ClearField("arguments")
    spec = await sides.orders.spec(context(order), order, request, timedelta(minutes=5), nothing_leaves, sides.identity)
    order_ = Order.decode(dsse.peek(spec.order))
    assert order_.max_runtime == 60
    assert order_.recipients == (sealing.recipient_of(sides.identity),)


@pytest.mark.parametrize(("above", "wanted", "signed"), [(60, 30, 30), (60, 90, 60), (None, 30, 30)])
async def test_a_subtask_may_take_less_time_than_its_parent_and_no_more(
    sides: Sides, above: int | None, wanted: int, signed: int
) -> None:
    order = given(max_runtime=above)
    request = question()
    request.quorum, request.on_failure = 1, task_pb2.ON_FAILURE_CANCEL_REST
    request.max_attempts, request.detached = 2, True
    request.max_runtime.FromSeconds(wanted)
    request.targets[0].ClearField("arguments")
    spec = await sides.orders.spec(context(order), order, request, timedelta(minutes=5), nothing_leaves, sides.identity)
    assert Order.decode(dsse.peek(spec.order)).max_runtime == signed
    # Decided by the server, and not signed: passed on as the algorithm says.
    assert (spec.quorum, spec.max_attempts, spec.detached) == (1, 2, True)
    assert spec.on_failure == task_pb2.ON_FAILURE_CANCEL_REST


async def test_what_leaves_is_told_before_it_does(sides: Sides, server: ScriptedServer) -> None:
    keys, secret = published(sides)
    server.script("ListNodeKeys", key_pb.ListNodeKeysResponse(keys=[keys]))
    order = given()
    request = question()
    large = b'"' + b"x" * 1024 * 1024 + b'"'
    request.targets[0].arguments.inline = large
    told: list[task_pb2.Target] = []

    async def leaves(targets: Iterable[task_pb2.Target]) -> None:
        assert not server.calls["GetUpload"]
        for each in targets:
            told.append(task_pb2.Target())
            told[-1].CopyFrom(each)

    spec = await sides.orders.spec(context(order), order, request, timedelta(minutes=5), leaves, sides.identity)
    (target,) = spec.targets
    sent = server.uploads[target.arguments.reference]
    assert arguments_of(sealing.unseal(sealing.SealedPayload(sent), [secret]), NODE) == large
    (before,) = told
    assert (before.organization, before.arguments.digest, before.arguments.size_bytes) == (
        DORA,
        dsse.digest_of(sent),
        len(sent),
    )

    async def full(_: Iterable[task_pb2.Target]) -> None:
        raise error(Reason.SCRATCH_UNAVAILABLE, "no audit log")

    uploads = len(server.uploads)
    with pytest.raises(VantageError, match="no audit log"):
        await sides.orders.spec(context(order), order, request, timedelta(minutes=5), full, sides.identity)
    assert len(server.uploads) == uploads


def published(sides: Sides) -> tuple[key_pb.PublishedKeys, str]:
    """Keys of dora's node, and the secret one."""
    now = datetime.now(UTC)
    secret = sealing.create_identity()
    bundle = KeyBundle(
        holder=DORAS, version=1, recipients=(sealing.recipient_of(secret),), created=now, expires=now + KEYS_LIFETIME
    )
    return key_pb.PublishedKeys(holder=DORAS, envelope=sign_keys(bundle, sides.key, sides.chain)), secret


async def test_staged_arguments_leave_sealed_and_once_for_all_who_get_them(
    sides: Sides, server: ScriptedServer, tmp_path: Path
) -> None:
    keys, secret = published(sides)
    server.script("ListNodeKeys", key_pb.ListNodeKeysResponse(keys=[keys]))

    async def chunks() -> AsyncIterator[bytes]:
        yield b'{"secret": 1}'

    staging = Staging(tmp_path / "staged", 1000)
    stored = await staging.take("application/json", chunks())
    request = algorithm_pb.RunSubtaskRequest(request_id=str(uuid.uuid4()), function="partial")
    arguments = types_pb2.Payload(media_type=stored.media_type, digest=stored.digest)
    for node in ("", DORAS):
        request.targets.add(organization=DORA, node=node, arguments=arguments)
    order = given()
    told: list[tuple[str, int]] = []

    async def leaves(targets: Iterable[task_pb2.Target]) -> None:
        assert not server.calls["GetUpload"]
        told.extend((each.arguments.digest, each.arguments.size_bytes) for each in targets)

    with staging.held(request) as staged:
        spec = await sides.orders.spec(
            context(order), order, request, timedelta(minutes=5), leaves, sides.identity, staged
        )
    (sent,) = server.uploads.values()
    assert arguments_of(sealing.unseal(sealing.SealedPayload(sent), [secret]), NODE) == b'{"secret": 1}'
    assert told == [(dsse.digest_of(sent), len(sent))] * 2
    signed = Order.decode(dsse.peek(spec.order)).targets
    assert [(each.arguments.digest, each.arguments.size) for each in signed if each.arguments is not None] == told
    assert {each.arguments.reference for each in spec.targets} == set(server.uploads)
    assert [str(each) for each in (tmp_path / "staged").iterdir()] == [str(stored.content)]  # nothing sealed is left


async def opened(sides: Sides, spec: task_pb2.TaskSpec, run: task_pb2.Run, kind: str = "run_finished") -> task_pb2.Run:
    event = task_pb2.TaskEvent(sequence=2)
    if kind == "snapshot":
        event.snapshot.task.runs.append(run)
        return (await sides.answers.handed_on(event, spec, sides.identity)).snapshot.task.runs[0]
    getattr(event, kind).run.CopyFrom(run)
    answer: task_pb2.Run = getattr(await sides.answers.handed_on(event, spec, sides.identity), kind).run
    return answer


@pytest.mark.parametrize("kind", ["run_finished", "snapshot"])
async def test_a_signed_answer_is_opened_as_what_its_node_calls_it(sides: Sides, kind: str) -> None:
    spec = sides.sent()
    run = sides.answered(spec)
    run.result.media_type = "application/vnd.apache.arrow.stream"
    answer = await opened(sides, spec, run, kind)
    assert (answer.result.inline, answer.result.media_type) == (b'{"rows": 3}', "application/json")


async def test_what_is_sealed_to_the_node_does_not_open_as_an_answer_to_a_subtask(sides: Sides) -> None:
    """A server gives dora, who is in league with it, what hilda has sealed to this node."""
    sides.content = sealing.seal(b'{"of": "hilda"}', sides.keys.recipients[:1]).content
    spec = sides.sent()
    answer = await opened(sides, spec, sides.answered(spec))
    assert (answer.state, answer.failure.reason) == (task_pb2.RUN_STATE_FAILED, "SEAL_INVALID")
    assert not answer.HasField("result")


async def test_a_state_that_the_node_has_not_signed_is_not_believed(sides: Sides) -> None:
    spec = sides.sent()
    run = sides.answered(spec)
    run.state = task_pb2.RUN_STATE_REFUSED
    failed = sides.answered(spec, outcome="failed", result=None, failure=ResultFailure(reason="X", message=""))
    failed.ClearField("result")
    for each in (run, failed):
        answer = await opened(sides, spec, each)
        assert (answer.state, answer.failure.reason) == (task_pb2.RUN_STATE_FAILED, "RESULT_UNVERIFIED")
        assert not answer.HasField("result")


@pytest.mark.parametrize("kind", ["run_finished", "run_changed", "snapshot"])
@pytest.mark.parametrize("state", [task_pb2.RUN_STATE_CANCELLED, task_pb2.RUN_STATE_RUNNING])
async def test_results_of_other_states_do_not_reach_the_algorithm(sides: Sides, kind: str, state: int) -> None:
    spec = sides.sent()
    run = sides.answered(spec)
    run.state = state  # type: ignore[assignment]
    run.result.CopyFrom(types_pb2.Payload(media_type="application/json", inline=b"7"))
    assert not (await opened(sides, spec, run, kind)).HasField("result")


def _drop(task: task_pb2.Task) -> None:
    del task.runs[0]


def _double(task: task_pb2.Task) -> None:
    task.runs.append(task.runs[0])


def _rename(task: task_pb2.Task) -> None:
    task.runs[0].organization = "organizations/mallory"


@pytest.mark.parametrize("change", [_drop, _double, _rename])
async def test_a_snapshot_of_other_runs_is_refused(sides: Sides, change: Callable[[task_pb2.Task], None]) -> None:
    spec = sides.sent()
    event = task_pb2.TaskEvent(sequence=2)
    event.snapshot.task.runs.append(sides.answered(spec))
    change(event.snapshot.task)
    with pytest.raises(VantageError) as caught:
        await sides.answers.handed_on(event, spec, sides.identity)
    assert caught.value.reason is Reason.RESULT_UNVERIFIED


def refers_to_upload(sides: Sides, spec: task_pb2.TaskSpec, server: ScriptedServer) -> task_pb2.Run:
    """A run whose result is not inside the message."""
    run = sides.answered(spec)
    run.result.reference = UPLOAD
    run.result.digest, run.result.size_bytes = dsse.digest_of(sides.content), len(sides.content)
    server.downloads[UPLOAD] = sides.content
    return run


async def test_what_fits_no_message_is_referred_to_and_opened_when_it_is_read(
    sides: Sides, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sides.sent()
    run = refers_to_upload(sides, spec, server)
    assert (await opened(sides, spec, run)).result.inline == b'{"rows": 3}'  # it does fit
    monkeypatch.setattr(answers_module, "_HANDED_ON", len(sides.content) - 1)
    downloads = len(server.calls["DownloadPayload"])
    run.result.media_type = "text/html"  # says the server
    answer = await opened(sides, spec, run)
    assert (answer.result.reference, answer.result.media_type) == (RUN, "application/json")
    assert (answer.result.size_bytes, answer.result.digest) == (len(sides.content), dsse.digest_of(sides.content))
    assert len(server.calls["DownloadPayload"]) == downloads
    for each in (run, sides.answered(spec)):  # also from inside a message
        file = io.BytesIO()
        await sides.answers.open_to(each, spec, sides.identity, file)
        assert file.getvalue() == b'{"rows": 3}'


async def test_results_that_together_fit_no_message_are_referred_to(
    sides: Sides, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = sides.sent()
    spec.targets.add(organization=DORA)
    second = f"{TASK}/runs/{new_id()}"
    runs = [sides.answered(spec), sides.answered(spec, run=second)]
    runs[1].name = second
    event = task_pb2.TaskEvent(sequence=2)
    event.snapshot.task.runs.extend(runs)
    monkeypatch.setattr(answers_module, "_HANDED_ON_TOGETHER", len(sides.content))
    runs[1].result.digest = dsse.digest_of(sides.content)
    event.snapshot.task.runs[1].CopyFrom(runs[1])
    first, last = (await sides.answers.handed_on(event, spec, sides.identity)).snapshot.task.runs
    assert (first.result.inline, last.result.reference) == (b'{"rows": 3}', second)


async def test_a_server_that_lies_about_what_is_read_is_not_believed(
    sides: Sides, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "_HANDED_ON", 1)
    spec = sides.sent()
    others = sealing.seal(b'{"rows": 4}', (sealing.recipient_of(sides.identity),)).content

    async def refused(run: task_pb2.Run) -> Reason:
        file = io.BytesIO()
        with pytest.raises(VantageError) as caught:
            await sides.answers.open_to(run, spec, sides.identity, file)
        return caught.value.reason

    run = refers_to_upload(sides, spec, server)
    run.result.digest = dsse.digest_of(others)
    answer = await opened(sides, spec, run)
    assert (answer.state, answer.failure.reason) == (task_pb2.RUN_STATE_FAILED, "RESULT_UNVERIFIED")
    server.downloads[UPLOAD] = others
    assert await refused(run) is Reason.RESULT_UNVERIFIED
    run = refers_to_upload(sides, spec, server)
    run.state = task_pb2.RUN_STATE_FAILED
    assert await refused(run) is Reason.RESULT_UNVERIFIED
    run.state = task_pb2.RUN_STATE_CANCELLED
    assert await refused(run) is Reason.NOT_FOUND
    run = refers_to_upload(sides, spec, server)
    run.organization = "organizations/mallory"
    assert await refused(run) is Reason.RESULT_UNVERIFIED


async def test_what_is_read_must_be_sealed_to_the_subtask_and_within_the_limit(
    sides: Sides, server: ScriptedServer
) -> None:
    for content, reason in (
        (sealing.seal(b"of hilda", sides.keys.recipients[:1]).content, Reason.SEAL_INVALID),
        (sealing.seal(b"x" * MAX_BYTES, (sealing.recipient_of(sides.identity),)).content, Reason.PAYLOAD_TOO_LARGE),
    ):
        sides.content = content
        spec = sides.sent()
        run = refers_to_upload(sides, spec, server)
        run.result.size_bytes = 1  # says the server
        with pytest.raises(VantageError) as caught:
            await sides.answers.open_to(run, spec, sides.identity, io.BytesIO())
        assert caught.value.reason is reason
    assert len(server.calls["DownloadPayload"]) == 1  # what is too large is not begun
