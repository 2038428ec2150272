"""A reviewer looks at images in a real registry, and signs what was looked at."""

from __future__ import annotations

import asyncio
import io
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cli.conftest import Run
from vantage.client import image_review
from vantage.common import cosign, oci, pki
from vantage.common.declaration import LABEL
from vantage.common.image_signing import attach_statement, sign_image
from vantage.common.image_statements import Layout, build_bundle, build_statement
from vantage.common.oci import ImageReference, RegistryAccess, digest_of
from vantage.common.referrers import attach
from vantage.testing.layered_images import DECLARATION, Build, Layer, push_build
from vantage.testing.registry import Registry
from vantage.testing.terminal import Terminal

pytestmark = pytest.mark.docker

OPEN = RegistryAccess()
PASSWORD = "correct horse"
AUTHOR, REVIEWER, STRANGER = (pki.create_key() for _ in range(3))
BASE = Layer.of({f"usr/lib/module-{number}": b"shared" for number in range(150)})
FORGED = "signature by the reviewer (classic)"
CAPABILITY = bytes.fromhex("0100000200100000000000000000000000000000")
"""The extended attribute as setcap writes it: cap_net_admin, effective and permitted."""
PROGRAM = "import vantage\n\n\ndef summary():\n    return 1\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as started:
        yield started


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    for name, key in (("author", AUTHOR), ("reviewer", REVIEWER)):
        (tmp_path / f"{name}.pub").write_bytes(cosign.public_pem(key.public_key()))
        (tmp_path / f"{name}.key").write_bytes(cosign.seal_private_key(key, PASSWORD.encode()))
    return tmp_path


def push(registry: Registry, files: Mapping[str, bytes], *more: Layer, **build: Any) -> ImageReference:
    made = Build([BASE, Layer.of(files), *more], **build)
    return asyncio.run(push_build(registry.address, "algorithms/summary", made))


def sign(image: ImageReference, key: ec.EllipticCurvePrivateKey, layout: Layout = Layout.CLASSIC) -> None:
    async def run() -> None:
        async with oci.connect(image.registry, image.path, OPEN) as connection:
            await sign_image(connection, image, key, layout)

    asyncio.run(run())


def test_the_first_look_shows_what_the_author_added(registry: Registry, keys: Path, run: Run) -> None:
    settings = {
        "Entrypoint": ["python3", "-m", "algorithm"],
        "Env": ["VANTAGE_MODULE=algorithm"],
        "Tty": False,
        "Labels": {
            "org.opencontainers.image.source": "https://example.org/code",
            "forged": f"\n\nSIGNATURES\n  {FORGED}",
            LABEL: json.dumps(DECLARATION),
        },
    }
    files = {"app/algorithm.py": PROGRAM.encode(), "app/model.bin": os.urandom(5000), "app/\x1b[2Jevil": b"\x1b[31m\n"}
    files[f"app/x\n  {FORGED}"] = b""
    files["app/long.py"] = b"#" * 70_000
    # Variants of a letter that nobody sees can hold a program, which another line decodes and runs.
    files["app/data.py"] = "DATA = 'v\ufe00\U000e0101'  # für\r\n".encode()
    image = push(registry, files, settings=settings)
    sign(image, AUTHOR)
    assert run("image", "export", image, "--out", keys / "images.tar").exit_code == 0
    assert run("image", "import", keys / "images.tar", "--registry", f"{image.registry}/copies").exit_code == 0
    sign(image, STRANGER, Layout.BUNDLE)
    done = run("image", "review", image, "--known", keys / "author.pub")
    assert done.exit_code == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    assert lines[0] == str(image)
    for line in (
        "summary (reads no data)",
        'Entrypoint: ["python3", "-m", "algorithm"]',
        'Env: ["VANTAGE_MODULE=algorithm"]',
        "label org.opencontainers.image.source: https://example.org/code",
        "User: none is set, which means root; nodes run it as another user",
        "+ /app/algorithm.py  file 0644 0:0 45 bytes",
        "+def summary():",
        "+ /app/model.bin  file 0644 0:0 5.0 kB, not shown: no text",
        "+ /app/long.py  file 0644 0:0 70.0 kB, not shown: too long",
        "+DATA = 'v<U+FE00><U+E0101>'  # für<U+000D>",
        "not listed: layers 1; name the base image with --against",
        f"signature by {keys / 'author.pub'} (classic)",
        "signature by a key that is not among --known (bundle)",
    ):
        assert line in lines, done.stdout
    copy = ImageReference(image.registry, f"copies/{image.path}", image.digest)
    made_for = f"signature by {keys / 'author.pub'} (classic), made for {image.repository}"
    assert made_for in run("image", "review", copy, "--known", keys / "author.pub").stdout
    assert "module-1" not in done.stdout
    assert "Tty" not in done.stdout
    assert "\x1b" not in done.stdout  # names and contents do not steer the terminal
    assert FORGED not in lines  # nor do they add lines of their own
    assert done.stdout.count(FORGED) == 2


def test_what_differs_from_an_earlier_image_is_shown_and_nothing_else(registry: Registry, run: Run) -> None:
    files = {"app/algorithm.py": PROGRAM.encode(), "app/kept": b"k", "app/gone": b"g", "app/was": b"#" * 70_000}
    old = push(registry, files)
    tool = io.BytesIO()
    with tarfile.open(fileobj=tool, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("usr/lib/module-7")
        info.size, info.mode = 6, 0o4755
        archive.addfile(info, io.BytesIO(b"shared"))
        info = tarfile.TarInfo("usr/lib/linked")
        info.type, info.linkname, info.mode = tarfile.LNKTYPE, "usr/lib/module-7", 0o4755
        archive.addfile(info)
        info = tarfile.TarInfo("usr/lib/module-9")
        info.size, info.pax_headers = (
            6,
            {"SCHILY.xattr.security.capability": CAPABILITY.decode(errors="surrogateescape")},
        )
        archive.addfile(info, io.BytesIO(b"shared"))
    declaration = {"schema": 1, "functions": {**DECLARATION["functions"], "dump": {"arguments": {"type": "object"}}}}  # type: ignore[dict-item]
    new = push(
        registry,
        {
            "app/algorithm.py": PROGRAM.replace("return 1", "return 2").encode(),
            "app/kept": b"k",
            "app/new": b"n",
            "app/was": b"evil\n",
        },
        Layer.packed(tool.getvalue()),
        settings={"User": "65534"},
        declaration=declaration,
    )
    done = run("image", "review", new, "--against", old.digest, "--output", "json")
    assert done.exit_code == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["against"] == str(old)
    assert [(each["what"], each["path"]) for each in seen["changes"]] == [
        ("changed", "/app/algorithm.py"),
        ("removed", "/app/gone"),
        ("added", "/app/new"),
        ("changed", "/app/was"),
        ("added", "/usr/lib/linked"),
        ("changed", "/usr/lib/module-7"),
        ("changed", "/usr/lib/module-9"),
    ]
    assert seen["changes"][0]["diff"][-2:] == ["-    return 1", "+    return 2"]
    assert [each["known"] for each in seen["layers"]] == [True, False, False]
    assert [each["files"] for each in seen["layers"]] == [150, 4, 3]
    changed = {each["name"]: each["diff"] for each in seen["setting_changes"]}
    assert list(changed) == ["User", "label org.vantage.declaration"]
    assert any('"dump"' in line for line in changed["label org.vantage.declaration"])
    text = run("image", "review", new, "--against", old).stdout
    assert "~ /usr/lib/module-7  file 0644 0:0 6 bytes -> file 4755 0:0 SET-USER-ID 6 bytes" in text
    assert "+ /usr/lib/linked  hard link 4755 0:0 SET-USER-ID to usr/lib/module-7" in text
    assert (
        f"~ /usr/lib/module-9  file 0644 0:0 6 bytes -> file 0644 0:0 CAPABILITIES {CAPABILITY.hex()} 6 bytes" in text
    )
    assert "module-8" not in text
    assert "-    return 1" in text
    assert "+evil" in text  # what was too long to be compared does not hide what is there now
    # Another repository by its whole name, e.g. that of the base image.
    base = asyncio.run(push_build(registry.address, "base", Build([BASE])))
    text = run("image", "review", new, "--against", base).stdout
    assert "+ /app/kept" in text
    assert "not listed" not in text


def test_it_says_which_texts_are_not_shown(registry: Registry, run: Run) -> None:
    files = {f"app/{number:02}": b"line\n" * 12_000 for number in range(24)} | {"app/last": b"evil"}
    image = push(registry, files)
    seen = json.loads(run("image", "review", image, "--output", "json").stdout)
    left_out = [each["path"] for each in seen["changes"] if each["omitted"]]
    assert left_out[-1] == "/app/last"
    assert len(left_out) < len(seen["changes"])
    lines = run("image", "review", image).stdout.splitlines()
    assert "not shown" in lines[lines.index("  + /app/last  file 0644 0:0 4 bytes") + 1]


def test_bills_of_materials_are_shown(registry: Registry, run: Run) -> None:
    image = push(registry, {"x": os.urandom(9)})
    cyclonedx = {"bomFormat": "CycloneDX", "components": [{"name": "pandas", "version": "2.2"}, {"name": "numpy"}]}
    spdx = {"spdxVersion": "SPDX-2.3", "packages": [{"name": "openssl", "versionInfo": "3.0"}]}

    async def attached() -> None:
        async with oci.connect(image.registry, image.path, OPEN) as connection:
            found = await connection.manifest(image.digest)
            assert found is not None
            predicate = "https://cyclonedx.org/bom"
            bundle = build_bundle(AUTHOR, build_statement(image, predicate, cyclonedx))
            await attach_statement(connection, image, found, bundle, predicate)
            await attach(connection, found, image.digest, ("application/spdx+json", json.dumps(spdx).encode()))

    asyncio.run(attached())
    text = run("image", "review", image).stdout
    for line in ("CycloneDX, 2 packages, attested", "pandas 2.2", "SPDX, 1 packages, not signed", "openssl 3.0"):
        assert line in text


def test_it_is_signed_after_a_question_only(registry: Registry, keys: Path, run: Run) -> None:
    image = push(registry, {"x": os.urandom(9)})
    asked = ("image", "review", image, "--key", keys / "reviewer.key", "--password-stdin")
    verify = ("image", "verify", image, "--key", keys / "reviewer.pub")
    nobody = run(*asked, stdin=f"{PASSWORD}\n")
    assert (nobody.exit_code, "add --yes" in nobody.stderr) == (2, True)
    assert run(*verify).exit_code == 1
    signed = run(*asked, "--yes", "--format", "bundle", "--output", "json", stdin=f"{PASSWORD}\n")
    assert signed.exit_code == 0, signed.stderr
    assert json.loads(signed.stdout)["signed"]["added"] is True
    assert run(*verify).exit_code == 0
    archive = keys / "images.tar"
    assert run("image", "export", image, "--out", archive).exit_code == 0
    assert run("image", "review", image, "--archive", archive, "--known", keys / "reviewer.pub").exit_code == 0
    read_only = run(*asked, "--yes", "--archive", archive, stdin=f"{PASSWORD}\n")
    assert (read_only.exit_code, "only read" in read_only.stderr) == (2, True)


@pytest.mark.parametrize(("answer", "ended", "code"), [("n", 130, 1), ("y", 0, 0)])
def test_a_person_reads_first_and_answers_then(
    registry: Registry, keys: Path, run: Run, monkeypatch: pytest.MonkeyPatch, answer: str, ended: int, code: int
) -> None:
    image = push(registry, {"app/algorithm.py": PROGRAM.encode(), "x": os.urandom(9)})
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)
    with Terminal.with_("image", "review", image, "--key", keys / "reviewer.key") as terminal:
        terminal.wait_for("Sign ")
        assert "+def summary():" in terminal.shown
        terminal.type(answer)
        assert terminal.end() == ended, terminal.shown
    verified = run("image", "verify", image, "--key", keys / "reviewer.pub")
    assert verified.exit_code == code, verified.stderr


def test_what_is_not_what_its_digest_says_is_neither_shown_nor_signed(
    registry: Registry, keys: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = Layer.of({"changed": os.urandom(99)})
    image = push(registry, {"x": b"x"}, layer)
    hexadecimal = digest_of(layer.blob).removeprefix("sha256:")
    path = registry.storage / "docker/registry/v2/blobs/sha256" / hexadecimal[:2] / hexadecimal / "data"
    good = path.read_bytes()
    asked = ("image", "review", image, "--key", keys / "reviewer.key", "--password-stdin", "--yes", "--output", "json")

    def refused() -> str:
        done = run(*asked, stdin=f"{PASSWORD}\n")
        assert (done.exit_code, done.stdout) == (1, "")
        assert run("image", "verify", image, "--key", keys / "reviewer.pub").exit_code == 1
        return str(json.loads(done.stderr)["error"]["reason"])

    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert refused() == "IMAGE_TAMPERED"
    path.write_bytes(good)
    monkeypatch.setattr(image_review, "MAX_SIZE", 100_000)
    assert refused() == "IMAGE_TOO_LARGE"
