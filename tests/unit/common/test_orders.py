from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey  # type: ignore[attr-defined]

from vantage.common import dsse, orders
from vantage.common.attestation import sign_keys
from vantage.common.errors import Reason, VantageError
from vantage.common.orders import VerifiedOrder, sign_order, verify_order
from vantage.common.statements import Delegation, KeyBundle, Order, OrderTarget, Parent
from vantage.testing.signers import NOW, World, order

RUN = "tasks/0190d6a0-0000-7000-8000-000000000002/runs/0190d6a0-0000-7000-8000-000000000003"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def check(world: World, envelope: bytes, *parents: bytes) -> VerifiedOrder:
    return verify_order(envelope, parents, world.certify, NOW)


def refused(world: World, envelope: bytes, *parents: bytes) -> VantageError:
    with pytest.raises(VantageError) as caught:
        check(world, envelope, *parents)
    return caught.value


def by_alice(world: World, **changes: object) -> bytes:
    return sign_order(order(world.alice.name, **changes), world.alice.key, world.alice.chain)


def below(world: World, above: Order, **changes: object) -> bytes:
    given = {
        "id": "0190d6a0-0000-7000-8000-000000000009",
        "function": "partial",
        "parent": Parent(order=orders.order_digest(above), run=RUN),
        "delegation": None,
    }
    return sign_order(order(world.node.name, **(given | changes)), world.node.key, world.node.chain)


def test_an_order_of_a_certified_user_is_verified(world: World) -> None:
    verified = check(world, by_alice(world))
    assert verified.order == order(world.alice.name)
    assert verified.organization == "organizations/dora"
    assert (verified.depth, verified.root, verified.root_requester) == (0, verified.digest, world.alice.name)


def test_the_members_of_a_job_are_those_of_the_order_at_the_top(world: World) -> None:
    hilda = OrderTarget(organization="organizations/hilda")
    targets = (*order(world.alice.name).targets, hilda)
    envelope = by_alice(world, targets=targets)
    members = {"organizations/clara", "organizations/dora", "organizations/hilda"}
    assert check(world, envelope).members == members
    assert check(world, below(world, order(world.alice.name, targets=targets)), envelope).members == members
    assert check(world, by_alice(world, targets=(hilda,), delegation=None)).members == {"organizations/hilda"}


def test_an_independent_reader_verifies_the_envelope(world: World) -> None:
    document = json.loads(by_alice(world))
    (signature,) = document["signatures"]
    del signature["x5c"]
    keyid = signature["keyid"]
    key = SSlibKey.from_crypto(world.alice.key.public_key(), keyid=keyid, scheme="ecdsa-sha2-nistp256")
    assert list(Envelope.from_dict(document).verify([key], 1)) == [keyid]


def altered(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def apply(envelope: bytes) -> bytes:
        document = json.loads(envelope)
        payload = json.loads(base64.b64decode(document["payload"]))
        change(payload)
        document["payload"] = base64.b64encode(json.dumps(payload).encode()).decode()
        return json.dumps(document).encode()

    return apply


@pytest.mark.parametrize(
    "change",
    [
        altered(lambda payload: payload.update(function="other")),
        altered(lambda payload: payload.update(image=payload["image"].replace("ab", "ba"))),
        altered(lambda payload: payload["targets"][0].update(organization="organizations/dora")),
        altered(lambda payload: payload.update(expires="2027-01-01T00:00:00Z")),
        altered(lambda payload: payload.update(recipients=["age1other"])),
    ],
)
def test_a_changed_order_is_refused(world: World, change: Callable[[bytes], bytes]) -> None:
    problem = refused(world, change(by_alice(world)))
    assert problem.reason is Reason.ORDER_INVALID
    assert "not signed with the key" in problem.message


def test_a_signer_whom_nobody_trusts_is_refused(world: World) -> None:
    forged = sign_order(order(world.stranger.name), world.stranger.key, world.stranger.chain)
    assert refused(world, forged).reason is Reason.CERTIFICATE_UNTRUSTED
    borrowed = sign_order(order(world.alice.name), world.stranger.key, world.alice.chain)
    assert refused(world, borrowed).reason is Reason.ORDER_INVALID


def test_nobody_signs_for_another(world: World) -> None:
    bob = world.signer("organizations/dora/users/bob")
    problem = refused(world, sign_order(order(world.alice.name), bob.key, bob.chain))
    assert problem.reason is Reason.ORDER_INVALID
    assert "speaks for" in problem.message


def test_a_statement_of_another_kind_is_no_order(world: World) -> None:
    keys = KeyBundle(
        holder=world.alice.name, version=1, recipients=("age1",), created=NOW, expires=NOW + timedelta(days=1)
    )
    assert refused(world, sign_keys(keys, world.alice.key, world.alice.chain)).reason is Reason.ORDER_INVALID


@pytest.mark.parametrize("addition", [{"priority": 1}, {"schema": "vantage.order/2"}])
def test_an_unknown_field_or_version_is_refused(world: World, addition: dict[str, object]) -> None:
    payload = json.dumps(json.loads(order(world.alice.name).encode()) | addition).encode()
    envelope = dsse.sign(Order.payload_type(), payload, world.alice.key, world.alice.chain)
    problem = refused(world, envelope)
    assert problem.reason is Reason.ORDER_INVALID
    assert next(iter(addition)) in problem.message or "this version knows" in problem.message


@pytest.mark.parametrize(
    ("created", "expires", "reason"),
    [
        (NOW - timedelta(hours=2), NOW, Reason.ORDER_EXPIRED),
        (NOW + timedelta(minutes=10), NOW + timedelta(hours=1), Reason.ORDER_EXPIRED),
        (NOW, NOW + timedelta(days=40), Reason.ORDER_INVALID),
        (NOW, NOW - timedelta(seconds=1), Reason.ORDER_INVALID),
    ],
)
def test_times_are_checked(world: World, created: object, expires: object, reason: Reason) -> None:
    assert refused(world, by_alice(world, created=created, expires=expires)).reason is reason


def test_a_node_asks_in_the_name_of_the_order_above(world: World) -> None:
    above = order(world.alice.name)
    verified = check(world, below(world, above), by_alice(world))
    assert (verified.depth, verified.root_requester, verified.max_tasks) == (1, world.alice.name, 10)
    assert verified.root == orders.order_digest(above)


@pytest.mark.parametrize(
    "changes",
    [
        {"function": "summary"},
        {"image": "registry.example/other@sha256:" + "ab" * 32},
        {"collaboration": "collaborations/other"},
        {"study": "collaborations/trial/studies/one"},
        {"targets": (OrderTarget(organization="organizations/hilda"),)},
        {"targets": (OrderTarget(organization="organizations/clara", datasets={"df": "secret"}),)},
        {"expires": NOW + timedelta(hours=2)},
        {"delegation": Delegation(organizations=("organizations/clara",), max_tasks=10, max_depth=2)},
        {
            "delegation": Delegation(
                organizations=("organizations/hilda",),
                functions=("partial",),
                datasets=("lung",),
                max_tasks=1,
                max_depth=1,
            )
        },
    ],
)
def test_a_subtask_only_narrows(world: World, changes: dict[str, object]) -> None:
    problem = refused(world, below(world, order(world.alice.name), **changes), by_alice(world))
    assert problem.reason is Reason.ORDER_EXCEEDS_PARENT


def test_runs_of_a_subtask_take_no_longer_than_those_above(world: World) -> None:
    above = order(world.alice.name, max_runtime=60)
    envelope = sign_order(above, world.alice.key, world.alice.chain)
    assert check(world, below(world, above, max_runtime=60), envelope).order.max_runtime == 60
    for longer in (None, 61):
        assert refused(world, below(world, above, max_runtime=longer), envelope).reason is Reason.ORDER_EXCEEDS_PARENT


def test_without_delegation_there_are_no_subtasks(world: World) -> None:
    above = order(world.alice.name, delegation=None)
    envelope = sign_order(above, world.alice.key, world.alice.chain)
    assert refused(world, below(world, above), envelope).reason is Reason.ORDER_EXCEEDS_PARENT


def test_only_a_node_that_is_asked_delegates(world: World) -> None:
    above = order(world.alice.name)
    other = world.signer("organizations/dora/nodes/dora-1")
    subtask = order(other.name, function="partial", parent=Parent(order=orders.order_digest(above), run=RUN))
    envelope = sign_order(subtask, other.key, other.chain)
    assert refused(world, envelope, by_alice(world)).reason is Reason.ORDER_EXCEEDS_PARENT


def test_a_subtask_of_another_order_is_refused(world: World) -> None:
    other = order(world.alice.name, function="other")
    assert refused(world, below(world, other), by_alice(world)).reason is Reason.ORDER_INVALID
    assert refused(world, below(world, other)).reason is Reason.ORDER_INVALID


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_rubbish_is_refused(world: World, rubbish: bytes) -> None:
    assert refused(world, rubbish).reason is Reason.ORDER_INVALID


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    ),
    st.sampled_from(["payload", "payloadType", "signatures", "sig", "x5c", "keyid"]),
)
def test_a_damaged_envelope_is_refused(world: World, value: Any, field: str) -> None:
    document = json.loads(by_alice(world))
    target = document if field in document else document["signatures"][0]
    if field == "keyid":
        return  # a hint, which nothing relies on
    target[field] = value
    assert isinstance(refused(world, json.dumps(document).encode()), VantageError)


def test_the_number_of_orders_above_is_bounded(world: World, tmp_path: Path) -> None:
    parents = [by_alice(world)] * (orders.MAX_DEPTH + 1)
    assert "stand above it" in refused(world, by_alice(world), *parents).message


def test_what_is_left_to_delegate_shrinks() -> None:
    first = Delegation(organizations=("organizations/clara",), max_tasks=10, max_depth=2)
    second = orders.narrow(first)
    assert second is not None
    assert second.max_depth == 1
    assert orders.narrow(second) is None
    assert orders.narrow(None) is None
