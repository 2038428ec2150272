"""Image trust against a real registry and a real engine."""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign, oci, pki
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError
from vantage.common.image_signing import sign_image
from vantage.node.images.puller import ImagePuller
from vantage.node.images.store import EvidenceStore
from vantage.node.images.verifier import ImageVerifier, VerifiedImage
from vantage.node.sources import CodeRequest
from vantage.testing.engine import BASE_IMAGE, docker_client, remove_images
from vantage.testing.image_policy import write_policy
from vantage.testing.registry import Registry

pytestmark = pytest.mark.docker

HOST = "unix:///var/run/docker.sock"
DECLARATION = json.dumps({"schema": 1, "functions": {"summary": {"arguments": {"type": "object"}}}})
PASSWORD = "correct horse"


@dataclass
class Store:
    """A registry with images in it."""

    registry: Registry
    engine: docker.DockerClient
    pushed: list[str]

    def push(self, content: str, declaration: str | None = DECLARATION, name: str = "algorithms/summary") -> str:
        """Build an image, push it, remove it from the engine, and return its reference."""
        label = "" if declaration is None else f"LABEL org.vantage.declaration={json.dumps(declaration)}\n"
        # A layer of its own, so that the engine cannot have it from elsewhere.
        text = f"FROM scratch\nCOPY content /content\nENV CONTENT={content}\n{label}"
        context = io.BytesIO()
        with tarfile.open(fileobj=context, mode="w") as archive:
            for file, data in (("Dockerfile", text.encode()), ("content", content.encode() + os.urandom(100))):
                member = tarfile.TarInfo(file)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        image, _log = self.engine.images.build(fileobj=io.BytesIO(context.getvalue()), custom_context=True, rm=True)
        repository = f"{self.registry.address}/{name}"
        image.tag(repository, tag=content)
        answer = self.engine.images.push(
            repository, tag=content, stream=True, decode=True, auth_config={"username": "clara", "password": PASSWORD}
        )
        (digest,) = [item["aux"]["Digest"] for item in answer if "aux" in item]
        self.engine.images.remove(str(image.id), force=True)
        reference = f"{repository}@{digest}"
        self.pushed.append(reference)
        return reference

    def access(self, registry: str = "") -> oci.RegistryAccess:
        return oci.RegistryAccess("clara", PASSWORD)

    def puller(self) -> ImagePuller:
        return ImagePuller(HOST, self.access, self.registry.directory / "pulls", 10**9)

    async def sign(self, reference: str, key: ec.EllipticCurvePrivateKey) -> bool:
        parsed = oci.ImageReference.parse(reference)
        async with oci.connect(parsed.registry, parsed.path, self.access()) as registry:
            return await sign_image(registry, parsed, key)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with Registry(tmp_path_factory.mktemp("registry"), {"clara": PASSWORD}) as registry, docker_client() as engine:
        made = Store(registry, engine, [])
        yield made
        remove_images(engine, registry.address)


AUTHOR, REVIEWER, STRANGER = (pki.create_key() for _ in range(3))


Make = Callable[..., ImageVerifier]


@pytest.fixture
def verifier(store: Store, tmp_path: Path) -> Make:
    """Makes verifiers that trust an author and a reviewer."""

    def make(threshold: int = 1, functions: list[str] | None = None, **changes: Any) -> ImageVerifier:
        pattern = changes.get("pattern", f"{store.registry.address}/algorithms/*")
        rule = {"repository": pattern, "threshold": threshold, "functions": functions}
        policy = write_policy(tmp_path, {"author": AUTHOR, "reviewer": REVIEWER}, [rule])
        evidence = EvidenceStore(tmp_path / changes.get("evidence", secrets.token_hex(4)))
        return ImageVerifier(policy, changes.get("access", store.access), evidence, SystemClock())

    return make


async def verified_by(verifier: ImageVerifier, image: str, function: str = "summary") -> VerifiedImage:
    return (await verifier.verify(CodeRequest(image, function))).image


async def refusal(verifier: ImageVerifier, image: str, function: str = "summary") -> VantageError:
    with pytest.raises(VantageError) as caught:
        await verifier.verify(CodeRequest(image, function))
    return caught.value


async def test_a_signed_image_is_verified_pulled_and_has_the_id_of_its_manifest(store: Store, verifier: Make) -> None:
    image = store.push("signed")
    assert await store.sign(image, AUTHOR)
    assert not await store.sign(image, AUTHOR)
    verified = await verified_by(verifier(), image)
    assert verified.signers == ("author",)
    assert list(verified.declaration.functions) == ["summary"]
    told: list[str] = []
    puller = store.puller()
    for _ in range(2):
        await puller.fetch(verified, lambda _fraction, text: told.append(text))
    assert told == ["pulling image"]  # the second time it is there
    assert store.engine.images.get(verified.image_id).attrs["Config"]["Env"][-1] == "CONTENT=signed"


async def test_the_registry_may_be_down_once_an_image_was_verified_and_is_here(store: Store, verifier: Make) -> None:
    image = store.push("kept")
    await store.sign(image, AUTHOR)
    checks, puller = verifier(), store.puller()
    verified = await verified_by(checks, image)
    await puller.fetch(verified, lambda _fraction, _text: None)
    store.registry.stop()
    try:
        await puller.fetch(await verified_by(checks, image), lambda _fraction, _text: None)
        assert (await refusal(verifier(), image)).reason is Reason.REGISTRY_UNAVAILABLE
    finally:
        store.registry.start()


async def test_what_is_not_signed_by_a_trusted_key_is_refused(store: Store, verifier: Make) -> None:
    image = store.push("unsigned")
    assert (await refusal(verifier(), image)).reason is Reason.IMAGE_UNSIGNED
    await store.sign(image, STRANGER)
    problem = await refusal(verifier(), image)
    assert problem.reason is Reason.IMAGE_SIGNATURE_INVALID
    assert "none of its 1 signatures is by a key that the node trusts" in problem.message
    await store.sign(image, AUTHOR)
    assert (await verified_by(verifier(), image)).signers == ("author",)


async def test_different_keys_are_counted(store: Store, verifier: Make) -> None:
    image = store.push("counted")
    await store.sign(image, AUTHOR)
    problem = await refusal(verifier(threshold=2), image)
    assert "1 of the 2 keys" in problem.message
    await store.sign(image, REVIEWER)
    assert (await verified_by(verifier(threshold=2), image)).signers == ("author", "reviewer")


async def test_the_signature_of_another_image_is_none(store: Store, verifier: Make) -> None:
    good, bad = store.push("good"), store.push("bad")
    await store.sign(good, AUTHOR)
    source, target = oci.ImageReference.parse(good), oci.ImageReference.parse(bad)
    async with oci.connect(source.registry, source.path, store.access()) as registry:
        found = await registry.manifest(cosign.signature_tag(source.digest))
        assert found is not None
        await registry.put_manifest(cosign.signature_tag(target.digest), found[1])
    problem = await refusal(verifier(), bad)
    assert problem.reason is Reason.IMAGE_SIGNATURE_INVALID
    assert "none is about this image" in problem.message


async def test_what_the_policy_does_not_name_is_refused(store: Store, verifier: Make) -> None:
    image = store.push("policy")
    await store.sign(image, AUTHOR)
    address = store.registry.address
    for pattern in (f"{address}/algorithms", f"{address}/algo*", f"{address}/algorithms/sum", "*", "algorithms/*"):
        assert (await refusal(verifier(pattern=pattern), image)).reason is Reason.IMAGE_NOT_ALLOWED, pattern
    await verified_by(verifier(pattern=f"{address}/**"), image)
    problem = await refusal(verifier(functions=["mean"]), image)
    assert problem.reason is Reason.IMAGE_NOT_ALLOWED
    assert "it allows mean" in problem.message


@pytest.mark.parametrize(
    "text",
    ["{name}:latest", "{name}:latest@{digest}", "{name}@sha256:abc", "summary@{digest}", "{name}", "", "@{digest}"],
)
async def test_an_image_without_a_plain_digest_is_refused(store: Store, verifier: Make, text: str) -> None:
    name, digest = f"{store.registry.address}/algorithms/summary", f"sha256:{'0' * 64}"
    problem = await refusal(verifier(), text.format(name=name, digest=digest))
    assert problem.reason is Reason.IMAGE_NOT_BY_DIGEST


async def test_what_is_not_there_or_not_reachable_is_said(store: Store, verifier: Make) -> None:
    name = f"{store.registry.address}/algorithms/summary"
    assert (await refusal(verifier(), f"{name}@sha256:{'0' * 64}")).reason is Reason.IMAGE_NOT_FOUND
    image = store.push("login")
    problem = await refusal(verifier(access=lambda _registry: oci.RegistryAccess()), image)
    assert problem.reason is Reason.REGISTRY_UNAVAILABLE
    assert "credentials" in problem.message


@pytest.mark.parametrize(
    "declaration",
    [None, "{}", "no json", '{"schema": 2, "functions": {"f": {}}}', pytest.param("[" * 20_000, id="deep")],
)
async def test_an_image_without_a_usable_declaration_is_refused(
    store: Store, verifier: Make, declaration: str | None
) -> None:
    image = store.push(f"declaration{abs(hash(declaration))}", declaration)
    await store.sign(image, AUTHOR)
    assert (await refusal(verifier(), image)).reason is Reason.IMAGE_DECLARATION_INVALID


def blob(store: Store, digest: str) -> Path:
    hexadecimal = digest.removeprefix("sha256:")
    return store.registry.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"


async def manifest_of(store: Store, image: str) -> dict[str, Any]:
    reference = oci.ImageReference.parse(image)
    async with oci.connect(reference.registry, reference.path, store.access()) as registry:
        found = await registry.manifest(reference.digest)
        assert found is not None
        return found[1]


async def test_a_tampered_manifest_config_or_payload_is_refused(store: Store, verifier: Make) -> None:
    for part in ("manifest", "config", "payload"):
        image = store.push(f"tampered{part}")
        await store.sign(image, AUTHOR)
        reference = oci.ImageReference.parse(image)
        async with oci.connect(reference.registry, reference.path, store.access()) as registry:
            signatures = await registry.manifest(cosign.signature_tag(reference.digest))
        assert signatures is not None
        digest = {
            "manifest": reference.digest,
            "config": (await manifest_of(store, image))["config"]["digest"],
            "payload": signatures[1]["layers"][0]["digest"],
        }[part]
        path = blob(store, digest)
        path.write_bytes(path.read_bytes().replace(b"a", b"b", 1))
        problem = await refusal(verifier(), image)
        # This registry looks at manifests itself before it sends them; tests/unit/common/test_oci.py has one that lies.
        expected = Reason.REGISTRY_UNAVAILABLE if part == "manifest" else Reason.IMAGE_TAMPERED
        assert problem.reason is expected, part


async def test_a_tampered_layer_is_not_run_and_neither_is_an_older_image_of_that_name(
    store: Store, verifier: Make
) -> None:
    """The trap: the usual pull says nothing of an error in its stream and returns what else has that name."""
    image = store.push("layer")
    await store.sign(image, AUTHOR)
    (layer,) = (await manifest_of(store, image))["layers"]
    verified = await verified_by(verifier(), image)
    blob(store, layer["digest"]).write_bytes(b"damaged")
    name = f"{store.registry.address}/algorithms/summary"
    store.engine.images.get(BASE_IMAGE).tag(name, tag="latest")
    try:
        with pytest.raises(VantageError) as caught:
            await store.puller().fetch(verified, lambda _fraction, _text: None)
        assert caught.value.reason in (Reason.IMAGE_TAMPERED, Reason.REGISTRY_UNAVAILABLE)
        with pytest.raises(docker.errors.ImageNotFound):
            store.engine.images.get(verified.image_id)
    finally:
        store.engine.images.remove(f"{name}:latest")
