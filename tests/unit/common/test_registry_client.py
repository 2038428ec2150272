"""Registries that fail, in passing or for good, and what is made of it."""

from __future__ import annotations

import io
import os

import pytest

from vantage.common import blobs, oci
from vantage.common.blobs import Descriptor
from vantage.common.errors import Reason, VantageError
from vantage.common.oci import RegistryAccess, digest_of
from vantage.common.registry_http import ATTEMPTS
from vantage.testing.scripted_registry import Answer, ScriptedRegistry

CONTENT = os.urandom(3_000_000)
BLOB = Descriptor("application/octet-stream", digest_of(CONTENT), len(CONTENT))
MANIFEST = b'{"schemaVersion": 2}'


async def read(server: ScriptedRegistry, patience: float = 5, window: float = 20) -> bytes | None:
    async with oci.connect(server.address, "a/b", RegistryAccess(patience=patience)) as registry:
        registry.window = window
        found = await registry.manifest(digest_of(MANIFEST))
        return None if found is None else found[0]


async def fetch(server: ScriptedRegistry, blob: Descriptor = BLOB, window: float = 20) -> bytes:
    target = io.BytesIO()
    async with oci.connect(server.address, "a/b", RegistryAccess(patience=5)) as registry:
        registry.window = window
        await blobs.download(registry, blob, target)
    return target.getvalue()


def ranges(server: ScriptedRegistry) -> list[str]:
    return [
        line.partition(": ")[2]
        for head in server.asked
        for line in head.splitlines()
        if line.lower().startswith("range")
    ]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_fails_in_passing_is_asked_again(status: int) -> None:
    async with ScriptedRegistry.answering(Answer(status), Answer(body=MANIFEST)) as server:
        assert await read(server) == MANIFEST
    async with ScriptedRegistry.answering(Answer(status, b'{"errors": [{"code": "TOOMANYREQUESTS"}]}')) as server:
        with pytest.raises(VantageError, match=f"it answered {status} TOOMANYREQUESTS") as caught:
            await read(server)
        assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE
        assert len(server.asked) == ATTEMPTS


async def test_a_connection_that_breaks_is_opened_again() -> None:
    async with ScriptedRegistry.answering(Answer(body=MANIFEST[:5], length=20), Answer(body=MANIFEST)) as server:
        assert await read(server) == MANIFEST


@pytest.mark.parametrize("status", [400, 401, 403, 405, 418])
async def test_what_is_refused_is_not_asked_again(status: int) -> None:
    async with ScriptedRegistry.answering(Answer(status, b"<html>\x1b[31m")) as server:
        with pytest.raises(VantageError) as caught:
            await read(server)
        assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE
        assert "\x1b" not in caught.value.message
        assert len(server.asked) == 1


async def test_what_is_not_there_is_not_there() -> None:
    async with ScriptedRegistry.answering(Answer(404)) as server:
        assert await read(server) is None
        with pytest.raises(VantageError) as caught:
            await fetch(server)
        assert caught.value.reason is Reason.IMAGE_NOT_FOUND


async def test_a_silent_or_trickling_registry_is_given_up_at_once() -> None:
    async with ScriptedRegistry.answering(Answer(length=20, body=MANIFEST[:1], pause=60)) as server:
        with pytest.raises(VantageError, match="does not answer in time"):
            await read(server, patience=1)
        assert len(server.asked) == 1
    # Each byte comes in time, however busy the machine is.
    async with ScriptedRegistry.answering(Answer(body=MANIFEST, pause=0.1)) as server:
        with pytest.raises(VantageError, match="answers too slowly"):
            await read(server, window=1)
        assert len(server.asked) == 1


async def test_a_download_goes_on_where_it_was() -> None:
    half = 2_000_000
    part = Answer(206, CONTENT[half:], [f"content-range: bytes {half}-{len(CONTENT) - 1}/{len(CONTENT)}"])
    async with ScriptedRegistry.answering(Answer(body=CONTENT[:half], length=len(CONTENT)), part) as server:
        assert await fetch(server) == CONTENT
        assert ranges(server) == [f"bytes={half}-"]


async def test_a_registry_without_ranges_sends_all_of_it_again() -> None:
    broken = Answer(body=CONTENT[:2_000_000], length=len(CONTENT))
    async with ScriptedRegistry.answering(broken, Answer(body=CONTENT)) as server:
        assert await fetch(server) == CONTENT


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Answer(body=CONTENT[:-1] + b"?"), id="other bytes"),
        pytest.param(Answer(body=CONTENT + b"?"), id="more bytes"),
        pytest.param(Answer(206, CONTENT, ["content-range: bytes 7-9/10"]), id="another part"),
    ],
)
async def test_other_bytes_are_refused(answer: Answer) -> None:
    async with ScriptedRegistry.answering(answer) as server:
        with pytest.raises(VantageError) as caught:
            await fetch(server)
        assert caught.value.reason is Reason.IMAGE_TAMPERED


async def test_a_download_without_progress_is_given_up() -> None:
    async with ScriptedRegistry.answering(Answer(body=b"", length=100)) as server:
        with pytest.raises(VantageError, match="after 0 of 3000000 bytes"):
            await fetch(server)
        assert len(server.asked) == ATTEMPTS


async def test_a_download_that_trickles_is_given_up() -> None:
    async with ScriptedRegistry.answering(Answer(body=CONTENT, pause=0.05)) as server:
        with pytest.raises(VantageError, match="it sends too slowly"):
            await fetch(server, window=0.2)
        assert len(server.asked) == ATTEMPTS


async def test_nothing_is_unpacked_on_the_way() -> None:
    """A kilobyte with 'content-encoding: gzip' would become a gigabyte in memory."""
    async with ScriptedRegistry.answering(Answer(body=MANIFEST, headers=["content-encoding: gzip"])) as server:
        assert await read(server) == MANIFEST
        assert "accept-encoding: identity" in server.asked[0].lower()


async def test_credentials_do_not_follow_to_another_place() -> None:
    async with ScriptedRegistry.answering(Answer(body=CONTENT)) as elsewhere:
        answers = (
            Answer(401, headers=['www-authenticate: Basic realm="x"']),
            Answer(307, headers=[f"location: http://{elsewhere.address}/storage"]),
        )
        async with ScriptedRegistry.answering(*answers) as server:
            access = RegistryAccess("clara", "secret")
            async with oci.connect(server.address, "a/b", access) as registry:
                await blobs.download(registry, BLOB, io.BytesIO())
            assert "authorization" in server.asked[1].lower()
            assert "authorization" not in elsewhere.asked[0].lower()


async def test_credentials_do_not_follow_to_where_uploads_go() -> None:
    async with ScriptedRegistry.answering(Answer(201)) as elsewhere:
        answers = (
            Answer(401, headers=['www-authenticate: Basic realm="x"']),
            Answer(202, headers=[f"location: http://{elsewhere.address}/storage?state=1"]),
        )
        async with ScriptedRegistry.answering(*answers) as server:
            async with oci.connect(server.address, "a/b", RegistryAccess("clara", "secret")) as registry:
                await registry.put_blob(b"content")
            assert "authorization" in server.asked[1].lower()
        assert elsewhere.asked[0].startswith("PUT /storage?state=1&digest=sha256")
        assert "authorization" not in elsewhere.asked[0].lower()


async def test_an_upload_that_is_redirected_once_it_was_sent_is_a_failure_of_the_registry() -> None:
    begun, redirect = Answer(202, headers=["location: /upload"]), Answer(307, headers=["location: /elsewhere"])
    async with ScriptedRegistry.answering(begun, redirect) as server:
        async with oci.connect(server.address, "a/b", RegistryAccess()) as registry:
            with pytest.raises(VantageError) as caught:
                await blobs.upload(registry, blobs.Descriptor("x", oci.digest_of(b"x"), 1), io.BytesIO(b"x"))
        assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE


async def test_where_a_registry_redirects_to_gets_no_credentials_by_asking_for_them() -> None:
    async with ScriptedRegistry.answering(Answer()) as elsewhere:
        challenge = f'www-authenticate: Bearer realm="http://{elsewhere.address}/token"'
        elsewhere.answers = [Answer(401, headers=[challenge])]
        redirect = Answer(307, headers=[f"location: http://{elsewhere.address}/storage"])
        async with ScriptedRegistry.answering(redirect) as server:
            with pytest.raises(VantageError) as caught:
                async with oci.connect(server.address, "a/b", RegistryAccess("clara", "secret")) as registry:
                    await registry.manifest("latest")
        assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE
        assert [each.split()[1] for each in elsewhere.asked] == ["/storage"]


async def test_a_token_service_at_an_open_address_gets_no_password() -> None:
    challenge = 'www-authenticate: Bearer realm="http://tokens.example.org/token",service="x"'
    async with ScriptedRegistry.answering(Answer(401, headers=[challenge])) as server:
        with pytest.raises(VantageError, match="no https address"):
            async with oci.connect(server.address, "a/b", RegistryAccess("clara", "secret")) as registry:
                await registry.manifest("latest")
