"""A node that runs signed orders only, in front of a server that tries everything else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common import pki, sealing
from vantage.common.attestation import verify_result
from vantage.common.clock import SystemClock
from vantage.common.dsse import digest_of, peek
from vantage.common.names import new_id
from vantage.common.orders import sign_order
from vantage.common.statements import Order, OrderTarget, Parent
from vantage.common.trust import TrustStore
from vantage.node.seal_keys import SealKeys
from vantage.node.trust import DIRECTORY
from vantage.testing import inprocess
from vantage.testing.orders import ASKING, Asker
from vantage.testing.station import NODE, ORGANIZATION, Station, assign, send


@pytest.fixture
def asker(station: Station, tmp_path: Path) -> Asker:
    return Asker(tmp_path / "asking", station)


def certify(station: Station) -> Any:
    root = pki.load_certificates((station.directory / "ca" / "ca-cert.pem").read_bytes())
    return lambda chain, at: pki.verify_chain(chain, root, at)


async def refusal(station: Station, message: pb.Assign, refused_before: tuple[str, ...] = ()) -> pb.Refused:
    async with station.running():
        session = await station.session()
        # What was said before and not acknowledged is said again first.
        for lease in session.hello.leases:
            await session.receive("refused" if lease.lease_id in refused_before else "completed")
        send(session, message)
        return (await session.receive("refused")).refused


async def test_a_signed_task_is_answered_sealed_and_signed(station: Station, asker: Asker) -> None:
    message = asker.ask()
    async with station.running():
        session = await station.session()
        send(session, message)
        await session.receive("accepted")
        await session.receive("started")
        completed = (await session.receive("completed")).completed
    assert completed.result.sealing == types_pb2.SEALING_AGE_V1
    assert b"value" not in completed.result.inline
    assert json.loads(asker.open(completed.result)) == {"value": 1}
    verified = verify_result(
        completed.statement,
        certify(station),
        order=digest_of(peek(message.spec.order)),
        asked=Order.decode(peek(message.spec.order)).created,
        run=message.lease.run,
        organization=ORGANIZATION,
        node=NODE,
        digest=digest_of(completed.result.inline),
    )
    assert verified.statement.outcome == "succeeded"


async def test_a_failure_is_signed_too(station: Station, asker: Asker) -> None:
    message = asker.ask("report", '{"reason": "TOO_FEW_RECORDS"}')
    async with station.running():
        session = await station.session()
        send(session, message)
        await session.receive("accepted")
        await session.receive("started")
        completed = (await session.receive("completed")).completed
    verified = verify_result(
        completed.statement,
        certify(station),
        order=digest_of(peek(message.spec.order)),
        asked=Order.decode(peek(message.spec.order)).created,
        run=message.lease.run,
        organization=ORGANIZATION,
        node="",
        digest=None,
    )
    failure = verified.statement.failure
    assert failure is not None
    assert (failure.reason, failure.message) == (completed.failure.reason, completed.failure.message)


async def test_without_an_order_nothing_runs(station: Station, asker: Asker) -> None:
    refused = await refusal(station, assign(creator="users/alice", creator_organization=ASKING))
    assert refused.failure.reason == "ORDER_MISSING"
    assert not refused.statement  # about no order nothing can be signed


def _set(field: str, value: str) -> Callable[[pb.Assign], None]:
    return lambda message: setattr(message.spec, field, value)


def _other_arguments(message: pb.Assign) -> None:
    payload = message.spec.targets[0].arguments
    payload.inline = sealing.seal(b'{"value": 2}', [sealing.recipient_of(sealing.create_identity())]).content
    payload.size_bytes, payload.digest = len(payload.inline), digest_of(payload.inline)


def _plain_arguments(message: pb.Assign) -> None:
    payload = message.spec.targets[0].arguments
    payload.inline, payload.sealing = b'{"value": 2}', types_pb2.SEALING_NONE


def _no_arguments(message: pb.Assign) -> None:
    message.spec.targets[0].ClearField("arguments")


def _other_dataset(message: pb.Assign) -> None:
    message.spec.targets[0].datasets.add(parameter="table", dataset="lung")


def _other_requester(message: pb.Assign) -> None:
    message.creator = "users/mallory"


def _other_organization(message: pb.Assign) -> None:
    message.creator_organization = "organizations/hilda"


def _as_subtask(message: pb.Assign) -> None:
    message.spec.parent_run = message.lease.run


def _later(message: pb.Assign) -> None:
    message.deadline.seconds += 100_000


@pytest.mark.parametrize(
    "tamper",
    [
        _set("function", "count"),
        _set("study", "collaborations/trial/studies/other"),
        _other_arguments,
        _plain_arguments,
        _no_arguments,
        _other_dataset,
        _other_requester,
        _other_organization,
        _as_subtask,
        _later,
    ],
)
async def test_whatever_the_server_changes_is_refused(
    station: Station, asker: Asker, tamper: Callable[[pb.Assign], None]
) -> None:
    message = asker.ask()
    tamper(message)
    refused = await refusal(station, message)
    assert refused.failure.reason == "ORDER_MISMATCH"
    assert refused.statement


async def test_an_order_for_others_is_refused(station: Station, asker: Asker) -> None:
    def for_dora(fields: dict[str, Any]) -> None:
        fields["targets"] = (OrderTarget(organization=ASKING),)

    assert (await refusal(station, asker.ask(order=for_dora))).failure.reason == "ORDER_MISMATCH"


async def test_two_tasks_cannot_be_mixed(station: Station, asker: Asker) -> None:
    one, two = asker.ask(arguments='{"value": 1}'), asker.ask(arguments='{"value": 2}')
    one.spec.targets[0].arguments.CopyFrom(two.spec.targets[0].arguments)
    assert (await refusal(station, one)).failure.reason == "ORDER_MISMATCH"


async def test_a_signer_whom_the_owner_does_not_trust_is_refused(
    station: Station, asker: Asker, tmp_path: Path
) -> None:
    stranger = Asker(tmp_path / "stranger", Station.create(tmp_path / "elsewhere", station.server))
    message = asker.ask()
    message.spec.order = stranger.ask().spec.order
    assert (await refusal(station, message)).failure.reason == "CERTIFICATE_UNTRUSTED"


async def test_arguments_that_the_server_can_read_are_refused(station: Station, asker: Asker) -> None:
    assert (await refusal(station, asker.ask(sealed=False))).failure.reason == "SEAL_MISSING"


@pytest.mark.parametrize("sealed_for", ["organizations/dora/users/bob", f"{ASKING}/users/alice2", ASKING])
async def test_arguments_that_were_sealed_for_an_order_of_somebody_else_are_refused(
    station: Station, asker: Asker, sealed_for: str
) -> None:
    """A server hands bob's sealed arguments to alice, who signs their digest to have her algorithm read them out."""
    refused = await refusal(station, asker.ask(sealed_for=sealed_for))
    assert refused.failure.reason == "SEAL_INVALID"
    assert "somebody else" in refused.failure.message


async def test_sealed_bytes_that_are_not_arguments_are_refused(station: Station, asker: Asker) -> None:
    """A server has an answer that was sealed to this node opened as arguments."""
    message = asker.ask(arguments='{"value": 1}', sealed_for=None)
    refused = await refusal(station, message)
    assert refused.failure.reason == "SEAL_INVALID"
    assert "do not say for whose order" in refused.failure.message


async def test_an_order_is_taken_once_also_after_a_restart(station: Station, asker: Asker) -> None:
    message = asker.ask()
    again = pb.Assign()
    again.CopyFrom(message)
    again.lease.run, again.lease.lease_id = f"tasks/{new_id()}/runs/{new_id()}", new_id()
    async with station.running():
        session = await station.session()
        send(session, message)
        for kind in ("accepted", "started", "completed"):
            await session.receive(kind)
        send(session, again)
        assert (await session.receive("refused")).refused.failure.reason == "ORDER_REPLAYED"
    refused = [again.lease.lease_id]
    again.lease.lease_id = new_id()
    assert (await refusal(station, again, tuple(refused))).failure.reason == "ORDER_REPLAYED"
    refused.append(again.lease.lease_id)
    answered = pb.Assign()
    answered.CopyFrom(message)
    answered.lease.lease_id, answered.lease.attempt = new_id(), 2
    assert (await refusal(station, answered, tuple(refused))).failure.reason == "ORDER_REPLAYED"


async def test_what_was_sealed_for_an_order_is_not_opened_without_it(station: Station, asker: Asker) -> None:
    station.settings["policy"]["allow_unsigned"] = True
    message = asker.ask()
    message.spec.order = b""
    assert (await refusal(station, message)).failure.reason == "ORDER_MISSING"


def by_way_of_hilda(station: Station, asker: Asker, directory: Path) -> pb.Assign:
    """A subtask that hilda's node asks of this one in alice's name."""
    organization = "organizations/hilda"
    node = f"{organization}/nodes/hilda-1"
    authority = pki.CertificateAuthority.create(directory / "hilda", organization)
    key = pki.create_key()
    TrustStore(station.directory / "data" / DIRECTORY).pin(organization, authority.certificate)
    above = asker.ask(order=lambda fields: fields.update(targets=(OrderTarget(organization=organization),)))
    root = Order.decode(peek(above.spec.order))
    message = asker.ask(sealed_for=node)
    parent = Parent(order=digest_of(peek(above.spec.order)), run=above.lease.run)
    signed = Order.decode(peek(message.spec.order)).model_copy(
        update={"requester": node, "parent": parent, "expires": root.expires, "delegation": None}
    )
    message.spec.order = sign_order(signed, key, (authority.issue(node, key.public_key()),))
    message.spec.parent_orders.append(above.spec.order)
    message.spec.parent_run = above.lease.run
    message.creator, message.creator_organization = node, organization
    return message


HILDAS = {"nodes": ["organizations/hilda/nodes/hilda-1"]}


@pytest.mark.parametrize(
    ("allowed", "reason"),
    [
        ({"organizations": ["hilda"]}, "POLICY_REFUSED"),
        ({"organizations": ["hilda", "dora"]}, ""),
        ({"users": ["bob"], **HILDAS}, "POLICY_REFUSED"),
        ({"users": ["alice"], **HILDAS}, ""),
        ({"users": ["dora/alice"], **HILDAS}, ""),
    ],
)
async def test_who_may_not_ask_does_not_ask_by_way_of_another(
    station: Station, asker: Asker, tmp_path: Path, allowed: dict[str, Any], reason: str
) -> None:
    station.settings["policy"].update(allowed)
    message = by_way_of_hilda(station, asker, tmp_path)
    if reason:
        refused = await refusal(station, message)
        assert (refused.failure.reason, "organizations/dora" in refused.failure.message) == (reason, True)
        return
    async with station.running():
        session = await station.session()
        send(session, message)
        await session.receive("accepted")


@pytest.mark.parametrize(("user", "reason"), [("dora/alice", ""), ("hilda/alice", "POLICY_REFUSED")])
async def test_a_namesake_whom_another_organization_certifies_is_somebody_else(
    station: Station, asker: Asker, user: str, reason: str
) -> None:
    station.settings["policy"]["users"] = [user]
    message = asker.ask()
    if reason:
        assert (await refusal(station, message)).failure.reason == reason
        return
    async with station.running():
        session = await station.session()
        send(session, message)
        await session.receive("accepted")


def again(message: pb.Assign, seconds: float = 600) -> pb.Assign:
    """The same run as another attempt."""
    other = pb.Assign()
    other.CopyFrom(message)
    other.lease.lease_id, other.lease.attempt = new_id(), message.lease.attempt + 1
    other.deadline.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return other


async def test_a_run_whose_time_ended_is_not_run_again(station: Station, asker: Asker) -> None:
    async with station.running():
        session = await station.session()
        first = asker.ask("hold", '{"gate": "a"}', seconds=3)
        send(session, first)
        for kind in ("accepted", "started"):
            await session.receive(kind)
        assert (await session.receive("completed")).completed.failure.reason == "TASK_EXPIRED"
        send(session, again(first))
        assert (await session.receive("refused")).refused.failure.reason == "ORDER_REPLAYED"
    assert inprocess.gates["a"].count == 1


async def test_of_two_attempts_at_once_one_is_answered(station: Station, asker: Asker) -> None:
    first = asker.ask("hold", '{"gate": "a"}')
    second = again(first)
    async with station.running():
        session = await station.session()
        for message in (first, second):
            send(session, message)
            for kind in ("accepted", "started"):
                await session.receive(kind)
        inprocess.gates["a"].leave.set()
        answers = [(await session.receive("completed")).completed for _ in range(2)]
    assert sorted(each.failure.reason for each in answers) == ["", "ORDER_REPLAYED"]
    assert sum(each.HasField("result") for each in answers) == 1


async def test_a_run_ends_when_its_order_says(station: Station, asker: Asker) -> None:
    message = asker.ask("hold", '{"gate": "a"}', order=lambda fields: fields.update(max_runtime=1))
    async with station.running():
        session = await station.session()
        send(session, message)
        for kind in ("accepted", "started"):
            await session.receive(kind)
        failure = (await session.receive("completed")).completed.failure
    assert failure.reason == "RUNTIME_EXCEEDED"
    assert "longer than the order allows" in failure.message


async def test_the_keys_survive_a_rotation(station: Station, asker: Asker) -> None:
    message = asker.ask()
    SealKeys(station.directory / "data", SystemClock()).rotate()
    async with station.running():
        session = await station.session()
        send(session, message)
        for kind in ("accepted", "started"):
            await session.receive(kind)
        assert json.loads(asker.open((await session.receive("completed")).completed.result)) == {"value": 1}
