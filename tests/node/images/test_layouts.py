"""Both layouts of signatures, written to and read from a real registry, with and without the referrers API."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from vantage.common import cosign, image_signing, oci, pki
from vantage.common.errors import Reason, VantageError
from vantage.common.image_signing import (
    MAX_ATTESTATION,
    attach_statement,
    read_statements,
    sign_image,
    signatures_only,
    verify_image,
)
from vantage.common.image_statements import ENVELOPE_MEDIA_TYPE, Layout, build_bundle, build_statement
from vantage.common.oci import ImageReference
from vantage.common.predicate_types import SIGNATURE
from vantage.common.referrers import MAX_REFERRERS, fallback_tag, list_referrers
from vantage.testing.declared import push_declaration
from vantage.testing.registry import Registry
from vantage.testing.registry_front import RegistryFront

pytestmark = pytest.mark.docker  # for the registry; no engine is asked

AUTHOR, REVIEWER, STRANGER = (pki.create_key() for _ in range(3))
KEYS = {"author": AUTHOR.public_key(), "reviewer": REVIEWER.public_key()}
PROVENANCE = "https://slsa.dev/provenance/v1"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


@pytest.fixture(params=["referrers API", "fallback tag"])
def address(request: pytest.FixtureRequest, registry: Registry) -> Iterator[str]:
    with RegistryFront(registry.address, referrers=request.param == "referrers API") as front:
        yield front.address


async def push_image(address: str) -> ImageReference:
    """An image like no other."""
    declaration = {"schema": 1, "functions": {"summary": {}}}
    unique = secrets.token_hex(8)
    return ImageReference.parse(await push_declaration(address, "algorithms/summary", declaration, unique, unique))


@asynccontextmanager
async def connected(image: ImageReference) -> AsyncIterator[oci.Registry]:
    async with oci.connect(image.registry, image.path, oci.RegistryAccess()) as connection:
        yield connection


async def test_signatures_of_both_layouts_count_together_and_a_key_once(address: str) -> None:
    image = await push_image(address)
    async with connected(image) as connection:
        with pytest.raises(VantageError) as caught:
            await verify_image(connection, image, KEYS)
        assert caught.value.reason is Reason.IMAGE_UNSIGNED
        for layout in (Layout.BUNDLE, Layout.CLASSIC):
            assert await sign_image(connection, image, AUTHOR, layout)
            assert not await sign_image(connection, image, AUTHOR, layout)
        with pytest.raises(VantageError, match="1 of the 2 keys"):
            await verify_image(connection, image, KEYS, 2)
        assert await sign_image(connection, image, REVIEWER, Layout.BUNDLE)
        assert await verify_image(connection, image, KEYS, 2) == ["author", "reviewer"]
        found = await read_statements(connection, image)
        assert [each.layout for each in found.statements] == [Layout.CLASSIC, Layout.BUNDLE, Layout.BUNDLE]
        assert found.unusable == 0


@pytest.mark.parametrize("layout", [Layout.CLASSIC, Layout.BUNDLE])
async def test_who_signed_an_image_elsewhere_signs_it_once_more(registry: Registry, layout: Layout) -> None:
    image = await push_image(registry.address)
    original = replace(image, path="algorithms/original")
    async with connected(image) as connection:
        assert await sign_image(connection, original, AUTHOR, layout)  # as it comes with a copy of the image
        with pytest.raises(VantageError) as caught:
            await verify_image(connection, image, KEYS)
        assert caught.value.reason is Reason.IMAGE_SIGNED_ELSEWHERE
        assert await sign_image(connection, image, AUTHOR, layout)
        assert await verify_image(connection, image, KEYS) == ["author"]
        assert not await sign_image(connection, image, AUTHOR, layout)


async def test_signatures_of_another_image_are_in_nobodys_way(registry: Registry) -> None:
    image, other = await push_image(registry.address), await push_image(registry.address)
    async with connected(image) as connection:
        await sign_image(connection, other, AUTHOR)
        found = await connection.manifest(cosign.signature_tag(other.digest))
        assert found is not None
        await connection.put_manifest(cosign.signature_tag(image.digest), found[1])
        assert await sign_image(connection, image, AUTHOR)
        assert await verify_image(connection, image, KEYS) == ["author"]


async def test_the_manifest_is_that_of_cosign(address: str) -> None:
    image = await push_image(address)
    async with connected(image) as connection:
        await sign_image(connection, image, AUTHOR, Layout.BUNDLE)
        (descriptor,) = await list_referrers(connection, image.digest)
        found = await connection.manifest(descriptor["digest"])
        assert found is not None
        kind = "application/vnd.dev.sigstore.bundle.v0.3+json"
        assert descriptor["artifactType"] == found[1]["artifactType"] == found[1]["layers"][0]["mediaType"] == kind
        assert found[1]["config"]["mediaType"] == "application/vnd.oci.empty.v1+json"
        assert found[1]["subject"]["digest"] == image.digest
        assert found[1]["annotations"]["dev.sigstore.bundle.predicateType"] == SIGNATURE
        assert found[1]["annotations"]["dev.sigstore.bundle.content"] == "dsse-envelope"


async def test_signers_at_the_same_time_lose_nothing_with_the_referrers_api(registry: Registry) -> None:
    keys = {str(number): pki.create_key() for number in range(4)}
    with RegistryFront(registry.address) as front:
        image = await push_image(front.address)

        async def sign(name: str) -> None:
            async with connected(image) as connection:
                assert await sign_image(connection, image, keys[name], Layout.BUNDLE)

        await asyncio.gather(*map(sign, keys))
        async with connected(image) as connection:
            public = {name: key.public_key() for name, key in keys.items()}
            assert await verify_image(connection, image, public, len(keys)) == sorted(keys)


async def test_a_bundle_that_refers_to_another_image_or_speaks_of_one_is_none(address: str) -> None:
    image, other = await push_image(address), await push_image(address)
    async with connected(image) as connection:
        manifest = await connection.manifest(image.digest)
        assert manifest is not None
        copied = build_bundle(AUTHOR, build_statement(other))
        await attach_statement(connection, image, manifest, copied, SIGNATURE)
        with pytest.raises(VantageError) as caught:
            await verify_image(connection, image, KEYS)
        assert caught.value.reason is Reason.IMAGE_SIGNATURE_INVALID
        # The list names the manifest of a bundle that belongs to another image.
        await sign_image(connection, other, AUTHOR, Layout.BUNDLE)
        theirs = await list_referrers(connection, other.digest)
        index = {"schemaVersion": 2, "mediaType": oci.INDEX_TYPES[0], "manifests": theirs}
        third = await push_image(address)
        await connection.put_manifest(fallback_tag(third.digest), index)
        assert not (await read_statements(connection, third)).statements


async def test_attestations_are_read_when_they_are_wanted(address: str) -> None:
    image = await push_image(address)
    async with connected(image) as connection:
        manifest = await connection.manifest(image.digest)
        assert manifest is not None
        bundle = build_bundle(AUTHOR, build_statement(image, PROVENANCE, {"buildDefinition": {}}))
        await attach_statement(connection, image, manifest, bundle, PROVENANCE)
        envelope = json.dumps(json.loads(bundle)["dsseEnvelope"]).encode()
        layer = {
            "mediaType": ENVELOPE_MEDIA_TYPE,
            "digest": await connection.put_blob(envelope),
            "size": len(envelope),
            "annotations": {"predicateType": PROVENANCE, "dev.cosignproject.cosign/signature": ""},
        }
        document = {"schemaVersion": 2, "mediaType": oci.MANIFEST_TYPES[0], "config": manifest[1]["config"]}
        tag = f"{image.digest.replace(':', '-')}.att"
        await connection.put_manifest(tag, {**document, "layers": [layer]})
        assert not (await read_statements(connection, image, signatures_only)).statements
        found = (await read_statements(connection, image, lambda kind: kind == PROVENANCE)).statements
        assert [each.layout for each in found] == [Layout.BUNDLE, Layout.ENVELOPE]
        assert all(each.predicate == PROVENANCE and each.is_by(AUTHOR.public_key()) for each in found)


async def test_what_is_malformed_or_too_large_or_too_much_does_not_count_and_does_not_hide_the_rest(
    address: str,
) -> None:
    image = await push_image(address)
    async with connected(image) as connection:
        manifest = await connection.manifest(image.digest)
        assert manifest is not None
        for junk in (b"{}", b"[" * 1000, b" " * (MAX_ATTESTATION + 1)):
            await attach_statement(connection, image, manifest, junk, SIGNATURE)
        await sign_image(connection, image, AUTHOR, Layout.BUNDLE)
        found = await read_statements(connection, image)
        assert (len(found.statements), found.unusable) == (1, 2)
        assert await verify_image(connection, image, KEYS) == ["author"]


async def test_only_so_much_is_read_about_an_image(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    image = await push_image(registry.address)
    async with connected(image) as connection:
        for key in (AUTHOR, REVIEWER):
            await sign_image(connection, image, key)
        size = len((await read_statements(connection, image)).statements[0].content)
        monkeypatch.setattr(image_signing, "MAX_TOTAL", 2 * size - 1)
        found = await read_statements(connection, image)
        assert (len(found.statements), found.size) == (1, size)


async def test_only_so_many_are_looked_at(registry: Registry) -> None:
    with RegistryFront(registry.address) as front:
        image = await push_image(front.address)
        async with connected(image) as connection:
            await sign_image(connection, image, AUTHOR, Layout.BUNDLE)
            (genuine,) = await list_referrers(connection, image.digest)
            junk = [{"digest": f"sha256:{number:064x}"} for number in range(MAX_REFERRERS)]
            for before, found in ((MAX_REFERRERS - 1, 1), (MAX_REFERRERS, 0)):
                listed = json.dumps({"manifests": [*junk[:before], genuine, *junk]}).encode()
                front.change = lambda path, content, listed=listed: listed if "/referrers/" in path else content  # type: ignore[misc]
                front.asked.clear()
                assert len((await read_statements(connection, image)).statements) == found
                assert sum("/manifests/sha256:" in path for path in front.asked) == MAX_REFERRERS


async def test_a_payload_that_is_not_the_bytes_of_its_digest_is_refused(registry: Registry) -> None:
    with RegistryFront(registry.address) as front:
        image = await push_image(front.address)
        async with connected(image) as connection:
            await sign_image(connection, image, AUTHOR, Layout.BUNDLE)
            front.change = lambda path, content: (
                content.replace(base64.b64encode(b"in-toto")[:4], b"AAAA") + b" " if "/blobs/" in path else content
            )
            with pytest.raises(VantageError) as caught:
                await verify_image(connection, image, KEYS)
            assert caught.value.reason is Reason.IMAGE_TAMPERED
