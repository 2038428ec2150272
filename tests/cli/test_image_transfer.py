"""Images in files: out of a real registry, into another one, and nothing of it believed without its digest."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cli.conftest import Run
from vantage.common import cosign, oci, pki
from vantage.common.image_archive import ArchiveReader
from vantage.common.image_signing import attach_statement, sign_image
from vantage.common.image_statements import Layout, build_bundle, build_statement
from vantage.common.oci import ImageReference, RegistryAccess, digest_of
from vantage.testing.layered_images import Build, Layer, push_build
from vantage.testing.registry import Registry
from vantage.testing.registry_front import RegistryFront

pytestmark = pytest.mark.docker

AUTHOR, REVIEWER, LOCAL = (pki.create_key() for _ in range(3))
PROVENANCE = "https://slsa.dev/provenance/v1"
OPEN = RegistryAccess()


@dataclass
class Places:
    """Where images come from, where they go, and a file between."""

    source: Registry
    target: Registry
    directory: Path

    @property
    def file(self) -> Path:
        return self.directory / "images.tar"

    def push(self, *layers: Layer, path: str = "algorithms/summary") -> ImageReference:
        """An image with a signature in each format and an attestation."""

        async def run() -> ImageReference:
            made = await push_build(self.source.address, path, Build(layers or (Layer.of({"a": os.urandom(999)}),)))
            async with oci.connect(made.registry, made.path, OPEN) as registry:
                await sign_image(registry, made, AUTHOR)
                await sign_image(registry, made, REVIEWER, Layout.BUNDLE)
                found = await registry.manifest(made.digest)
                assert found is not None
                statement = build_bundle(AUTHOR, build_statement(made, PROVENANCE, {"builder": "hand"}))
                await attach_statement(registry, made, found, statement, PROVENANCE)
            return made

        return asyncio.run(run())

    def keys(self) -> list[object]:
        found: list[object] = []
        for name, key in (("author", AUTHOR), ("reviewer", REVIEWER)):
            (self.directory / f"{name}.pub").write_bytes(cosign.public_pem(key.public_key()))
            found += ["--key", self.directory / f"{name}.pub"]
        return [*found, "--threshold", 2]


@pytest.fixture(scope="module")
def registries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Registry, Registry]]:
    with Registry(tmp_path_factory.mktemp("source")) as source, Registry(tmp_path_factory.mktemp("target")) as target:
        yield source, target


@pytest.fixture
def places(registries: tuple[Registry, Registry], tmp_path: Path) -> Places:
    return Places(*registries, tmp_path)


def reason(done: Result) -> str:
    assert done.exit_code != 0, done.stdout
    return str(json.loads(done.stderr)["error"]["reason"])


def test_an_image_and_its_signatures_travel_in_a_file(places: Places, run: Run) -> None:
    one, two = places.push(), places.push(path="algorithms/other")
    done = run("image", "export", one, two, one, "--out", places.file, "--output", "json")
    assert done.exit_code == 0, done.stderr
    # A signature, a bundle and an attestation each.
    assert json.loads(done.stdout)["attached"] == 6
    assert [each.name for each in places.directory.glob("images*")] == ["images.tar"]
    # Without any registry it is verified from the file.
    checked = run("image", "verify", one, "--archive", places.file, *places.keys())
    assert checked.exit_code == 0, checked.stderr
    shown = run("image", "show", one, "--archive", places.file, "--output", "json")
    assert list(json.loads(shown.stdout)["functions"]) == ["summary"]
    target = f"{places.target.address}/mirror"
    for _ in range(2):
        done = run("image", "import", places.file, "--registry", target, "--output", "json")
        assert done.exit_code == 0, done.stderr
        assert len(json.loads(done.stdout)["images"]) == 2
    for image in (one, two):
        checked = run("image", "verify", image, "--registry-mirror", target, *places.keys())
        assert checked.exit_code == 0, checked.stderr
    # What was imported can be exported again, from there, under its own name.
    again = places.directory / "again.tar"
    assert run("image", "export", one, "--registry-mirror", target, "--out", again).exit_code == 0
    with ArchiveReader(places.file) as first, ArchiveReader(again) as second:
        assert set(second.entries) == {each for each in first.entries if each.repository == one.repository}


def test_a_password_goes_to_one_registry_only(places: Places, run: Run) -> None:
    """Whoever names an image of another registry does not hand that one the password."""
    one = places.push()
    other = ImageReference(places.target.address, one.path, one.digest)
    login = ("--registry-user", "clara", "--registry-password-stdin")
    for asked in (("export", one, other, "--out", places.file), ("review", one, "--against", other)):
        done = run("image", *asked, *login, stdin="secret\n")
        assert (done.exit_code, "that of one registry" in done.stderr) == (2, True), done.stderr
    # A mirror stands in for all of them, and is asked for its password once.
    mirrored = ("--registry-mirror", places.source.address)
    done = run("image", "export", one, other, "--out", places.file, *mirrored, *login, stdin="secret\n")
    assert done.exit_code == 0, done.stderr


def test_signatures_that_the_target_has_stay(places: Places, run: Run) -> None:
    image = places.push()
    assert run("image", "export", image, "--out", places.file).exit_code == 0
    target = places.target.address
    there = ImageReference(target, image.path, image.digest)

    async def sign(key: ec.EllipticCurvePrivateKey, layout: Layout) -> None:
        async with oci.connect(target, image.path, OPEN) as registry:
            await sign_image(registry, there, key, layout)

    assert run("image", "import", places.file, "--registry", target).exit_code == 0
    for layout in (Layout.CLASSIC, Layout.BUNDLE):
        asyncio.run(sign(LOCAL, layout))
        assert run("image", "import", places.file, "--registry", target).exit_code == 0
    (places.directory / "local.pub").write_bytes(cosign.public_pem(LOCAL.public_key()))
    more = [*places.keys()[:-1], 3, "--key", places.directory / "local.pub"]
    checked = run("image", "verify", there, *more, "--signed-as", image.repository)
    assert checked.exit_code == 0, checked.stderr


def test_a_registry_with_the_referrers_api_gets_no_list_beside_it(places: Places, run: Run) -> None:
    image = places.push()
    assert run("image", "export", image, "--out", places.file).exit_code == 0
    with RegistryFront(places.target.address) as front:
        done = run("image", "import", places.file, "--registry", f"{front.address}/api")
        assert done.exit_code == 0, done.stderr
        checked = run("image", "verify", image, "--registry-mirror", f"{front.address}/api", *places.keys())
        assert checked.exit_code == 0, checked.stderr
        assert any("/blobs/uploads/" in path for path in front.asked)
        before = len(front.asked)
        assert run("image", "import", places.file, "--registry", f"{front.address}/api").exit_code == 0
        assert not any("/blobs/uploads/" in path for path in front.asked[before:])  # what is there is passed over
    assert not any(path.endswith(f"manifests/{image.digest.replace(':', '-')}") for path in front.asked)


def test_an_interrupted_export_goes_on_where_it_ended(places: Places, run: Run) -> None:
    first, second = (Layer.of({name: os.urandom(3_000_000)}) for name in ("first", "second"))
    image = places.push(first, second)
    stored = {each: blob_file(places.source, digest_of(each.blob)) for each in (first, second)}
    hidden = {each: path.read_bytes() for each, path in stored.items()}
    stored[second].write_bytes(hidden[second][:-1] + b"x")
    assert reason(run("image", "export", image, "--out", places.file, "--output", "json")) == "IMAGE_TAMPERED"
    partial = places.directory / "images.tar.partial"
    assert not places.file.exists()
    # As a process that was killed leaves it: half of what came next.
    with partial.open("ab") as file:
        file.write(b"blobs/sha256/" + b"0" * 64)
    stored[second].write_bytes(hidden[second])
    stored[first].unlink()  # it cannot be had once more
    done = run("image", "export", image, "--out", places.file)
    assert done.exit_code == 0, done.stderr
    assert not partial.exists()
    stored[first].write_bytes(hidden[first])
    assert run("image", "import", places.file, "--registry", f"{places.target.address}/resumed").exit_code == 0
    assert reason(run("image", "export", image, "--out", places.file, "--output", "json")) == "ALREADY_EXISTS"


def blob_file(registry: Registry, digest: str) -> Path:
    hexadecimal = digest.removeprefix("sha256:")
    return registry.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"


def test_changed_bytes_are_refused_and_never_arrive(places: Places, run: Run) -> None:
    layer = Layer.of({"marked": os.urandom(100_000)})
    image = places.push(layer)
    assert run("image", "export", image, "--out", places.file).exit_code == 0
    whole = places.file.read_bytes()
    manifest = b'"schemaVersion":2'
    target = f"{places.target.address}/changed"
    for part in (layer.blob[-1000:], manifest):
        position = whole.index(part)
        places.file.write_bytes(whole[:position] + b"?" + whole[position + 1 :])
        done = run("image", "import", places.file, "--registry", target, "--output", "json")
        assert reason(done) == "IMAGE_TAMPERED"
    assert not blob_file(places.target, digest_of(layer.blob)).exists()
    places.file.write_bytes(whole[:-50_000])
    assert reason(run("image", "import", places.file, "--registry", target, "--output", "json")) == "IMAGE_TAMPERED"


DIGEST = "sha256:" + "0" * 64
ENTRY = {"digest": DIGEST, "annotations": {"org.vantage.repository": "registry.example.org/a"}}


def layout(index: Any, *members: tuple[str | tarfile.TarInfo, bytes]) -> bytes:
    """An archive with an index, and something else in it."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in (("oci-layout", b"{}"), ("index.json", json.dumps(index).encode()), *members):
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return written.getvalue()


def link(name: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        pytest.param(b"", "it has no oci-layout", id="empty"),
        pytest.param(b"x" * 5000, "not as image builders", id="no tar"),
        pytest.param(gzip.compress(layout({"manifests": []})), "not as image builders", id="compressed"),
        pytest.param(layout({"manifests": []}, ("../../etc/cron.d/x", b"")), "no image layout has", id="upwards"),
        pytest.param(layout({"manifests": []}, ("/etc/cron.d/x", b"")), "no image layout has", id="absolute"),
        pytest.param(layout({"manifests": []}, (link("blobs", tarfile.SYMTYPE), b"")), "no image layout", id="symlink"),
        pytest.param(layout({"manifests": []}, (link("x", tarfile.LNKTYPE), b"")), "no image layout", id="hard link"),
        pytest.param(layout({"manifests": []}, (link("x", tarfile.FIFOTYPE), b"")), "no image layout", id="fifo"),
        pytest.param(layout({"manifests": []}, ("index.json", b"{}")), "in it twice", id="two indexes"),
        pytest.param(layout([]), "index is malformed", id="no index"),
        pytest.param(layout({"manifests": [7]}), "say its repository", id="no entry"),
        pytest.param(layout({"manifests": [{"digest": DIGEST}]}), "say its repository", id="no repository"),
        pytest.param(layout({"manifests": [{**ENTRY, "digest": "sha512:00"}]}), "entry", id="other digest"),
        pytest.param(
            layout({"manifests": [{**ENTRY, "annotations": {"org.vantage.repository": "a.org/../x"}}]}),
            "say its repository",
            id="repository upwards",
        ),
        pytest.param(layout({"manifests": [ENTRY]}), "it has no blobs/sha256", id="no blob"),
        pytest.param(layout({"manifests": [ENTRY]}, (f"blobs/sha256/{'0' * 64}", b"{}")), "other bytes", id="forged"),
    ],
)
def test_what_is_no_archive_of_images_is_refused(places: Places, run: Run, content: bytes, hint: str) -> None:
    places.file.write_bytes(content)
    before = sorted(places.directory.rglob("*"))
    done = run("image", "import", places.file, "--registry", "127.0.0.1:1", "--output", "json")
    assert reason(done) == "IMAGE_TAMPERED"
    assert hint in done.stderr
    assert sorted(places.directory.rglob("*")) == before


def test_what_is_wrong_is_said(places: Places, run: Run) -> None:
    image = places.push()
    tag = run("image", "export", f"{image.repository}:latest", "--out", places.file)
    assert (tag.exit_code, "by digest" in tag.stderr) == (2, True)
    absent = run("image", "export", f"{image.repository}@{DIGEST}", "--out", places.file, "--output", "json")
    assert reason(absent) == "IMAGE_NOT_FOUND"
    assert not places.file.exists()
    nowhere = run("image", "export", image, "--out", "/nowhere/images.tar")
    assert (nowhere.exit_code, "/nowhere/images.tar: No such file" in nowhere.stderr) == (1, True)
    assert run("image", "export", image, "--out", places.file).exit_code == 0
    target = run("image", "import", places.file, "--registry", "https://x")
    assert (target.exit_code, "PREFIX" in target.stderr) == (2, True)
    down = run("image", "import", places.file, "--registry", "127.0.0.1:1")
    assert (down.exit_code, "127.0.0.1:1 cannot be used" in down.stderr) == (4, True)
    sign = run("image", "show", image, "--archive", places.directory / "nothing.tar")
    assert sign.exit_code == 2
