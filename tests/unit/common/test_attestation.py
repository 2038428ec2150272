from __future__ import annotations

import json
from datetime import datetime, timedelta

import pytest

from vantage.common import dsse
from vantage.common.attestation import VerifiedResult, sign_keys, sign_result, verify_keys, verify_result
from vantage.common.errors import PermissionDeniedError, Reason, RefusedError, TrustError
from vantage.common.statements import Content, KeyBundle, ResultFailure, ResultStatement
from vantage.testing.signers import DIGEST, NOW, RECIPIENT, Signer, World

RUN = "tasks/0190d6a0-0000-7000-8000-000000000002/runs/0190d6a0-0000-7000-8000-000000000003"
ORDER = "sha256:" + "0f" * 32


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def statement(signer: str, **changes: object) -> ResultStatement:
    fields: dict[str, object] = {
        "order": ORDER,
        "run": RUN,
        "node": signer,
        "outcome": "succeeded",
        "result": Content(digest=DIGEST, size=10, media_type="application/json"),
        "finished": NOW,
    }
    return ResultStatement.model_validate(fields | changes)


def verify(world: World, envelope: bytes, *, node: str = "", digest: str | None = DIGEST) -> VerifiedResult:
    return verify_result(
        envelope,
        world.certify,
        order=ORDER,
        asked=NOW,
        run=RUN,
        organization="organizations/clara",
        node=node,
        digest=digest,
    )


def signed(signer: Signer, **changes: object) -> bytes:
    return sign_result(statement(signer.name, **changes), signer.key, signer.chain)


def test_the_result_of_the_node_that_was_asked_is_believed(world: World) -> None:
    verified = verify(world, signed(world.node), node=world.node.name)
    assert (verified.node, verified.statement.outcome) == (world.node.name, "succeeded")
    failure = ResultFailure(reason="TOO_FEW_RECORDS", message="fewer than 10")
    failed = verify(world, signed(world.node, outcome="failed", result=None, failure=failure), digest=None)
    assert failed.statement.failure == failure


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"order": DIGEST}, "another order"),
        ({"run": RUN[:-1] + "9"}, "it is the result of"),
        ({"node": "organizations/clara/nodes/other"}, "is signed by"),
        ({"result": None}, "contradicts"),
        ({"result": Content(digest=ORDER, size=10, media_type="application/json")}, "not those that the node"),
        ({"failure": ResultFailure(reason="X", message="")}, "contradicts"),
    ],
)
def test_anything_else_is_not(world: World, changes: dict[str, object], text: str) -> None:
    with pytest.raises(TrustError, match=text) as caught:
        verify(world, signed(world.node, **changes))
    assert caught.value.reason is Reason.RESULT_UNVERIFIED


def test_a_node_of_another_organization_cannot_answer(world: World) -> None:
    with pytest.raises(TrustError, match="was not asked"):
        verify(world, signed(world.signer("organizations/dora/nodes/dora-1")))
    with pytest.raises(TrustError, match="was not asked"):
        verify(world, signed(world.node), node="organizations/clara/nodes/clara-2")


def test_a_user_of_the_organization_cannot_answer_for_its_node(world: World) -> None:
    with pytest.raises(TrustError, match="is signed by"):
        verify(world, signed(world.signer("organizations/clara/users/bob")))


def test_a_withheld_or_added_content_is_noticed(world: World) -> None:
    with pytest.raises(TrustError, match="not those that the node"):
        verify(world, signed(world.node), digest=None)
    failure = ResultFailure(reason="X", message="")
    with pytest.raises(TrustError, match="not those that the node"):
        verify(world, signed(world.node, outcome="failed", result=None, failure=failure))


def test_nobody_signs_before_he_was_asked(world: World) -> None:
    # Whoever holds the key of a certificate that has ended could choose a moment at which it counted.
    def check(finished: datetime) -> VerifiedResult:
        return verify_result(
            signed(world.node, finished=finished),
            world.certify,
            order=ORDER,
            run=RUN,
            organization="organizations/clara",
            node="",
            digest=DIGEST,
            asked=NOW + timedelta(hours=1),
        )

    assert check(NOW + timedelta(minutes=59)).node == world.node.name  # clocks differ
    with pytest.raises(TrustError, match="before the order"):
        check(NOW)


@pytest.mark.parametrize("moment", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00"])
def test_moments_that_do_not_exist_are_refused(world: World, moment: str) -> None:
    payload = json.dumps(json.loads(statement(world.node.name).encode()) | {"finished": moment}).encode()
    envelope = dsse.sign(ResultStatement.payload_type(), payload, world.node.key, world.node.chain)
    with pytest.raises(TrustError) as caught:
        verify(world, envelope)
    assert caught.value.reason is Reason.RESULT_UNVERIFIED


def test_a_result_stays_valid_after_its_certificate_has_expired(world: World) -> None:
    # The certificate counts at the time of signing: an archive of results must not become unreadable.
    old = NOW + timedelta(days=364)
    assert verify(world, signed(world.node, finished=old)).statement.finished == old
    with pytest.raises(TrustError, match="expired"):
        verify(world, signed(world.node, finished=NOW + timedelta(days=366)))


@pytest.mark.parametrize("envelope", [b"", b"{}", b"[]", b'{"payload": "e30="}'])
def test_rubbish_is_not_believed(world: World, envelope: bytes) -> None:
    with pytest.raises(TrustError):
        verify(world, envelope)


def keys(signer: Signer, **changes: object) -> bytes:
    fields: dict[str, object] = {
        "holder": signer.name,
        "version": 3,
        "recipients": (RECIPIENT,),
        "created": NOW,
        "expires": NOW + timedelta(days=90),
    }
    return sign_keys(KeyBundle.model_validate(fields | changes), signer.key, signer.chain)


def test_keys_of_a_certified_holder_are_believed(world: World) -> None:
    verified = verify_keys(keys(world.node), world.certify, world.node.name, NOW, seen_version=3)
    assert (verified.version, verified.recipients) == (3, (RECIPIENT,))


def test_keys_swapped_by_the_server_are_refused(world: World) -> None:
    with pytest.raises(RefusedError) as caught:
        verify_keys(keys(world.alice), world.certify, world.node.name, NOW)
    assert caught.value.reason is Reason.KEYS_INVALID
    with pytest.raises(PermissionDeniedError):
        verify_keys(keys(world.stranger), world.certify, world.stranger.name, NOW)


@pytest.mark.parametrize(
    ("changes", "seen", "reason"),
    [
        ({}, 4, Reason.KEYS_STALE),
        ({"expires": NOW}, 0, Reason.KEYS_STALE),
        ({"created": NOW + timedelta(hours=1)}, 0, Reason.KEYS_INVALID),
        ({"expires": NOW + timedelta(days=4000)}, 0, Reason.KEYS_INVALID),
        ({"recipients": ("age1nonsense",)}, 0, Reason.KEYS_INVALID),
    ],
)
def test_old_and_implausible_keys_are_refused(
    world: World, changes: dict[str, object], seen: int, reason: Reason
) -> None:
    with pytest.raises(RefusedError) as caught:
        verify_keys(keys(world.node, **changes), world.certify, world.node.name, NOW, seen_version=seen)
    assert caught.value.reason is reason
