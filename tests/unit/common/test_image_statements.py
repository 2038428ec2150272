from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from vantage.common import cosign, pki
from vantage.common.errors import Reason, RefusedError
from vantage.common.image_statements import (
    BUNDLE_MEDIA_TYPE,
    PAYLOAD_TYPE,
    Layout,
    build_bundle,
    build_statement,
    counts_for,
    parse,
)
from vantage.common.oci import ImageReference
from vantage.common.predicate_types import SIGNATURE

REFERENCE = ImageReference("registry.example.org", "algorithms/summary", f"sha256:{'ab' * 32}")
KEY, OTHER = pki.create_key(), pki.create_key()
BUNDLE = build_bundle(KEY, build_statement(REFERENCE))


def changed(**changes: Any) -> bytes:
    return json.dumps(json.loads(BUNDLE) | changes).encode()


def enveloped(statement: object, signatures: int = 1, kind: str = PAYLOAD_TYPE) -> bytes:
    content = statement if isinstance(statement, bytes) else json.dumps(statement).encode()
    envelope = {
        "payloadType": kind,
        "payload": base64.b64encode(content).decode(),
        "signatures": [{"sig": "AAAA"}] * signatures,
    }
    return changed(dsseEnvelope=envelope)


def test_a_bundle_says_who_signed_what_about_which_image() -> None:
    (found,) = parse(Layout.BUNDLE, BUNDLE)
    assert (found.predicate, found.digests) == (SIGNATURE, frozenset({REFERENCE.digest}))
    assert found.repositories(REFERENCE) == {REFERENCE.repository}
    assert found.is_about(REFERENCE)
    assert found.is_by(KEY.public_key())
    assert not found.is_by(OTHER.public_key())
    assert not found.is_about(ImageReference(REFERENCE.registry, REFERENCE.path, f"sha256:{'cd' * 32}"))


def test_a_signature_is_over_the_type_too() -> None:
    """A statement of another kind, signed with the same key over the same bytes, is none of ours."""
    document = json.loads(BUNDLE)
    document["dsseEnvelope"]["signatures"][0]["sig"] = cosign.sign(
        KEY, base64.b64decode(document["dsseEnvelope"]["payload"])
    )
    (found,) = parse(Layout.BUNDLE, json.dumps(document).encode())
    assert not found.is_by(KEY.public_key())


STATEMENT = json.loads(build_statement(REFERENCE))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff",
        changed(mediaType="application/vnd.dev.sigstore.bundle+json;version=0.1"),
        changed(dsseEnvelope=None),
        changed(dsseEnvelope={"payloadType": PAYLOAD_TYPE, "payload": "%", "signatures": [{"sig": ""}]}),
        changed(dsseEnvelope={"payloadType": PAYLOAD_TYPE, "payload": "AAAA"}),
        changed(dsseEnvelope={"payloadType": PAYLOAD_TYPE, "payload": "AAAA", "signatures": [{"sig": 1}]}),
        enveloped(STATEMENT, kind="application/json"),
        enveloped(STATEMENT, signatures=0),
        enveloped(STATEMENT, signatures=2),
        enveloped(b"no json"),
        enveloped([STATEMENT]),
        enveloped(STATEMENT | {"_type": "https://in-toto.io/Statement/v9"}),
        enveloped(STATEMENT | {"predicateType": None}),
        enveloped(STATEMENT | {"subject": []}),
        enveloped(STATEMENT | {"subject": {}}),
        enveloped(STATEMENT | {"subject": [{"digest": {"sha512": "ab"}}]}),
        enveloped(STATEMENT | {"subject": ["text"]}),
        enveloped(STATEMENT | {"subject": STATEMENT["subject"] * 1_001}),
    ],
    ids=range(21),
)
def test_what_is_malformed_is_no_statement(content: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        parse(Layout.BUNDLE, content)
    assert caught.value.reason is Reason.IMAGE_SIGNATURE_INVALID


def test_another_library_verifies_our_envelope_and_we_verify_its() -> None:
    """securesystemslib, which in-toto uses."""
    pem = cosign.public_pem(KEY.public_key()).decode()
    public = SSlibKey("any", "ecdsa", "ecdsa-sha2-nistp256", {"public": pem})
    ours = json.loads(BUNDLE)["dsseEnvelope"]
    ours["signatures"][0]["keyid"] = "any"
    assert Envelope.from_dict(ours).verify([public], 1)
    theirs = Envelope(build_statement(REFERENCE), PAYLOAD_TYPE, {})
    theirs.sign(CryptoSigner(KEY, public))
    (found,) = parse(Layout.ENVELOPE, json.dumps(theirs.to_dict()).encode())
    assert found.is_by(KEY.public_key())
    assert found.is_about(REFERENCE)


def test_an_envelope_of_cosign_attest_may_have_several_signatures() -> None:
    envelope = json.loads(BUNDLE)["dsseEnvelope"]
    envelope["signatures"] *= 2
    assert [each.is_by(KEY.public_key()) for each in parse(Layout.ENVELOPE, json.dumps(envelope).encode())] == [
        True
    ] * 2
    envelope["signatures"] *= 10
    with pytest.raises(RefusedError):
        parse(Layout.ENVELOPE, json.dumps(envelope).encode())


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("registry.example.org:5000/a/b", "registry.example.org:5000/a/b"),
        ("registry.example.org/a/b:1.0", "registry.example.org/a/b"),
        (f"registry.example.org/a/b@{REFERENCE.digest}", "registry.example.org/a/b"),
        (f"registry.example.org:5000/a/b:1@{REFERENCE.digest}", "registry.example.org:5000/a/b"),
        ("index.docker.io/library/a", "docker.io/library/a"),
    ],
)
def test_repositories_are_recognised_as_signers_write_them(written: str, meant: str) -> None:
    payload = cosign.build_payload(written, REFERENCE.digest)
    (found,) = parse(Layout.CLASSIC, payload, cosign.sign(KEY, payload))
    named = found.repositories(REFERENCE)
    assert named == {meant}
    assert found.is_by(KEY.public_key())
    assert counts_for(named, meant)
    assert counts_for(named, "registry.example.org/other", [meant])
    assert not counts_for(named, "registry.example.org/other", ["registry.example.org/other/*"])
    (unnamed,) = parse(Layout.CLASSIC, cosign.build_payload("", REFERENCE.digest), "")
    assert counts_for(unnamed.repositories(REFERENCE), "registry.example.org/other")


def test_of_several_images_in_one_statement_each_has_its_own_name() -> None:
    """Otherwise what was signed for one repository could be copied to that of another image of the same statement."""
    other = ImageReference("registry.example.org", "lax", f"sha256:{'cd' * 32}")
    unnamed = ImageReference("registry.example.org", "any", f"sha256:{'ef' * 32}")
    subjects = [*STATEMENT["subject"], *json.loads(build_statement(other))["subject"]]
    subjects.append({"digest": {"sha256": unnamed.digest.removeprefix("sha256:")}})
    (found,) = parse(Layout.BUNDLE, enveloped(STATEMENT | {"subject": subjects}))
    assert found.is_about(REFERENCE)
    assert found.repositories(REFERENCE) == {REFERENCE.repository}
    assert found.repositories(other) == {other.repository}
    assert found.repositories(unnamed) == {REFERENCE.repository, other.repository}


def test_the_media_type_is_that_of_version_0_3() -> None:
    assert json.loads(BUNDLE)["mediaType"] == BUNDLE_MEDIA_TYPE == "application/vnd.dev.sigstore.bundle.v0.3+json"
