"""Attestations that authors attach and nodes ask for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from vantage.common import cosign, oci
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError
from vantage.node.images.store import EvidenceStore
from vantage.node.images.verifier import ImageVerifier
from vantage.node.sources import CodeRequest
from vantage.testing.declared import push_declaration
from vantage.testing.image_policy import write_policy
from vantage.testing.registry import Registry

pytestmark = pytest.mark.docker  # for the registry; no engine is asked

PASSWORD = "correct horse"
SPDX = {"spdxVersion": "SPDX-2.3", "name": "summary", "packages": [{"name": "pandas"}]}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture
def image(registry: Registry) -> str:
    declaration = {"schema": 1, "functions": {"summary": {}}}
    return asyncio.run(push_declaration(registry.address, "algorithms/summary", declaration))


@pytest.fixture
def key(tmp_path: Path, run: Run) -> Path:
    assert run("image", "key", "--out", tmp_path / "author", "--password-stdin", stdin=PASSWORD).exit_code == 0
    return tmp_path / "author.key"


def test_what_an_author_attaches_is_what_a_node_asks_for(image: str, key: Path, tmp_path: Path, run: Run) -> None:
    private = cosign.open_private_key(key.read_bytes(), PASSWORD.encode(), "author.key")
    rule = {"repository": "**", "attestations": [{"type": "sbom"}, {"type": "https://example.org/review/v1"}]}
    policy = write_policy(tmp_path, {"author": private}, [rule])

    def verify() -> None:
        store = EvidenceStore(tmp_path / "evidence")
        verifier = ImageVerifier(policy, lambda _registry: oci.RegistryAccess(), store, SystemClock())
        asyncio.run(verifier.verify(CodeRequest(image, "summary")))

    assert run("image", "sign", image, "--key", key, "--password-stdin", stdin=PASSWORD).exit_code == 0
    (tmp_path / "bill.json").write_text(json.dumps(SPDX))
    for kind, missing in (("spdx", "sbom"), ("https://example.org/review/v1", "https://example.org/review/v1")):
        with pytest.raises(VantageError) as caught:
            verify()
        assert caught.value.reason is Reason.IMAGE_ATTESTATION_MISSING
        assert f"it needs the attestation {missing} by" in caught.value.message
        told = ("--predicate", tmp_path / "bill.json", "--key", key, "--password-stdin", "--output", "json")
        done = run("image", "attest", image, "--type", kind, *told, stdin=PASSWORD)
        assert done.exit_code == 0, done.stderr
    verify()
    # A reviewer sees the bill.
    shown = json.loads(run("image", "review", image, "--output", "json").stdout)
    assert "pandas" in json.dumps(shown)


@pytest.mark.parametrize(
    ("kind", "content", "hint"),
    [
        ("sbom", "{}", "--type must be one of provenance, spdx"),
        ("spdx", "[]", "not a JSON object"),
        ("spdx", "{", "not a JSON object"),
        ("spdx", json.dumps({"filler": "x" * 7_000_000}), "nodes read at most"),
    ],
    ids=range(4),
)
def test_what_nobody_could_read_is_not_attached(
    image: str, key: Path, tmp_path: Path, run: Run, kind: str, content: str, hint: str
) -> None:
    (tmp_path / "file.json").write_text(content)
    told = ("--predicate", tmp_path / "file.json", "--key", key, "--password-stdin")
    done = run("image", "attest", image, "--type", kind, *told, stdin=PASSWORD)
    assert done.exit_code != 0
    assert hint in done.stderr
