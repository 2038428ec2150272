"""A registry that lies: whatever it sends in place of what was asked for by digest is not taken."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from vantage.common import oci
from vantage.common.errors import Reason, VantageError
from vantage.testing.scripted_registry import Answer, ScriptedRegistry

MANIFEST = b'{"schemaVersion": 2, "layers": []}'
DIGEST = oci.digest_of(MANIFEST)


@pytest.fixture
async def liar() -> AsyncIterator[ScriptedRegistry]:
    async with ScriptedRegistry.answering(Answer(body=MANIFEST)) as made:
        yield made


@pytest.fixture
async def registry(liar: ScriptedRegistry) -> AsyncIterator[oci.Registry]:
    async with oci.connect(liar.address, "algorithms/summary", oci.RegistryAccess()) as connected:
        yield connected


async def test_what_has_the_digest_is_taken(registry: oci.Registry) -> None:
    assert await registry.manifest(DIGEST) == (MANIFEST, json.loads(MANIFEST))
    assert await registry.blob(DIGEST) == MANIFEST


@pytest.mark.parametrize("body", [MANIFEST + b" ", b"", b"{}", MANIFEST.replace(b"2", b"3")])
async def test_what_has_another_digest_is_not(registry: oci.Registry, liar: ScriptedRegistry, body: bytes) -> None:
    liar.answers = [Answer(body=body)]
    for question in (registry.manifest(DIGEST), registry.blob(DIGEST)):
        with pytest.raises(VantageError) as caught:
            await question
        assert caught.value.reason is Reason.IMAGE_TAMPERED


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"7", b"{", b"[" * 100_000], ids=range(6))
async def test_a_tag_leads_to_a_manifest_or_nowhere(
    registry: oci.Registry, liar: ScriptedRegistry, body: bytes
) -> None:
    liar.answers = [Answer(body=body)]
    for reference in ("latest", oci.digest_of(body)):
        with pytest.raises(VantageError) as caught:
            await registry.manifest(reference)
        assert caught.value.reason is Reason.IMAGE_TAMPERED


async def test_no_more_is_read_than_a_manifest_may_have(registry: oci.Registry, liar: ScriptedRegistry) -> None:
    body = json.dumps({"filler": "x" * oci.MAX_MANIFEST}).encode()
    liar.answers = [Answer(body=body)]
    with pytest.raises(VantageError, match="more than") as caught:
        await registry.manifest(oci.digest_of(body))
    assert caught.value.reason is Reason.IMAGE_TAMPERED


@pytest.mark.parametrize(
    ("realm", "body"),
    [("", b""), ("", b"<html>"), ("", b"[]"), ("", b"{}"), ("http://a:b/", b"{}"), ("file:///", b"{}")],
)
async def test_a_token_service_that_gives_no_token_is_said(
    registry: oci.Registry, liar: ScriptedRegistry, realm: str, body: bytes
) -> None:
    challenge = f'www-authenticate: Bearer realm="{realm or f"http://{liar.address}/token"}"'
    liar.answers = [Answer(401, headers=[challenge]), Answer(body=body)]
    with pytest.raises(VantageError) as caught:
        await registry.manifest(DIGEST)
    assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE
