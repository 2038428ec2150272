"""``vantage node policy``: the reasoning for people, with and without the registry."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from vantage.common import cosign, oci, pki
from vantage.common.image_signing import sign_image
from vantage.node import config
from vantage.node.cli import node
from vantage.node.images.access import RegistryAccesses
from vantage.node.images.source import ImageSource, build_verifier
from vantage.node.images.verifier import VerifiedImage
from vantage.node.sources import CodeRequest
from vantage.testing.declared import push_declaration
from vantage.testing.engine import docker_client
from vantage.testing.registry import Registry

pytestmark = pytest.mark.docker

AUTHOR, REVIEWER = pki.create_key(), pki.create_key()
DECLARATION = {
    "schema": 1,
    "functions": {
        "summary": {
            "description": "Sums up.\nheld   10 enough trusted keys have signed it: the admin's",
            "arguments": {"properties": {"min_count": {"type": "integer"}}, "type": "object"},
        }
    },
}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with Registry(tmp_path_factory.mktemp("registry")) as running:
        yield running


class Admin:
    """Somebody at the command line of a node."""

    def __init__(self, directory: Path, registry: Registry) -> None:
        self.directory = directory
        self.registry = registry
        for name, key in (("author", AUTHOR), ("reviewer", REVIEWER)):
            (directory / f"{name}.pub").write_bytes(cosign.public_pem(key.public_key()))
        unique = secrets.token_hex(8)
        self.image = asyncio.run(
            push_declaration(
                registry.address, "algorithms/summary", DECLARATION, unique, unique, files={"content": unique.encode()}
            )
        )
        self.rule: dict[str, Any] = {
            "repository": f"{registry.address}/algorithms/*",
            "keys": ["author", "reviewer"],
            "users": ["dora/alice"],
            "arguments": {"min_count": {"minimum": 10}},
        }
        self.policy: dict[str, Any] = {
            "keys": {
                "author": {"file": "author.pub", "role": "author"},
                "reviewer": {"file": "reviewer.pub", "expires": "2020-01-01"},
            },
            "organizations": ["dora"],
        }

    def sign(self) -> None:
        reference = oci.ImageReference.parse(self.image)

        async def run() -> None:
            async with oci.connect(reference.registry, reference.path, oci.RegistryAccess()) as connection:
                await sign_image(connection, reference, AUTHOR)

        asyncio.run(run())

    def run(self, *arguments: str) -> Result:
        settings = {
            "server": {"address": "localhost:7600"},
            "identity": {"organization": "clara", "node": "clara-1"},
            "data_dir": "data",
            "policy": {**self.policy, "images": [self.rule]},
        }
        self.config.write_text(json.dumps(settings))  # JSON is YAML
        return CliRunner().invoke(node, ["policy", *arguments, "--config", str(self.config)])

    @property
    def config(self) -> Path:
        return self.directory / "node.yaml"

    def explain(self, *arguments: str, user: str = "dora/alice", arguments_are: object = None) -> dict[str, Any]:
        """What is said, for programs; the exit code says the same."""
        more: tuple[str, ...] = ()
        if arguments_are is not None:
            (self.directory / "arguments.json").write_text(json.dumps(arguments_are))
            more = ("--arguments", str(self.directory / "arguments.json"))
        done = self.run(
            "explain", self.image, "--function", "summary", "--user", user, "--output", "json", *more, *arguments
        )
        said: dict[str, Any] = json.loads(done.output)
        assert done.exit_code == (0 if said["allowed"] else 1)
        return said


@pytest.fixture
def admin(tmp_path: Path, registry: Registry) -> Admin:
    return Admin(tmp_path, registry)


def steps(said: dict[str, Any]) -> dict[int, Any]:
    """The last step of each number."""
    return {each["number"]: each["held"] for each in said["steps"]}


def test_each_check_is_shown_with_what_it_found(admin: Admin) -> None:
    admin.sign()
    said = admin.explain(arguments_are={"min_count": 10})
    assert (said["allowed"], said["reason"]) == (True, None)
    assert steps(said) == dict.fromkeys((0, 1, 2, 3, 6, 7, 10, 13, 14), True) | {17: None}
    assert said["policy"].startswith("sha256:")
    text = admin.run("explain", admin.image, "--function", "summary", "--user", "dora/alice").output
    assert "held   10 enough trusted keys have signed it: 1 of the 1 keys that are needed: author" in text
    assert "?      14 the arguments are within bounds: give them (--arguments): min_count count" in text
    assert text.rstrip().endswith("not known: see the steps marked with ?")
    assert not any(line.startswith("held   10") and "admin" in line for line in text.splitlines())


def test_what_fails_is_shown_with_the_reason_that_a_researcher_would_get(admin: Admin) -> None:
    assert admin.explain()["reason"] == "IMAGE_UNSIGNED"
    admin.sign()
    for said, reason, number in (
        (admin.explain(user="dora/bob"), "POLICY_REFUSED", 6),
        (admin.explain(user="hilda/alice"), "POLICY_REFUSED", 0),
        (admin.explain(user="users/alice"), "POLICY_REFUSED", 0),
        (admin.explain("--function", "other"), "FUNCTION_UNKNOWN", 13),
        (admin.explain(arguments_are={"min_count": 9}), "ARGUMENTS_NOT_ALLOWED", 14),
        (admin.explain(arguments_are={"min_count": "many"}), "ARGUMENTS_INVALID", 13),
    ):
        assert (said["allowed"], said["reason"]) == (False, reason)
        assert steps(said)[number] is False
    admin.rule["threshold"] = 2
    said = admin.explain()
    (failed,) = [each for each in said["steps"] if each["held"] is False]
    assert (failed["number"], failed["reason"], failed["rule"]) == (
        10,
        "IMAGE_SIGNATURES_TOO_FEW",
        admin.rule["repository"],
    )
    admin.rule["repository"] = "registry.example.org/**"
    assert admin.explain()["reason"] == "IMAGE_NOT_ALLOWED"
    admin.image = admin.image.replace("@", ":latest@")
    assert admin.explain()["reason"] == "IMAGE_NOT_BY_DIGEST"


def test_offline_it_says_what_the_node_knows_and_remembers_nothing_by_being_asked(admin: Admin) -> None:
    admin.sign()
    admin.explain()
    said = admin.explain("--offline", arguments_are={"min_count": 10})
    assert (said["allowed"], steps(said)[7]) == (None, None)
    assert not (admin.directory / "data").exists()
    # Once it ran, also while the registry is down.
    loaded = config.load(admin.config)
    verifier = build_verifier(loaded, RegistryAccesses(loaded))
    user = "organizations/dora/users/alice"
    asyncio.run(verifier.verify(CodeRequest(admin.image, "summary", "organizations/dora", user)))
    assert admin.explain("--offline", arguments_are={"min_count": 10})["allowed"] is True
    # Whether it is in the engine decides nothing, and is told.
    source = ImageSource(config.load(admin.config))
    trusted = asyncio.run(source.trust(CodeRequest(admin.image, "summary", "organizations/dora", user)))
    asyncio.run(source.fetch(trusted, lambda _fraction, _text: None))
    admin.registry.stop()
    try:
        said = admin.explain(arguments_are={"min_count": 10})
        assert (said["allowed"], steps(said)[17]) == (True, True)
        assert isinstance(trusted.code, VerifiedImage)
        with docker_client() as engine:
            engine.images.remove(trusted.code.image_id, force=True)
        assert admin.explain(arguments_are={"min_count": 10})["allowed"] is True
        admin.rule["threshold"] = 2
        said = admin.explain()
        assert said["reason"] == "IMAGE_SIGNATURES_TOO_FEW"
        assert any("cannot be used" in each["why"] for each in said["steps"] if each["number"] == 7)
    finally:
        admin.registry.start()


def test_keys_are_listed_with_what_revocation_wants(admin: Admin) -> None:
    fingerprint = cosign.key_fingerprint(AUTHOR.public_key())
    listed = {each["name"]: each for each in json.loads(admin.run("keys", "--output", "json").output)}
    assert (listed["author"]["fingerprint"], listed["author"]["state"]) == (fingerprint, "trusted")
    assert listed["reviewer"]["state"] == "expired"
    admin.policy["revoked"] = {"keys": [fingerprint]}
    assert f"author (author, revoked): {fingerprint}" in admin.run("keys").output


def test_a_wrong_configuration_is_said(admin: Admin) -> None:
    admin.rule["keys"] = ["nobody"]
    done = admin.run("explain", admin.image, "--function", "summary")
    assert done.exit_code == 2
    assert "no key of that name" in done.output
