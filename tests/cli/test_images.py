"""Signing and verifying images in a real registry."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from vantage.common import cosign, oci
from vantage.testing.declared import push_declaration
from vantage.testing.registry import Registry

pytestmark = pytest.mark.docker

PASSWORD = "correct horse"
CREDENTIALS = "registry password"
DECLARATION = {
    "schema": 1,
    "functions": {
        "count": {
            "description": "Counts\nrows.",
            "arguments": {
                "type": "object",
                "properties": {"minimum": {"type": "integer", "description": "Fewest rows that are told."}},
                "required": ["minimum"],
            },
            "data": [{"parameter": "table"}],
        }
    },
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry"), {"clara": CREDENTIALS}) as started:
        yield started


@pytest.fixture(autouse=True)
def logged_in(registry: Registry, tmp_path: Path) -> None:
    """What 'docker login' leaves."""
    stored = base64.b64encode(f"clara:{CREDENTIALS}".encode()).decode()
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": stored}}}))


def push(registry: Registry, content: str, tag: str = "latest") -> str:
    """Push an image that differs by its content, and return its reference."""
    access = oci.RegistryAccess("clara", CREDENTIALS)
    return asyncio.run(push_declaration(registry.address, "algorithms/count", DECLARATION, content, tag, access))


@pytest.fixture
def keys(tmp_path: Path, run: Run) -> Path:
    """Keys of an author and a reviewer."""
    for name in ("author", "reviewer"):
        done = run("image", "key", "--out", tmp_path / name, "--password-stdin", stdin=f"{PASSWORD}\n")
        assert done.exit_code == 0, done.stderr
    return tmp_path


def test_a_key_is_encrypted_private_and_never_overwritten(keys: Path, run: Run) -> None:
    private = keys / "author.key"
    assert private.stat().st_mode & 0o777 == 0o600
    opened = cosign.open_private_key(private.read_bytes(), PASSWORD.encode(), "author.key")
    assert cosign.public_pem(opened.public_key()) == (keys / "author.pub").read_bytes()
    before = private.read_bytes(), (keys / "author.pub").read_bytes()
    again = run("image", "key", "--out", keys / "author", "--password-stdin", stdin="other\n")
    assert again.exit_code == 1
    assert before == (private.read_bytes(), (keys / "author.pub").read_bytes())


def test_signed_by_two_and_verified(registry: Registry, keys: Path, run: Run) -> None:
    image = push(registry, "two")
    sign = ("image", "sign", image, "--password-stdin", "--output", "json", "--key")
    verify = (
        "image",
        "verify",
        image,
        "--output",
        "json",
        "--key",
        keys / "author.pub",
        "--key",
        keys / "reviewer.pub",
    )
    unsigned = run(*verify)
    assert unsigned.exit_code == 1
    assert json.loads(unsigned.stderr)["error"]["reason"] == "IMAGE_UNSIGNED"
    assert json.loads(run(*sign, keys / "author.key", stdin=f"{PASSWORD}\n").stdout)["added"] is True
    assert json.loads(run(*sign, keys / "author.key", stdin=f"{PASSWORD}\n").stdout)["added"] is False
    bundle = json.loads(run(*sign, keys / "author.key", "--format", "bundle", stdin=f"{PASSWORD}\n").stdout)
    assert (bundle["added"], bundle["format"]) == (True, "bundle")
    assert json.loads(run(*verify).stdout)["signers"] == [str(keys / "author.pub")]
    too_few = run(*verify, "--threshold", "2")
    assert too_few.exit_code == 1
    assert json.loads(too_few.stderr)["error"]["reason"] == "IMAGE_SIGNATURE_INVALID"
    assert run(*sign, keys / "reviewer.key", "--format", "bundle", stdin=f"{PASSWORD}\n").exit_code == 0
    assert len(json.loads(run(*verify, "--threshold", "2").stdout)["signers"]) == 2


def test_one_key_in_two_files_is_one_signer(registry: Registry, keys: Path, run: Run) -> None:
    image = push(registry, "copies")
    (keys / "copy.pub").write_bytes((keys / "author.pub").read_bytes())
    assert (
        run("image", "sign", image, "--key", keys / "author.key", "--password-stdin", stdin=f"{PASSWORD}\n").exit_code
        == 0
    )
    done = run("image", "verify", image, "--key", keys / "author.pub", "--key", keys / "copy.pub", "--threshold", "2")
    assert done.exit_code == 1


def test_a_signature_of_another_image_is_none(registry: Registry, keys: Path, run: Run) -> None:
    signed, other = push(registry, "signed"), push(registry, "other")
    assert (
        run("image", "sign", signed, "--key", keys / "author.key", "--password-stdin", stdin=f"{PASSWORD}\n").exit_code
        == 0
    )

    async def copy() -> None:
        access = oci.RegistryAccess("clara", CREDENTIALS)
        async with oci.connect(registry.address, "algorithms/count", access) as repository:
            found = await repository.manifest(cosign.signature_tag(signed.rsplit("@", 1)[1]))
            assert found is not None
            await repository.put_manifest(cosign.signature_tag(other.rsplit("@", 1)[1]), found[1])

    asyncio.run(copy())
    assert run("image", "verify", signed, "--key", keys / "author.pub").exit_code == 0
    assert run("image", "verify", other, "--key", keys / "author.pub").exit_code == 1


def test_a_signature_counts_for_the_name_that_it_was_made_for(registry: Registry, keys: Path, run: Run) -> None:
    image = push(registry, "moved")
    key = ("--key", keys / "author.key", "--password-stdin")
    assert run("image", "sign", image, *key, stdin=f"{PASSWORD}\n").exit_code == 0
    there = image.replace("127.0.0.1:", "localhost:")
    access = ("--registry-user", "clara", "--registry-password-stdin")
    verify = ("image", "verify", there, "--key", keys / "author.pub", *access)
    moved = run(*verify, "--output", "json", stdin=f"{CREDENTIALS}\n")
    assert moved.exit_code == 1
    assert json.loads(moved.stderr)["error"]["reason"] == "IMAGE_SIGNED_ELSEWHERE"
    assert run(*verify, "--signed-as", "127.0.0.1:*/algorithms/count", stdin=f"{CREDENTIALS}\n").exit_code == 0


def test_what_is_wrong_is_said(registry: Registry, keys: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    image = push(registry, "wrong")
    key = ("--key", keys / "author.key", "--password-stdin")
    wrong = run("image", "sign", image, *key, stdin="wrong\n")
    assert (wrong.exit_code, "password is wrong" in wrong.stderr) == (2, True)
    tag = run("image", "sign", image.partition("@")[0] + ":latest", *key, stdin=f"{PASSWORD}\n")
    assert (tag.exit_code, "by digest" in tag.stderr) == (2, True)
    missing = run("image", "sign", image[:-4] + "0000", *key, stdin=f"{PASSWORD}\n")
    assert (missing.exit_code, "push it first" in missing.stderr) == (1, True)
    threshold = run("image", "verify", image, "--key", keys / "author.pub", "--threshold", "2")
    assert (threshold.exit_code, "cannot be met" in threshold.stderr) == (2, True)
    down = run("image", "verify", f"127.0.0.1:9/x/y@{image.rsplit('@')[1]}", "--key", keys / "author.pub")
    assert (down.exit_code, "127.0.0.1:9 cannot be used" in down.stderr) == (4, True)
    monkeypatch.setenv("DOCKER_CONFIG", "/nowhere")
    strange = run("image", "verify", image, "--key", keys / "author.pub")
    assert (strange.exit_code, "credentials" in strange.stderr) == (4, True)
    given = run(
        "image", "sign", image, "--key", keys / "author.key", "--registry-user", "clara", "--registry-password-stdin",
        stdin=f"{CREDENTIALS}\n",
    )  # fmt: skip
    assert (given.exit_code, "--password-stdin" in given.stderr) == (2, True)
    monkeypatch.setenv("COSIGN_PASSWORD", PASSWORD)
    given = run(
        "image", "sign", image, "--key", keys / "author.key", "--registry-user", "clara", "--registry-password-stdin",
        stdin=f"{CREDENTIALS}\n",
    )  # fmt: skip
    assert given.exit_code == 0, given.stderr


def test_an_image_shows_what_it_can_do(registry: Registry, run: Run) -> None:
    image = push(registry, "shown", "shown")
    shown = run("image", "show", image.partition("@")[0] + ":shown")
    assert shown.exit_code == 0, shown.stderr
    assert shown.stdout.splitlines() == [
        image,
        "",
        "count (reads data)",
        "  Counts�rows.",
        "  --arguments minimum: integer  Fewest rows that are told.",
        "  --dataset table=NAME",
    ]
    document = json.loads(run("image", "show", image, "--output", "json").stdout)
    assert document["image"] == image
    assert list(document["functions"]) == ["count"]
    missing = run("image", "show", image.partition("@")[0] + ":no-such-tag")
    assert (missing.exit_code, "push it first" in missing.stderr) == (1, True)
    nameless = run("image", "show", "summary:latest")
    assert nameless.exit_code == 2
