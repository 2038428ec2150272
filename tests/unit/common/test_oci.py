"""A registry that lies: whatever it sends in place of what was asked for by digest is not taken."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from vantage.common import oci
from vantage.common.errors import Reason, VantageError

MANIFEST = b'{"schemaVersion": 2, "layers": []}'
DIGEST = oci.digest_of(MANIFEST)


class Liar:
    """Answers every question with the same bytes; a real registry looks at its files itself before it sends them."""

    def __init__(self) -> None:
        self.body = MANIFEST
        self.challenge = b""
        self.address = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = await reader.readuntil(b"\r\n\r\n")
        status = b"200 OK"
        if self.challenge and b" /token " not in asked:
            status = b"401 Unauthorized\r\nWWW-Authenticate: " + self.challenge
        head = b"HTTP/1.1 %s\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % (status, len(self.body)) + self.body)
        writer.close()


@pytest.fixture
async def liar() -> AsyncIterator[Liar]:
    made = Liar()
    async with await asyncio.start_server(made.answer, "127.0.0.1", 0) as server:
        made.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


@pytest.fixture
async def registry(liar: Liar) -> AsyncIterator[oci.Registry]:
    async with oci.connect(liar.address, "algorithms/summary", oci.RegistryAccess()) as connected:
        yield connected


async def test_what_has_the_digest_is_taken(registry: oci.Registry) -> None:
    assert await registry.manifest(DIGEST) == (MANIFEST, json.loads(MANIFEST))
    assert await registry.blob(DIGEST) == MANIFEST


@pytest.mark.parametrize("body", [MANIFEST + b" ", b"", b"{}", MANIFEST.replace(b"2", b"3")])
async def test_what_has_another_digest_is_not(registry: oci.Registry, liar: Liar, body: bytes) -> None:
    liar.body = body
    for question in (registry.manifest(DIGEST), registry.blob(DIGEST)):
        with pytest.raises(VantageError) as caught:
            await question
        assert caught.value.reason is Reason.IMAGE_TAMPERED


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"7", b"{", b"[" * 100_000], ids=range(6))
async def test_a_tag_leads_to_a_manifest_or_nowhere(registry: oci.Registry, liar: Liar, body: bytes) -> None:
    liar.body = body
    for reference in ("latest", oci.digest_of(body)):
        with pytest.raises(VantageError) as caught:
            await registry.manifest(reference)
        assert caught.value.reason is Reason.IMAGE_TAMPERED


async def test_no_more_is_read_than_a_manifest_may_have(registry: oci.Registry, liar: Liar) -> None:
    liar.body = json.dumps({"filler": "x" * oci.MAX_MANIFEST}).encode()
    with pytest.raises(VantageError, match="more than") as caught:
        await registry.manifest(oci.digest_of(liar.body))
    assert caught.value.reason is Reason.IMAGE_TAMPERED


@pytest.mark.parametrize(
    ("realm", "body"),
    [("", b""), ("", b"<html>"), ("", b"[]"), ("", b"{}"), ("http://a:b/", b"{}"), ("file:///", b"{}")],
)
async def test_a_token_service_that_gives_no_token_is_said(
    registry: oci.Registry, liar: Liar, realm: str, body: bytes
) -> None:
    liar.challenge = f'Bearer realm="{realm or f"http://{liar.address}/token"}"'.encode()
    liar.body = body
    with pytest.raises(VantageError) as caught:
        await registry.manifest(DIGEST)
    assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE
