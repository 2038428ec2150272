"""The attack list: each is tried against a real registry, and refused with a reason of its own (docs/node.md)."""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from docker.errors import ImageNotFound

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common import cosign, oci, pki
from vantage.common.clock import ManualClock
from vantage.common.dsse import pre_authentication_encoding
from vantage.common.errors import Reason, VantageError
from vantage.common.image_signing import attach_statement, sign_image
from vantage.common.image_statements import PAYLOAD_TYPE, Layout, build_bundle, build_statement
from vantage.common.oci import ImageReference
from vantage.common.predicate_types import SIGNATURE
from vantage.node import config
from vantage.node.images.source import ImageSource
from vantage.node.images.store import EvidenceStore
from vantage.node.images.verifier import Admission, ImageVerifier, VerifiedImage
from vantage.node.policy import decide_call
from vantage.node.sources import CodeRequest
from vantage.testing.declared import push_declaration, push_index
from vantage.testing.engine import docker_client
from vantage.testing.image_policy import write_policy
from vantage.testing.registry import Registry
from vantage.testing.registry_front import RegistryFront

pytestmark = pytest.mark.docker

AUTHOR, REVIEWER, STRANGER = (pki.create_key() for _ in range(3))
DECLARATION = {"schema": 1, "functions": {"summary": {}}}
NOW = datetime(2026, 12, 31, 12, tzinfo=UTC)
BOTH = pytest.mark.parametrize("layout", [Layout.CLASSIC, Layout.BUNDLE])


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


class Station:
    """What decides at a node, its registry, and the hands of an author and of an attacker."""

    def __init__(self, directory: Path, front: RegistryFront) -> None:
        self.front = front
        self.clock = ManualClock(NOW)
        self._directory = directory

    def verifier(self, rules: list[dict[str, Any]] | None = None, **changes: Any) -> ImageVerifier:
        """One that trusts author and reviewer for everything, unless told otherwise; evidence is kept between them."""
        rules = rules or [{"repository": f"{self.front.address}/**"}]
        policy = write_policy(self._directory, {"author": AUTHOR, "reviewer": REVIEWER}, rules, **changes)
        store = EvidenceStore(self._directory / "evidence")
        return ImageVerifier(policy, lambda _registry: oci.RegistryAccess(), store, self.clock)

    async def allowed(self, image: object, verifier: ImageVerifier | None = None) -> Admission:
        return await (verifier or self.verifier()).verify(CodeRequest(str(image), "summary"))

    async def refused(self, image: object, verifier: ImageVerifier | None = None) -> VantageError:
        with pytest.raises(VantageError) as caught:
            await self.allowed(image, verifier)
        return caught.value

    async def push(self, path: str = "algorithms/summary", tag: str = "", content: str = "") -> ImageReference:
        content = content or secrets.token_hex(8)
        files = {"content": content.encode()}
        return ImageReference.parse(
            await push_declaration(self.front.address, path, DECLARATION, content, tag or content, files=files)
        )

    async def sign(
        self, image: ImageReference, key: ec.EllipticCurvePrivateKey = AUTHOR, layout: Layout = Layout.CLASSIC
    ) -> None:
        async with connected(image) as connection:
            assert await sign_image(connection, image, key, layout)

    async def attach(self, image: ImageReference, bundle: bytes, predicate: str = SIGNATURE) -> None:
        async with connected(image) as connection:
            manifest = await connection.manifest(image.digest)
            assert manifest is not None
            await attach_statement(connection, image, manifest, bundle, predicate)

    def source(self) -> ImageSource:
        """What brings images to the engine."""
        (self._directory / "author.pub").write_bytes(cosign.public_pem(AUTHOR.public_key()))
        settings = {
            "server": {"address": "localhost:7600"},
            "identity": {"organization": "clara", "node": "clara-1"},
            "data_dir": "data",
            "policy": {"images": [{"repository": f"{self.front.address}/**", "keys": ["author.pub"]}]},
        }
        path = self._directory / "node.yaml"
        path.write_text(json.dumps(settings))  # JSON is YAML
        return ImageSource(config.load(path))

    @property
    def evidence(self) -> list[Path]:
        return list((self._directory / "evidence").glob("*.json"))


@pytest.fixture
def station(tmp_path: Path, registry: Registry) -> Iterator[Station]:
    with RegistryFront(registry.address) as front:
        yield Station(tmp_path, front)


@asynccontextmanager
async def connected(image: ImageReference) -> AsyncIterator[oci.Registry]:
    async with oci.connect(image.registry, image.path, oci.RegistryAccess()) as connection:
        yield connection


async def test_the_tag_is_moved_after_the_review(station: Station) -> None:
    reviewed = await station.push(tag="v1")
    await station.sign(reviewed)
    moved = await station.push(tag="v1")
    for name in (f"{reviewed.repository}:v1", f"{reviewed.repository}:v1@{reviewed.digest}"):
        assert (await station.refused(name)).reason is Reason.IMAGE_NOT_BY_DIGEST
    assert (await station.refused(moved)).reason is Reason.IMAGE_UNSIGNED
    assert (await station.allowed(reviewed)).image.reference == reviewed


@BOTH
async def test_the_digest_of_another_repository(station: Station, layout: Layout) -> None:
    """Signed for a repository with strict rules, copied with its signature to one with lax rules and the same key."""
    content = secrets.token_hex(8)
    strict = await station.push("strict/summary", content=content)
    await station.sign(strict, layout=layout)
    lax = ImageReference(strict.registry, "lax/summary", strict.digest)
    assert (await station.refused(lax)).reason is Reason.IMAGE_NOT_FOUND
    assert await station.push("lax/summary", content=content) == lax
    await station.allowed(strict)
    if layout is Layout.CLASSIC:
        assert (await station.refused(lax)).reason is Reason.IMAGE_UNSIGNED
        await copy_signatures(strict, lax, strict.digest)
    else:
        await station.attach(lax, build_bundle(AUTHOR, build_statement(strict)))
    problem = await station.refused(lax)
    assert problem.reason is Reason.IMAGE_SIGNED_ELSEWHERE
    assert f"the key author (for {strict.repository}) has signed it for another repository" in problem.message
    elsewhere = {"repository": f"{station.front.address}/lax/*", "signed_as": [strict.repository]}
    await station.allowed(lax, station.verifier([elsewhere]))
    assert (await station.refused(strict, station.verifier([elsewhere]))).reason is Reason.IMAGE_NOT_ALLOWED


async def copy_signatures(source: ImageReference, target: ImageReference, digest: str) -> None:
    async with connected(source) as connection:
        found = await connection.manifest(cosign.signature_tag(source.digest))
        assert found is not None
        blobs = [await connection.blob(each["digest"]) for each in (*found[1]["layers"], found[1]["config"])]
    async with connected(target) as connection:
        for each in blobs:
            assert each is not None
            await connection.put_blob(each)
        await connection.put_manifest(cosign.signature_tag(digest), found[1])


@BOTH
async def test_the_signature_is_copied_from_another_image(station: Station, layout: Layout) -> None:
    good, bad = await station.push(), await station.push()
    await station.sign(good, layout=layout)
    if layout is Layout.CLASSIC:
        await copy_signatures(good, bad, bad.digest)
    else:
        await station.attach(bad, build_bundle(AUTHOR, build_statement(good)))
    problem = await station.refused(bad)
    assert problem.reason is Reason.IMAGE_SIGNATURE_INVALID
    assert "none is about this image" in problem.message
    await station.allowed(good)


@BOTH
async def test_the_payload_speaks_of_another_digest_than_was_signed(station: Station, layout: Layout) -> None:
    """The attacker writes the digest of their image into what the author signed about another."""
    good, bad = await station.push(), await station.push()
    if layout is Layout.CLASSIC:
        signature = cosign.sign(AUTHOR, cosign.build_payload(good.repository, good.digest))
        payload = cosign.build_payload(bad.repository, bad.digest)
        async with connected(bad) as connection:
            layer = {
                "mediaType": cosign.PAYLOAD_MEDIA_TYPE,
                "size": len(payload),
                "digest": await connection.put_blob(payload),
                "annotations": {cosign.SIGNATURE_ANNOTATION: signature},
            }
            found = await connection.manifest(bad.digest)
            assert found is not None
            manifest = {**found[1], "layers": [layer]}
            await connection.put_manifest(cosign.signature_tag(bad.digest), manifest)
    else:
        bundle = json.loads(build_bundle(AUTHOR, build_statement(good)))
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(build_statement(bad)).decode()
        await station.attach(bad, json.dumps(bundle).encode())
    problem = await station.refused(bad)
    assert problem.reason is Reason.IMAGE_SIGNATURE_INVALID
    assert "none of its 1 signatures is by a key that the node trusts" in problem.message


async def test_a_key_of_another_type(station: Station, tmp_path: Path) -> None:
    image = await station.push()
    statement = build_statement(image)
    signed = pre_authentication_encoding(PAYLOAD_TYPE, statement)
    other = ed25519.Ed25519PrivateKey.generate()
    wide = ec.generate_private_key(ec.SECP384R1())
    for signature in (other.sign(signed), wide.sign(signed, ec.ECDSA(hashes.SHA384())), b"", b"\x30\x00"):
        # With the hint of a key that is trusted.
        bundle = json.loads(build_bundle(AUTHOR, statement))
        bundle["dsseEnvelope"]["signatures"] = [{"sig": base64.b64encode(signature).decode()}]
        await station.attach(image, json.dumps(bundle).encode())
    assert (await station.refused(image)).reason is Reason.IMAGE_SIGNATURE_INVALID
    # And no admin trusts such a key by mistake.
    for key in (other, wide):
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "wrong.pub").write_bytes(pem)
        with pytest.raises(VantageError, match="not an ECDSA P-256 key") as caught:
            station.verifier([{"repository": "**", "keys": [str(tmp_path / "wrong.pub")]}])
        assert caught.value.reason is Reason.KEY_INVALID


async def test_the_key_has_expired(station: Station) -> None:
    """Also for an image that ran a moment ago: time is looked at for every run."""
    image = await station.push()
    await station.sign(image)
    verifier = station.verifier(about={"author": {"expires": "2027-01-01"}})
    await station.allowed(image, verifier)
    station.clock.advance(timedelta(hours=12))
    problem = await station.refused(image, verifier)
    assert problem.reason is Reason.IMAGE_KEY_EXPIRED
    assert "the key author is expired" in problem.message
    await station.sign(image, REVIEWER, Layout.BUNDLE)
    assert (await station.allowed(image, verifier)).image.signers == ("reviewer",)


async def test_the_rule_has_expired(station: Station) -> None:
    image = await station.push()
    await station.sign(image)
    verifier = station.verifier([{"repository": image.repository, "expires": "2027-01-01"}])
    await station.allowed(image, verifier)
    station.clock.advance(timedelta(hours=12))
    problem = await station.refused(image, verifier)
    assert problem.reason is Reason.IMAGE_NOT_ALLOWED
    assert "has expired on 2027-01-01" in problem.message


async def test_the_key_is_revoked(station: Station) -> None:
    image = await station.push()
    await station.sign(image)
    await station.allowed(image)
    verifier = station.verifier(revoked={"keys": [cosign.key_fingerprint(AUTHOR.public_key())]})
    problem = await station.refused(image, verifier)
    assert problem.reason is Reason.IMAGE_KEY_REVOKED
    assert "the key author is revoked" in problem.message
    await station.sign(image, REVIEWER)
    assert (await station.allowed(image, verifier)).image.signers == ("reviewer",)


async def test_the_image_is_revoked(station: Station) -> None:
    """By the digest of its manifest, or of its config, which another manifest may carry too."""
    image = await station.push()
    await station.sign(image)
    image_id = (await station.allowed(image)).image.image_id
    for digest in (image.digest, image_id):
        problem = await station.refused(image, station.verifier(revoked={"digests": [digest]}))
        assert problem.reason is Reason.IMAGE_REVOKED
        assert digest in problem.message


async def test_one_signature_too_few(station: Station) -> None:
    image = await station.push()
    for layout in Layout.CLASSIC, Layout.BUNDLE:
        await station.sign(image, AUTHOR, layout)
        await station.sign(image, STRANGER, layout)
    both = {"repository": image.repository, "threshold": 2}
    problem = await station.refused(image, station.verifier([both]))
    assert problem.reason is Reason.IMAGE_SIGNATURES_TOO_FEW
    assert "1 of the 2 keys" in problem.message
    # Two keys of one role are not one of each.
    roles: dict[str, Any] = {"author": {"role": "author"}, "reviewer": {"role": "reviewer"}}
    reviewed = {"repository": image.repository, "roles": {"reviewer": 1}}
    problem = await station.refused(image, station.verifier([reviewed], about=roles))
    assert "a key of the role reviewer" in problem.message
    await station.sign(image, REVIEWER, Layout.BUNDLE)
    await station.allowed(image, station.verifier([reviewed], about=roles))
    assert (await station.allowed(image, station.verifier([both]))).image.signers == ("author", "reviewer")


async def test_an_index_with_an_image_for_another_platform(station: Station) -> None:
    good, foreign = await station.push(), await station.push()
    index = ImageReference.parse(await push_index({"amd64": str(good), "s390x": str(foreign)}, "platforms"))
    for each in (good, index):
        await station.sign(each)
    problem = await station.refused(index)
    assert problem.reason is Reason.IMAGE_NOT_ALLOWED
    assert "an index of several platforms" in problem.message
    assert (await station.refused(foreign)).reason is Reason.IMAGE_UNSIGNED
    await station.allowed(good)


def damage(what: str) -> Callable[[str, bytes], bytes]:
    def change(path: str, content: bytes) -> bytes:
        return content.replace(b"{", b"{ ", 1) if what in path else content

    return change


@BOTH
async def test_the_registry_sends_other_bytes(station: Station, layout: Layout) -> None:
    image = await station.push()
    await station.sign(image, layout=layout)
    for part in (f"manifests/{image.digest}", "blobs/"):
        station.front.change = damage(part)
        assert (await station.refused(image)).reason is Reason.IMAGE_TAMPERED, part
    station.front.change = lambda _path, content: content
    await station.allowed(image)


async def test_the_label_is_changed(station: Station) -> None:
    """With it the config's digest changes, and with that the image's; or the registry's bytes are other than asked."""
    image = await station.push()
    await station.sign(image)
    more = json.dumps({"schema": 1, "functions": {"summary": {}, "steal": {}}}).encode()

    def change(path: str, content: bytes) -> bytes:
        if "/blobs/" not in path or b"org.vantage.declaration" not in content:
            return content
        config = json.loads(content)
        config["config"]["Labels"]["org.vantage.declaration"] = more.decode()
        return json.dumps(config).encode()

    station.front.change = change
    assert (await station.refused(image)).reason is Reason.IMAGE_TAMPERED
    station.front.change = lambda _path, content: content
    changed = await push_declaration(image.registry, image.path, json.loads(more), secrets.token_hex(8), "more")
    assert (await station.refused(changed)).reason is Reason.IMAGE_UNSIGNED


async def test_the_function_is_not_declared(station: Station) -> None:
    image = await station.push()
    await station.sign(image)
    admission = await station.verifier().verify(CodeRequest(str(image), "steal"))
    assign = pb.Assign()
    assign.spec.function = "steal"
    assign.spec.targets.add()
    refusal = decide_call(admission.image.declaration, assign, "", b"{}", 0).refusal
    assert refusal is not None
    assert refusal.reason is Reason.FUNCTION_UNKNOWN


@pytest.fixture
def engine() -> Iterator[docker.DockerClient]:
    with docker_client() as client:
        yield client
        for image in client.api.images():
            names = [*(image["RepoTags"] or ()), *(image["RepoDigests"] or ())]
            for name in (each for each in names if "/algorithms/attacked" in each):
                with suppress(ImageNotFound):  # the last of several names takes the image along
                    client.images.remove(name, force=True)


async def fetched(source: ImageSource, image: ImageReference, meanwhile: Callable[[], None] = lambda: None) -> str:
    """Check an image and bring it to the engine; its id there."""
    trusted = await source.trust(CodeRequest(str(image), "summary"))
    assert isinstance(trusted.code, VerifiedImage)
    await source.fetch(trusted, lambda _fraction, _text: meanwhile())
    return trusted.code.image_id


async def test_a_layer_is_damaged_and_an_older_image_has_the_name(
    station: Station, engine: docker.DockerClient
) -> None:
    """The usual pull swallows the error in its stream, and returns whatever image has the name."""
    older = await station.push("algorithms/attacked", tag="latest")
    await station.sign(older)
    source = station.source()
    engine.images.get(await fetched(source, older)).tag(older.repository, tag="latest")
    newer = await station.push("algorithms/attacked", tag="latest")
    await station.sign(newer)
    async with connected(newer) as connection:
        manifest = await connection.manifest(newer.digest)
    assert manifest is not None
    layer, image_id = manifest[1]["layers"][0]["digest"], manifest[1]["config"]["digest"]
    station.front.change = lambda path, content: bytes(len(content)) if path.endswith(layer) else content
    with pytest.raises(VantageError) as caught:
        await fetched(source, newer)
    assert caught.value.reason is Reason.IMAGE_TAMPERED
    with pytest.raises(ImageNotFound):
        engine.images.get(image_id)


async def test_everything_is_exchanged_between_the_check_and_the_start(
    station: Station, engine: docker.DockerClient
) -> None:
    """What was checked is fetched and run by digest: names lead nowhere by then."""
    evil = await station.push("algorithms/attacked", tag="latest")
    await station.sign(evil)
    source = station.source()
    evil_id = await fetched(source, evil)
    good = await station.push("algorithms/attacked", tag="latest")
    await station.sign(good)
    exchanged: list[bool] = []

    def exchange() -> None:
        exchanged.append(engine.images.get(evil_id).tag(good.repository, tag="latest"))

    image_id = await fetched(source, good, exchange)
    assert exchanged == [True]
    assert image_id != evil_id
    assert engine.images.get(image_id).id == image_id
    assert engine.images.get(f"{good.repository}:latest").id == evil_id
    # Gone from the engine after all: it is an error, and nothing of that name is taken in its place.
    engine.images.remove(image_id, force=True)
    trusted = await source.trust(CodeRequest(str(good), "summary"))
    station.front.change = lambda path, content: bytes(len(content)) if "/blobs/" in path else content
    with pytest.raises(VantageError) as caught:
        await source.fetch(trusted, lambda _fraction, _text: None)
    assert caught.value.reason in (Reason.IMAGE_TAMPERED, Reason.REGISTRY_UNAVAILABLE)


async def test_the_files_of_evidence_are_changed(station: Station) -> None:
    """Whoever writes into the node's directory gains nothing: what is read there is verified like anything else."""
    image = await station.push()
    await station.sign(image)
    await station.allowed(image)
    (file,) = station.evidence
    genuine = json.loads(file.read_text())
    station.front.change = lambda _path, _content: b"the registry is of no use now"
    await station.allowed(image)  # a new process, from the file

    def b64(content: bytes) -> str:
        return base64.b64encode(content).decode()

    other = cosign.build_payload(image.repository, image.digest)
    mine = [{"layout": "classic", "content": b64(other), "signature": cosign.sign(STRANGER, other)}]
    config = base64.b64decode(genuine["config"]).replace(b"summary", b"steal__")
    forgeries: tuple[dict[str, Any], ...] = (
        {"statements": []},
        {"statements": mine},
        {"config": b64(config)},
        {"manifest": b64(base64.b64decode(genuine["manifest"]) + b" ")},
        {"image": f"{image.repository}@sha256:{'0' * 64}"},
        {"schema": 2},
        {"config": "%"},
        {"statements": [{**genuine["statements"][0], "signature": 1}]},
        {"statements": [{"layout": "other", "content": "", "signature": ""}]},
    )
    for junk in (*(json.dumps(genuine | each) for each in forgeries), "", "[]", "[" * 10_000, "{}"):
        file.write_text(junk)
        # It is as if there were no file, and the registry, which is asked then, lies.
        assert (await station.refused(image)).reason is Reason.IMAGE_TAMPERED, junk
    file.write_text(json.dumps(genuine))
    await station.allowed(image)
