"""Sigstore's own libraries verify our bundles, and we theirs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign, pki
from vantage.common.errors import RefusedError
from vantage.common.image_statements import BUNDLE_MEDIA_TYPE, Layout, build_bundle, build_statement, parse
from vantage.common.oci import ImageReference
from vantage.common.predicate_types import SIGNATURE

pytestmark = pytest.mark.nodejs

HERE = Path(__file__).parent
REFERENCE = ImageReference("registry.example.org", "algorithms/summary", f"sha256:{'ab' * 32}")
KEY = pki.create_key()


def node(what: str, **given: str) -> subprocess.CompletedProcess[str]:
    assert (HERE / "node_modules" / "@sigstore").is_dir(), "scripts/test tests/interop installs what it needs"
    return subprocess.run(
        ["node", HERE / "bundles.mjs", what],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    return cosign.public_pem(key.public_key()).decode()


def test_sigstore_verifies_our_bundle() -> None:
    statement = build_statement(REFERENCE)
    bundle = build_bundle(KEY, statement).decode()
    done = node("verify", bundle=bundle, key=pem_of(KEY))
    assert done.returncode == 0, done.stderr
    assert done.stdout.encode() == statement
    # ... and nothing else: another key, other bytes under the same signature.
    other = build_bundle(pki.create_key(), statement).decode()
    assert node("verify", bundle=other, key=pem_of(KEY)).returncode != 0
    exchanged = json.loads(bundle)
    exchanged["dsseEnvelope"]["signatures"] = json.loads(other)["dsseEnvelope"]["signatures"]
    assert node("verify", bundle=json.dumps(exchanged), key=pem_of(KEY)).returncode != 0


def test_we_verify_a_bundle_of_sigstore() -> None:
    # As cosign 3 writes it: the subject has no name.
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"digest": {"sha256": REFERENCE.digest.removeprefix("sha256:")}, "annotations": {}}],
        "predicateType": SIGNATURE,
        "predicate": {},
    }
    own = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    done = node("make", statement=json.dumps(statement), key=own)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mediaType"] == BUNDLE_MEDIA_TYPE
    (found,) = parse(Layout.BUNDLE, done.stdout.encode())
    assert (found.predicate, found.names) == (SIGNATURE, frozenset())
    assert found.is_about(REFERENCE)
    assert found.is_by(KEY.public_key())
    assert not found.is_by(pki.create_key().public_key())
    cut = json.loads(done.stdout)
    cut["dsseEnvelope"]["signatures"] = []
    with pytest.raises(RefusedError, match="one signature"):
        parse(Layout.BUNDLE, json.dumps(cut).encode())
