"""Rules about images, on facts that nobody has to fetch: what each check says, and which refusal is told."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common import cosign, pki
from vantage.common.declaration import Declaration
from vantage.common.errors import Reason, VantageError
from vantage.common.oci import ImageReference
from vantage.common.orders import sign_order, verify_order
from vantage.common.predicate_types import SIGNATURE
from vantage.node.images.checks import Case
from vantage.node.images.facts import ImageFacts, Proven
from vantage.node.images.rules import ImagePolicy, Verdict
from vantage.node.intake import code_request
from vantage.node.orders import GivenOrder
from vantage.node.sources import CodeRequest
from vantage.testing.image_policy import write_policy
from vantage.testing.signers import NOW, World, order

KEYS = {name: pki.create_key() for name in ("author", "reviewer", "builder")}
REFERENCE = ImageReference("registry.example.org", "algorithms/summary", f"sha256:{'ab' * 32}")
NAME = REFERENCE.repository
TODAY = datetime(2026, 6, 1, tzinfo=UTC)
PROVENANCE, SPDX = "https://slsa.dev/provenance/v1", "https://spdx.dev/Document"
ALICE = CodeRequest(str(REFERENCE), "summary", "organizations/dora", "organizations/dora/users/alice")


def proven(signer: str, predicate: str = SIGNATURE, *repositories: str) -> Proven:
    return Proven(cosign.key_fingerprint(KEYS[signer].public_key()), predicate, frozenset(repositories))


def facts(*statements: Proven, foreign: int = 0) -> ImageFacts:
    count = sum(each.predicate == SIGNATURE for each in statements)
    declaration = Declaration.parse({"schema": 1, "functions": {"summary": {}}})
    return ImageFacts(REFERENCE, f"sha256:{'cd' * 32}", declaration, frozenset(statements), count, foreign)


def judge(
    directory: Path, rules: list[dict[str, Any]], known: ImageFacts | None, request: CodeRequest = ALICE, **changes: Any
) -> Verdict:
    policy = write_policy(
        directory, KEYS, [{"repository": "registry.example.org/**", **each} for each in rules], **changes
    )
    return policy.judge(Case(request, REFERENCE, TODAY, policy.revoked, known))


def reason(verdict: Verdict) -> Reason | None:
    return verdict.refusal.reason if verdict.refusal is not None else None


AUTHOR = facts(proven("author"))


def test_nothing_is_allowed_without_a_rule() -> None:
    verdict = ImagePolicy(()).judge(Case(ALICE, REFERENCE, TODAY, ImagePolicy(()).revoked, AUTHOR))
    assert reason(verdict) is Reason.IMAGE_NOT_ALLOWED
    assert "it allows those of none" in str(verdict.refusal)


@pytest.mark.parametrize(
    ("rule", "user", "expected"),
    [
        ({}, "organizations/dora/users/alice", None),
        ({"organizations": ["dora"]}, "organizations/dora/users/alice", None),
        ({"organizations": ["hilda"]}, "organizations/dora/users/alice", Reason.POLICY_REFUSED),
        ({"users": ["alice"]}, "organizations/dora/users/alice", None),
        ({"users": ["alice"]}, "organizations/mallory/users/alice", None),
        ({"users": ["dora/alice"]}, "organizations/dora/users/alice", None),
        ({"users": ["organizations/dora/users/alice"]}, "users/alice", None),
        # Another organization may certify somebody of that name.
        ({"users": ["dora/alice"]}, "organizations/mallory/users/alice", Reason.POLICY_REFUSED),
        ({"users": ["alice"]}, "organizations/dora/users/bob", Reason.POLICY_REFUSED),
        ({"users": ["alice"]}, "", Reason.POLICY_REFUSED),
        ({"organizations": ["dora"], "users": ["alice"]}, "organizations/mallory/users/alice", Reason.POLICY_REFUSED),
    ],
)
def test_who_may_ask(tmp_path: Path, rule: dict[str, Any], user: str, expected: Reason | None) -> None:
    organization = user.partition("/users/")[0] if user.startswith("organizations/") else "organizations/dora"
    request = CodeRequest(str(REFERENCE), "summary", organization, user)
    assert reason(judge(tmp_path, [rule], None, request)) is expected


def test_who_asks_is_who_signed_the_order_at_the_top(tmp_path: Path) -> None:
    world = World(tmp_path)
    envelope = sign_order(order(world.alice.name), world.alice.key, world.alice.chain)
    given = GivenOrder(verify_order(envelope, (), world.certify, NOW), (envelope,))
    assign = pb.Assign(creator="users/mallory", creator_organization="organizations/mallory")
    assign.spec.image, assign.spec.function = "image", "summary"
    signed = code_request(assign, given)
    assert (signed.organization, signed.user) == ("organizations/dora", "organizations/dora/users/alice")
    said = code_request(assign, None)
    assert (said.organization, said.user) == ("organizations/mallory", "users/mallory")
    assign.creator = "organizations/mallory/nodes/one"
    assert code_request(assign, None).user == ""


@pytest.mark.parametrize(
    ("rule", "known", "expected"),
    [
        ({}, AUTHOR, None),
        ({}, facts(), Reason.IMAGE_UNSIGNED),
        ({}, facts(foreign=1), Reason.IMAGE_SIGNATURE_INVALID),
        ({"keys": ["reviewer"]}, AUTHOR, Reason.IMAGE_SIGNATURE_INVALID),
        ({"threshold": 2}, AUTHOR, Reason.IMAGE_SIGNATURES_TOO_FEW),
        ({"threshold": 2}, facts(proven("author"), proven("author", SIGNATURE, NAME)), Reason.IMAGE_SIGNATURES_TOO_FEW),
        ({"threshold": 2}, facts(proven("author"), proven("builder")), None),
        ({}, facts(proven("author", PROVENANCE)), Reason.IMAGE_UNSIGNED),
        ({}, facts(proven("author", SIGNATURE, NAME)), None),
        ({}, facts(proven("author", SIGNATURE, f"{NAME}-lax")), Reason.IMAGE_SIGNED_ELSEWHERE),
        ({"signed_as": ["*/algorithms/*-lax"]}, facts(proven("author", SIGNATURE, f"{NAME}-lax")), None),
        ({"roles": {"reviewer": 1}}, facts(proven("author"), proven("builder")), Reason.IMAGE_SIGNATURE_INVALID),
        ({"roles": {"reviewer": 1}}, facts(proven("reviewer")), None),
        ({"threshold": 2, "roles": {"reviewer": 1}}, facts(proven("reviewer")), Reason.IMAGE_SIGNATURES_TOO_FEW),
        ({"attestations": [{"type": "provenance"}]}, AUTHOR, Reason.IMAGE_ATTESTATION_MISSING),
        ({"attestations": [{"type": "provenance"}]}, facts(proven("author"), proven("builder", PROVENANCE)), None),
        (
            {"attestations": [{"type": "provenance", "keys": ["builder"]}]},
            facts(proven("author"), proven("author", PROVENANCE)),
            Reason.IMAGE_ATTESTATION_MISSING,
        ),
        ({"attestations": [{"type": "sbom"}]}, facts(proven("author"), proven("author", f"{SPDX}/v2.3")), None),
        # A package URL is no repository.
        ({"attestations": [{"type": "sbom"}]}, facts(proven("author"), proven("author", SPDX, "pkg:docker/x")), None),
        (
            {"attestations": [{"type": "sbom", "threshold": 2}]},
            facts(proven("author"), proven("author", SPDX)),
            Reason.IMAGE_ATTESTATION_MISSING,
        ),
        *(
            (
                {"attestations": [{"type": "https://example.org/test"}]},
                facts(proven("author"), proven("author", f"https://example.org/test{more}")),
                Reason.IMAGE_ATTESTATION_MISSING,
            )
            for more in ("imony", "/vuln/v1", "/v", "/v1x")
        ),
    ],
)
def test_what_must_be_signed(tmp_path: Path, rule: dict[str, Any], known: ImageFacts, expected: Reason | None) -> None:
    about: dict[str, dict[str, Any]] = {"reviewer": {"role": "reviewer"}}
    assert reason(judge(tmp_path, [rule], known, about=about)) is expected


def test_revoked_and_expired_keys_do_not_attest(tmp_path: Path) -> None:
    rule = {"keys": ["author"], "attestations": [{"type": "sbom", "keys": ["builder"]}]}
    known = facts(proven("author"), proven("builder", SPDX))
    assert reason(judge(tmp_path, [rule], known)) is None
    revoked = {"keys": [cosign.key_fingerprint(KEYS["builder"].public_key())]}
    verdict = judge(tmp_path, [rule], known, revoked=revoked)
    assert reason(verdict) is Reason.IMAGE_ATTESTATION_MISSING
    assert "that of builder counts no more" in str(verdict.refusal)
    expired = judge(tmp_path, [rule], known, about={"builder": {"expires": "2026-06-01"}})
    assert reason(expired) is Reason.IMAGE_ATTESTATION_MISSING


def test_any_rule_suffices_and_all_of_it_must_hold(tmp_path: Path) -> None:
    wide = {"threshold": 3}
    narrow = {"functions": ["other"]}
    assert reason(judge(tmp_path, [wide, narrow, {}], AUTHOR)) is None
    # The refusal that is told is that of the rule that came furthest.
    assert reason(judge(tmp_path, [narrow, wide], AUTHOR)) is Reason.IMAGE_SIGNATURES_TOO_FEW
    assert reason(judge(tmp_path, [{"users": ["bob"]}, narrow], None)) is Reason.POLICY_REFUSED


def test_arguments_are_free_when_one_rule_leaves_them_free(tmp_path: Path) -> None:
    bound = {"arguments": {"min_count": {"minimum": 10}}}
    other = {"arguments": {"min_count": {"minimum": 20}}, "keys": ["reviewer"]}
    assert [each.schemas for each in judge(tmp_path, [bound], AUTHOR).bounds] == [bound["arguments"]]
    assert [each.schemas for each in judge(tmp_path, [bound, other], AUTHOR).bounds] == [bound["arguments"]]
    assert judge(tmp_path, [bound, {}], AUTHOR).bounds == ()


def test_the_version_changes_with_the_policy_alone(tmp_path: Path) -> None:
    rule = {"repository": "r.example/**"}
    policy = write_policy(tmp_path, KEYS, [rule])
    assert policy.version == write_policy(tmp_path, KEYS, [rule]).version
    changed = [
        write_policy(tmp_path, KEYS, [rule | {"threshold": 2}]),
        write_policy(tmp_path, KEYS, [rule], about={"author": {"expires": "2027-01-01"}}),
        write_policy(tmp_path, KEYS, [rule], revoked={"digests": [REFERENCE.digest]}),
        write_policy(tmp_path, KEYS | {"author": pki.create_key()}, [rule]),
    ]
    assert len({policy.version, *(each.version for each in changed)}) == 5


@pytest.mark.parametrize("threshold", [{"threshold": 2}, {"attestations": [{"type": "sbom", "threshold": 2}]}])
def test_two_names_of_one_key_are_one_key(tmp_path: Path, threshold: dict[str, Any]) -> None:
    same = {"author": KEYS["author"], "again": KEYS["author"]}
    with pytest.raises(VantageError, match="only 1 different keys") as caught:
        write_policy(tmp_path, same, [{"repository": "r.example/**", **threshold}])
    assert caught.value.reason is Reason.CONFIGURATION_INVALID
