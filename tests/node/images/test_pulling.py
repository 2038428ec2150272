"""Pulling from registries and of images that are slow, silent, huge or elsewhere; with a real registry and engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from docker.errors import ImageNotFound

from vantage.client.image_transfer import export_images
from vantage.common import blobs, cosign, oci, pki
from vantage.common.errors import Reason, VantageError
from vantage.common.image_signing import sign_image
from vantage.common.oci import ImageReference, RegistryAccess
from vantage.node import config as node_config
from vantage.node.images.access import RegistryAccesses
from vantage.node.images.puller import ImagePuller
from vantage.node.images.source import ImageSource
from vantage.node.images.verifier import VerifiedImage
from vantage.node.registry_section import RegistrySection
from vantage.node.sources import CodeRequest
from vantage.testing.engine import docker_client, remove_images
from vantage.testing.engines import engine_place, lacks, podman
from vantage.testing.layered_images import Build, Layer, push_build
from vantage.testing.proxy import Proxy
from vantage.testing.registry import Registry

pytestmark = pytest.mark.docker

MEBIBYTE = 1024 * 1024
AUTHOR = pki.create_key()
NAMED = "registry.example.org"
OPEN = RegistryAccess()


@dataclass
class Place:
    """A registry, an engine, and a node's images between them."""

    registry: Registry
    engine: docker.DockerClient
    directory: Path
    access: RegistryAccess = OPEN

    async def push(self, *layers: Layer, path: str = "algorithms/summary") -> ImageReference:
        return await push_build(
            self.registry.address, path, Build(layers or (Layer.of({"x": os.urandom(50)}),)), access=self.access
        )

    async def sign(self, reference: ImageReference) -> None:
        async with oci.connect(reference.registry, reference.path, self.access) as connection:
            await sign_image(connection, reference, AUTHOR)

    def source(self, registries: list[dict[str, Any]], repository: str = "**", **limits: Any) -> ImageSource:
        """The images of a node with this configuration."""
        (self.directory / "author.pub").write_bytes(cosign.public_pem(AUTHOR.public_key()))
        path = self.directory / "node.yaml"
        path.write_text(
            yaml.safe_dump(
                {
                    "server": {"address": "localhost:1", "tls": False},
                    "identity": {"organization": "clara", "node": "clara-1"},
                    "data_dir": "data",
                    "policy": {"images": [{"repository": repository, "keys": ["author.pub"]}]},
                    "registries": registries,
                    "limits": limits,
                }
            )
        )
        return ImageSource(node_config.load(path))

    def puller(self, limit: int = 100 * MEBIBYTE, seconds: float = 60, **access: Any) -> ImagePuller:
        given = RegistryAccess(**access)
        host = "unix:///var/run/docker.sock"
        return ImagePuller(host, lambda _registry: given, self.directory / "pulls", limit, seconds)

    def has(self, image: str) -> bool:
        try:
            return bool(self.engine.images.get(image).id)
        except ImageNotFound:
            return False

    @property
    def left(self) -> list[Path]:
        """What pulls have left behind on the node's disk."""
        return [each for name in ("pulls", "data/images") for each in (self.directory / name).glob("*")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, docker.DockerClient]]:
    with Registry(tmp_path_factory.mktemp("registry")) as registry, docker_client() as engine:
        yield registry, engine


@pytest.fixture
def place(running: tuple[Registry, docker.DockerClient], tmp_path: Path) -> Iterator[Place]:
    yield Place(*running, tmp_path)
    for name in (running[0].address, NAMED):
        remove_images(running[1], name)


@pytest.fixture
async def proxy(place: Place) -> AsyncIterator[Proxy]:
    async with Proxy.to(place.registry.address) as made:
        yield made


def quiet(_fraction: float, _text: str) -> None:
    """Nobody is told."""


async def verified(reference: ImageReference, access: RegistryAccess = OPEN) -> VerifiedImage:
    """As if its signature had been checked: what is tested here comes after."""
    async with oci.connect(reference.registry, reference.path, access) as connection:
        found = await connection.manifest(reference.digest)
    assert found is not None
    return VerifiedImage(reference, found[1]["config"]["digest"], Any, ())  # type: ignore[arg-type]


async def refusal(puller: ImagePuller, image: VerifiedImage) -> VantageError:
    with pytest.raises(VantageError) as caught:
        await puller.fetch(image, quiet)
    return caught.value


async def test_only_layers_that_the_engine_lacks_are_fetched_and_images_have_a_name(place: Place, proxy: Proxy) -> None:
    base, one, two = (Layer.of({name: os.urandom(2 * MEBIBYTE)}) for name in ("base", "one", "two"))
    first, second = await place.push(base, one), await place.push(base, two)
    through = ImageReference(proxy.address, second.path, second.digest)
    await place.puller().fetch(await verified(first), quiet)
    proxy.allowance = 3 * MEBIBYTE  # enough for one layer on a connection, and not for two
    image = await verified(through)
    await place.puller(patience=3).fetch(image, quiet)
    assert proxy.connections <= 3
    # With a name it is not dangling: whoever tidies up leaves it.
    tag = f"{through.repository}:{second.digest.replace(':', '-')}"
    try:
        assert place.engine.images.get(tag).id == image.image_id
    finally:
        remove_images(place.engine, proxy.address)
    assert place.left == []


@pytest.mark.skipif(lacks("podman", "runc"), reason="needs root, podman and runc")
async def test_an_engine_that_wants_all_layers_gets_them(place: Place) -> None:
    base = Layer.of({"base": os.urandom(1000)})
    images = [await verified(await place.push(base, Layer.of({"top": os.urandom(1000)}))) for _ in range(2)]
    with engine_place() as directory, podman(directory) as host:
        puller = ImagePuller(host, lambda _registry: OPEN, place.directory / "pulls", MEBIBYTE)
        for image in images:
            await puller.fetch(image, quiet)
        with closing(docker.DockerClient(base_url=host, version="1.41")) as client:
            assert {each.id for each in client.images.list()} == {each.image_id for each in images}
    assert place.left == []


async def test_an_image_that_unpacks_to_too_much_is_given_up_before_the_engine_sees_it(place: Place) -> None:
    bomb = Layer.of({"zeros": bytes(60 * MEBIBYTE)})
    assert len(bomb.blob) < MEBIBYTE
    image = await verified(await place.push(bomb))
    problem = await refusal(place.puller(limit=50 * MEBIBYTE), image)
    assert (problem.reason, "52428800 bytes" in problem.message) == (Reason.IMAGE_TOO_LARGE, True)
    assert not place.has(image.image_id)
    assert place.left == []
    await place.puller(limit=70 * MEBIBYTE).fetch(image, quiet)
    assert place.has(image.image_id)


async def test_an_image_whose_layers_are_too_large_is_not_even_downloaded(place: Place, proxy: Proxy) -> None:
    reference = await place.push(Layer.of({"noise": os.urandom(5 * MEBIBYTE)}))
    image = await verified(ImageReference(proxy.address, reference.path, reference.digest))
    proxy.allowance = MEBIBYTE
    problem = await refusal(place.puller(limit=4 * MEBIBYTE, patience=10), image)
    assert problem.reason is Reason.IMAGE_TOO_LARGE


async def test_a_registry_that_falls_silent_is_given_up_and_keeps_nobody_waiting(
    place: Place, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "ATTEMPTS", 1)
    reference = await place.push(Layer.of({"noise": os.urandom(MEBIBYTE)}))
    silent = await verified(ImageReference(proxy.address, reference.path, reference.digest))
    other = await verified(await place.push())
    proxy.allowance = 100_000
    puller = place.puller(patience=3)
    waiting = [asyncio.create_task(refusal(puller, silent)) for _ in range(8)]
    await puller.fetch(other, quiet)
    assert not any(each.done() for each in waiting)
    problem = await waiting[0]
    assert (problem.reason, "does not answer in time" in problem.message) == (Reason.REGISTRY_UNAVAILABLE, True)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert place.left == []
    assert not place.has(silent.image_id)


async def test_a_registry_that_is_too_slow_is_given_up(place: Place, proxy: Proxy) -> None:
    reference = await place.push(Layer.of({"noise": os.urandom(MEBIBYTE)}))
    image = await verified(ImageReference(proxy.address, reference.path, reference.digest))
    proxy.allowance = 100_000
    problem = await refusal(place.puller(seconds=1, patience=60), image)
    assert (problem.reason, "within 1 s" in problem.message) == (Reason.REGISTRY_UNAVAILABLE, True)
    assert place.left == []


async def test_a_connection_that_is_lost_again_and_again_goes_on_where_it_was(place: Place, proxy: Proxy) -> None:
    reference = await place.push(Layer.of({"noise": os.urandom(9 * MEBIBYTE)}))
    image = await verified(ImageReference(proxy.address, reference.path, reference.digest))
    proxy.allowance, proxy.cuts = 2 * MEBIBYTE, True
    await place.puller().fetch(image, quiet)
    assert place.has(image.image_id)
    assert proxy.connections >= 5
    remove_images(place.engine, proxy.address)


async def test_a_layer_that_is_not_what_the_config_says_is_refused(place: Place) -> None:
    layer = Layer.of({"a": b"a"})
    image = await verified(await place.push(Layer(layer.blob, Layer.of({"a": b"b"}).diff_id)))
    assert (await refusal(place.puller(), image)).reason is Reason.IMAGE_TAMPERED


async def test_a_mirror_stands_in_for_a_registry_that_cannot_be_reached(place: Place) -> None:
    """Names, policy and signatures are those of the registry: only the place differs."""
    image = await place.push(path="copies/algorithms/summary")
    # Signed where the image comes from, under its name there; here it lies under another.
    named = ImageReference(NAMED, "algorithms/summary", image.digest)
    mirrored = RegistryAccess(mirror=f"{place.registry.address}/copies")
    async with oci.connect(named.registry, named.path, mirrored) as connection:
        await sign_image(connection, named, AUTHOR)
    mirror = {"address": NAMED, "mirror": f"{place.registry.address}/copies"}
    source = place.source([mirror], f"{NAMED}/algorithms/*")
    trusted = await source.trust(CodeRequest(str(named), "summary"))
    await source.fetch(trusted, quiet)
    assert place.has(f"{named.repository}:{named.digest.replace(':', '-')}")
    with pytest.raises(VantageError) as caught:  # what is called by the mirror's name is another matter
        await source.trust(CodeRequest(str(image), "summary"))
    assert caught.value.reason is Reason.IMAGE_NOT_ALLOWED


async def test_a_private_authority_is_named_and_then_believed(place: Place, tmp_path: Path) -> None:
    with Registry(tmp_path / "tls", {"clara": "secret words"}, tls=True) as registry:
        assert registry.ca is not None
        (tmp_path / "word").write_text("secret words\n")
        private = Place(registry, place.engine, tmp_path, RegistryAccess("clara", "secret words", ca=registry.ca))
        image = await private.push()
        await private.sign(image)
        (tmp_path / "other.pem").write_text(
            pki.to_pem(pki.CertificateAuthority.create(tmp_path / "ca", "organizations/clara").certificate)
        )
        entry = {"address": registry.address, "username": "clara", "password_file": "word"}
        with pytest.raises(VantageError, match="not by an authority that is trusted"):
            await private.source([{**entry, "ca": "other.pem"}]).trust(CodeRequest(str(image), "summary"))
        source = private.source([{**entry, "ca": str(registry.ca)}])
        await source.fetch(await source.trust(CodeRequest(str(image), "summary")), quiet)
        assert place.has(f"{image.repository}:{image.digest.replace(':', '-')}")
        remove_images(place.engine, registry.address)


@pytest.mark.parametrize(
    ("entries", "hint"),
    [
        ([{"address": "https://registry.example.org"}], "HOST or HOST:PORT"),
        ([{"address": NAMED, "mirror": "https://local"}], "PREFIX"),
        ([{"address": NAMED, "mirror": "local:5000", "username": "clara"}], "entry of its own"),
        ([{"address": NAMED, "username": "clara"}], "go together"),
        ([{"address": NAMED}, {"address": NAMED}], "same address"),
        ([{"address": NAMED, "ca": "nowhere.pem"}], "there is no file"),
    ],
)
def test_mistakes_about_registries_are_said(place: Place, entries: list[dict[str, Any]], hint: str) -> None:
    with pytest.raises(VantageError, match=hint) as caught:
        place.source(entries)
    assert caught.value.reason is Reason.CONFIGURATION_INVALID


def test_a_mirror_is_asked_with_its_own_credentials(tmp_path: Path) -> None:
    section = RegistrySection
    (tmp_path / "word").write_text("secret\n")
    config = node_config.NodeConfig.model_construct(
        registries=(
            section(address=NAMED, mirror="local:5000/copies"),
            section(address="local:5000", username="clara", password_file=tmp_path / "word", timeout=3),
        )
    )
    accesses = RegistryAccesses(config)
    assert accesses(NAMED) == RegistryAccess("clara", "secret", mirror="local:5000/copies", patience=3.0)
    assert accesses("local:5000") == RegistryAccess("clara", "secret", patience=3.0)
    assert accesses("elsewhere.example.org") == RegistryAccess()


async def test_a_node_without_any_registry_runs_what_lies_in_a_file(place: Place, tmp_path: Path) -> None:
    image = await place.push(Layer.of({"x": os.urandom(MEBIBYTE)}))
    await place.sign(image)
    other = await place.push(path="algorithms/other")

    async def export(*images: ImageReference) -> None:
        (tmp_path / "images.tar").unlink(missing_ok=True)
        await export_images(
            list(images), lambda registry, path: oci.connect(registry, path, OPEN), tmp_path / "images.tar", untold
        )

    await export(image)
    source = place.source([{"address": place.registry.address, "archive": "images.tar"}])
    place.registry.stop()
    try:
        await source.fetch(await source.trust(CodeRequest(str(image), "summary")), quiet)
        assert place.has(f"{image.repository}:{image.digest.replace(':', '-')}")
        with pytest.raises(VantageError) as caught:
            await source.trust(CodeRequest(str(other), "summary"))
        assert caught.value.reason is Reason.IMAGE_NOT_FOUND
        # Under the name of another repository it is not there, whatever the file holds.
        with pytest.raises(VantageError) as caught:
            await source.trust(CodeRequest(f"{place.registry.address}/algorithms/other@{image.digest}", "summary"))
        assert caught.value.reason is Reason.IMAGE_NOT_FOUND
    finally:
        place.registry.start()
    await export(image, other)  # the file may be replaced while the node runs
    with pytest.raises(VantageError) as caught:
        await source.trust(CodeRequest(str(other), "summary"))
    assert caught.value.reason is Reason.IMAGE_UNSIGNED


def untold(_blob: str, _passed: int, _size: int) -> None:
    """Nobody is told."""
