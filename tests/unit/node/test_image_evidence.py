"""Evidence from anywhere: what it proves, and how it is kept."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from vantage.common import cosign, pki
from vantage.common.declaration import LABEL
from vantage.common.errors import Reason, VantageError
from vantage.common.image_statements import Layout, build_bundle, build_statement, parse
from vantage.common.oci import ImageReference, digest_of
from vantage.node.images import evidence as evidence_module
from vantage.node.images import store as store_module
from vantage.node.images.evidence import Evidence, examine
from vantage.node.images.keys import TrustedKey
from vantage.node.images.store import EvidenceStore

KEY, STRANGER = pki.create_key(), pki.create_key()
TRUSTED = TrustedKey("author", cosign.key_fingerprint(KEY.public_key()), KEY.public_key())
CONFIG = json.dumps({"config": {"Labels": {LABEL: '{"schema": 1, "functions": {"summary": {}}}'}}}).encode()


def evidence(config: bytes = CONFIG, **manifest: object) -> Evidence:
    """Of an image that the author has signed in both layouts, and a stranger too."""
    document = {"config": {"digest": digest_of(config)}, "layers": []} | manifest
    content = json.dumps(document).encode()
    reference = ImageReference("registry.example.org", "algorithms/summary", digest_of(content))
    payload = cosign.build_payload(reference.repository, reference.digest)
    bundles = [build_bundle(key, build_statement(reference)) for key in (STRANGER, KEY)]
    statements = [
        *parse(Layout.CLASSIC, payload, cosign.sign(KEY, payload)),
        *(one for each in bundles for one in parse(Layout.BUNDLE, each)),
    ]
    return Evidence(reference, content, config, tuple(statements), unusable=1)


def test_what_trusted_keys_have_signed_is_proven_and_kept() -> None:
    given = evidence()
    facts, kept = examine(given, [TRUSTED])
    assert {each.fingerprint for each in facts.proven} == {TRUSTED.fingerprint}
    assert (facts.signatures, facts.foreign, facts.image_id) == (3, 1, digest_of(CONFIG))
    assert [each.layout for each in kept.statements] == [Layout.CLASSIC, Layout.BUNDLE]
    assert examine(kept, [TRUSTED])[0].proven == facts.proven
    assert not examine(given, [])[0].proven


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (replace(evidence(), manifest=evidence().manifest + b" "), Reason.IMAGE_TAMPERED),
        (replace(evidence(), config=CONFIG + b" "), Reason.IMAGE_TAMPERED),
        (replace(evidence(), config=b""), Reason.IMAGE_TAMPERED),
        (evidence(mediaType="application/vnd.oci.image.index.v1+json"), Reason.IMAGE_NOT_ALLOWED),
        (evidence(manifests=[]), Reason.IMAGE_NOT_ALLOWED),
        (evidence(b"[]"), Reason.IMAGE_TAMPERED),
        (evidence(b"{}"), Reason.IMAGE_DECLARATION_INVALID),
        (evidence(b'{"config": {"Labels": null}}'), Reason.IMAGE_DECLARATION_INVALID),
        (evidence(b'{"config": {"Labels": {"org.vantage.declaration": "{}"}}}'), Reason.IMAGE_DECLARATION_INVALID),
    ],
    ids=range(9),
)
def test_bytes_that_are_not_those_of_the_image_prove_nothing(given: Evidence, reason: Reason) -> None:
    with pytest.raises(VantageError) as caught:
        examine(given, [TRUSTED])
    assert caught.value.reason is reason


def test_only_so_many_signatures_are_compared_with_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence_module, "MAX_VERIFICATIONS", 4)
    others = [
        replace(TRUSTED, fingerprint=f"sha256:{number}", key=pki.create_key().public_key()) for number in range(3)
    ]
    given = evidence()
    assert examine(given, [TRUSTED, *others])[0].proven
    stranger = given.statements[1]
    assert not examine(replace(given, statements=(stranger, *given.statements)), [TRUSTED, *others])[0].proven


def test_what_is_kept_is_private_found_by_the_whole_name_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "MAX_FILES", 2)
    store = EvidenceStore(tmp_path / "evidence")
    given = [evidence(number=number) for number in range(3)]
    for age, each in enumerate(given):
        store.save(each)
        (newest,) = [path for path in (tmp_path / "evidence").iterdir() if path.stat().st_mtime > 1_000_000]
        assert newest.stat().st_mode & 0o777 == 0o600
        os.utime(newest, (age + 1, age + 1))
    assert [store.load(each.reference) is not None for each in given] == [False, True, True]
    loaded = store.load(given[2].reference)
    assert loaded is not None
    assert loaded == replace(given[2], unusable=0)
    assert store.load(replace(given[2].reference, path="algorithms/other")) is None


def test_a_disk_that_takes_nothing_costs_only_that(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = EvidenceStore(tmp_path / "file" / "evidence")
    store.save(evidence())
    assert store.load(evidence().reference) is None
