from __future__ import annotations

import re
from datetime import date
from pathlib import Path

import pytest

from vantage.common.errors import ConfigurationError
from vantage.node.config import load

GOOD = """\
server:
  address: vantage.example.org:7430
identity:
  organization: clara
  node: clara-1
data_dir: data
datasets:
  - name: lung
    path: lung.csv
    format: csv
    collaborations: [trial]
policy:
  keys:
    a: {file: author.pub, role: author, expires: 2027-01-01}
  images:
    - repository: registry.example.org/algorithms/*
      keys: [author.pub]
limits:
  memory: 512MiB
  max_runtime: 90m
"""

KEYS = "    a: {file: author.pub, role: author, expires: 2027-01-01}"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "lung.csv").write_text("a\n")
    (tmp_path / "author.pub").write_text("")
    return tmp_path


def write(directory: Path, text: str) -> Path:
    path = directory / "node.yaml"
    path.write_text(text)
    return path


def test_names_amounts_and_paths_are_completed(directory: Path) -> None:
    config = load(write(directory, GOOD))
    assert config.identity.name == "organizations/clara/nodes/clara-1"
    assert config.datasets[0].collaborations == ("collaborations/trial",)
    assert config.datasets[0].path == directory / "lung.csv"
    assert config.policy.keys["author.pub"].file == config.policy.keys["a"].file == directory / "author.pub"
    assert config.policy.keys["a"].expires == date(2027, 1, 1)
    assert config.identity.key == directory / "node-key.pem"
    assert config.data_dir == directory / "data"
    assert config.limits.memory == 512 * 1024**2
    assert config.limits.max_runtime == 5400
    assert not config.policy.allow_logs


@pytest.mark.parametrize(
    ("old", "new", "place", "hint"),
    [
        ("policy:", "polcy:", "node.yaml:12: polcy", "did you mean 'policy'"),
        ("    format: csv", "    fromat: csv", "node.yaml:10: datasets.0.fromat", "did you mean 'format'"),
        ("      keys:", "      quays: 1\n      keys:", "node.yaml:17: policy.images.0.quays", "keys"),
        ("format: csv", "format: spss", "node.yaml:10: datasets.0.format", "'csv', 'parquet'"),
        ("memory: 512MiB", "memory: lots", "node.yaml:19: limits.memory", "512MiB"),
        ("memory: 512MiB", "memory: -5", "node.yaml:19: limits.memory", "greater than 0"),
        ("  node: clara-1\n", "", "node.yaml:3: identity.node", "is missing"),
        ("node: clara-1", "node: Clara One", "node.yaml:3: identity", "lower-case"),
        ("7430", "port", "node.yaml:1: server", "HOST:PORT"),
        ("  address:", "  fingerprint: abc\n  address:", "node.yaml:1: server", "64 hexadecimal digits"),
        ("lung.csv", "heart.csv", "node.yaml:9: datasets.0.path", "there is no file"),
        ("[author.pub]", "[other.pub]", "node.yaml:17: policy.images.0.keys.0", "there is no file"),
        ("[author.pub]", "[author.pub]\n      threshold: 2", "node.yaml:16: policy.images.0", "cannot be met"),
        ("[author.pub]", "[author]", "node.yaml:17: policy.images.0.keys.0", "no key of that name in policy.keys"),
        (KEYS, f"{KEYS}\n    b: {{file: no.pub}}", "node.yaml:15: policy.keys.b.file", "there is no file"),
        (KEYS, KEYS.replace("role", "rule"), "node.yaml:14: policy.keys.a.rule", "did you mean 'role'"),
        (KEYS, KEYS.replace("role: author", "role: Author"), "node.yaml:14: policy.keys.a.role", "match pattern"),
        (KEYS, KEYS.replace("2027-01-01", "soon"), "node.yaml:14: policy.keys.a.expires", "valid date"),
        (
            "[author.pub]",
            "[a]\n      roles: {reviewer: 1}",
            "node.yaml:18: policy.images.0.roles.reviewer",
            "0 of the rule",
        ),
        (
            "[author.pub]",
            "[a]\n      arguments: {x: {minimum: no}}",
            "node.yaml:18: policy.images.0.arguments.x",
            "Schema",
        ),
        ("[author.pub]", "[a]\n      arguments: {x: {$ref: y}}", "node.yaml:18: policy.images.0.arguments.x", "$ref"),
        ("[author.pub]", "[a]\n      users: [A/b/c]", "node.yaml:18: policy.images.0.users.0", "like dora/alice"),
        (
            "[author.pub]",
            "[a]\n      attestations: [{type: sbon}]",
            "node.yaml:18: policy.images.0.attestations.0",
            "sbom",
        ),
        (
            "[author.pub]",
            "[a]\n      attestations:\n      - {type: sbom, keys: [b]}",
            "node.yaml:19: policy.images.0.attestations.0.keys.0",
            "there is no file",
        ),
        (
            "[author.pub]",
            "[a]\n      attestations:\n      - {type: sbom, threshold: 2}",
            "node.yaml:19: policy.images.0.attestations.0.threshold",
            "cannot be met with 1 keys",
        ),
        (KEYS, f"{KEYS}\n  revoked: {{keys: [abc]}}", "node.yaml:15: policy.revoked.keys.0", "match pattern"),
        ("data_dir: data", "data_dir: data\nexecutor: process", "node.yaml:1", "allow_unsandboxed: true"),
        ("data_dir: data", "data_dir: data\nslots: 0", "node.yaml:7: slots", "greater than or equal to 1"),
        ("data_dir: data", "data_dir: data\ndata_dir: again", "node.yaml:7:1", "second time"),
        ("    path: lung.csv", "   path: lung.csv", "node.yaml:9", "not valid YAML"),
        ("data_dir: data", "data_dir: [", "node.yaml:", "not valid YAML"),
        ("[trial]", "[Trial!]", "node.yaml:11: datasets.0.collaborations.0", "collaborations/some-name"),
    ],
)
def test_a_mistake_is_shown_with_its_line_and_what_is_allowed(
    directory: Path, old: str, new: str, place: str, hint: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigurationError) as caught:
        load(write(directory, GOOD.replace(old, new, 1)))
    assert place in caught.value.message
    assert hint in caught.value.message


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "text", "a: &x [*x]\n", "\x00", "? {a: 1}\n: b\n"])
def test_what_is_no_configuration_is_said_to_be_none(directory: Path, text: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(str(directory / "node.yaml"))):
        load(write(directory, text))


def test_all_mistakes_are_shown_at_once(directory: Path) -> None:
    text = GOOD.replace("format: csv", "format: spss").replace("memory: 512MiB", "memory: lots")
    with pytest.raises(ConfigurationError) as caught:
        load(write(directory, text))
    assert len(caught.value.message.splitlines()) == 2


def test_a_missing_file_names_the_command_that_makes_one(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="vantage node init"):
        load(directory / "none.yaml")


def test_a_value_in_the_wrong_place_is_not_repeated(directory: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(write(directory, GOOD.replace("memory: 512MiB", "memory: {hunter2: x}")))
    assert "hunter2" not in caught.value.message
