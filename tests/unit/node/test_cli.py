from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner
from cryptography import x509

from vantage.common import cosign, pki
from vantage.node.cli import node

INIT = ["--server", "localhost:7430", "--organization", "clara", "--node", "clara-1"]


def init(directory: Path) -> None:
    result = CliRunner().invoke(node, ["init", str(directory), *INIT])
    assert result.exit_code == 0, result.output


def certify(directory: Path, name: str = "organizations/clara/nodes/clara-1") -> None:
    authority = pki.CertificateAuthority.create(directory / "ca", "organizations/clara")
    key = pki.read_key(directory / "node-key.pem")
    (directory / "node-cert.pem").write_text(pki.to_pem(authority.issue(name, key.public_key())))


def test_init_makes_what_the_next_step_needs(tmp_path: Path) -> None:
    init(tmp_path / "station")
    key = tmp_path / "station" / "node-key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    request = x509.load_pem_x509_csr((tmp_path / "station" / "node-cert.csr").read_bytes())
    assert pki.requested_name(request) == "organizations/clara/nodes/clara-1"
    result = CliRunner().invoke(node, ["init", str(tmp_path / "station"), *INIT])
    assert result.exit_code == 1
    assert "exists" in result.output


def test_init_leaves_nothing_when_a_name_is_wrong(tmp_path: Path) -> None:
    result = CliRunner().invoke(node, ["init", str(tmp_path), *INIT[:-1], "Clara One"])
    assert result.exit_code == 2
    assert "lower-case" in result.output
    assert list(tmp_path.iterdir()) == []


def test_check_says_what_the_node_will_serve(tmp_path: Path) -> None:
    init(tmp_path)
    config = ["check", "--config", str(tmp_path / "node.yaml")]
    result = CliRunner().invoke(node, config)
    assert result.exit_code == 1
    assert "vantage node issue" in result.output
    certify(tmp_path)
    result = CliRunner().invoke(node, config)
    assert result.exit_code == 0, result.output
    assert "organizations/clara/nodes/clara-1 at localhost:7430" in result.output
    assert "images: none are allowed" in result.output
    assert "progress, authors' messages" in result.output


def test_check_says_how_registries_are_reached(tmp_path: Path) -> None:
    init(tmp_path)
    certify(tmp_path)
    (tmp_path / "images.tar").touch()
    (tmp_path / "word").touch()
    registries = [
        {"address": "one.example.org", "server_tokens": True},
        {"address": "two.example.org", "mirror": "local:5000/two"},
        {"address": "local:5000", "username": "clara", "password_file": "word", "insecure": True},
        {"address": "three.example.org", "archive": "images.tar"},
    ]
    path = tmp_path / "node.yaml"
    path.write_text(path.read_text() + f"registries: {json.dumps(registries)}\n")
    result = CliRunner().invoke(node, ["check", "--config", str(path)])
    assert result.exit_code == 0, result.output
    for line in (
        "from one.example.org: with tokens of the server",
        "from two.example.org: its mirror local:5000/two is asked",
        "from local:5000: as clara, without TLS",
        f"from three.example.org: {tmp_path / 'images.tar'} is read",
    ):
        assert line in result.output


def test_check_reads_back_what_must_hold_before_something_leaves(tmp_path: Path) -> None:
    init(tmp_path)
    certify(tmp_path)
    path = tmp_path / "node.yaml"
    rules = [
        {"repository": "r.example/**", "functions": ["f"], "counts": ["n"], "minimum_count": 10},
        {
            "counts": ["*"],
            "minimum_count": 5,
            "small_counts": "suppress",
            "columns": ["a", "b"],
            "approval": "first_run",
        },
        {"media_types": ["text/csv"], "max_result_bytes": "1KiB", "approval": "every_result"},
    ]
    path.write_text(path.read_text().replace("  release: []", f"  release: {json.dumps(rules)}"))
    result = CliRunner().invoke(node, ["check", "--config", str(path)])
    assert result.exit_code == 0, result.output
    for line in (
        "r.example/**; functions f: at least 10 in n, else nothing leaves",
        "**: at least 5 in *, what is about fewer is blanked; only a, b; a person approves of each image and function",
        "**: of type text/csv; at most 1024 bytes; a person approves of whatever leaves",
        "(production: false)",
    ):
        assert line in result.output


def test_check_reads_the_rules_for_images_back_and_loads_their_keys(tmp_path: Path) -> None:
    init(tmp_path)
    certify(tmp_path)
    path = tmp_path / "node.yaml"
    rule = (
        "  keys: {author: {file: author.pub, role: author, expires: 2020-01-01}}\n"
        "  images: [{repository: 'r.example/**', keys: [author], roles: {author: 1}, users: [dora/alice],\n"
        "    arguments: {min_count: {minimum: 10}}, attestations: [{type: sbom}], expires: 2100-01-01}]\n"
    )
    text = path.read_text()
    replaced = re.sub(r"  keys: \{\}.*\n(  #.*\n)*  images: \[\]\n", rule, text)
    assert replaced != text
    path.write_text(replaced)
    (tmp_path / "author.pub").write_bytes(cosign.public_pem(pki.create_key().public_key()))
    result = CliRunner().invoke(node, ["check", "--config", str(path)])
    assert result.exit_code == 0, result.output
    assert "r.example/**: all functions, signed by 1 of 1 keys, by 1 author, with sbom\n" in result.output
    assert (
        "    only for organizations/dora/users/alice; arguments within bounds: min_count; until 2100-01-01"
        in result.output
    )
    assert "the key author has expired on 2020-01-01" in result.output
    (tmp_path / "author.pub").write_text("no key")
    result = CliRunner().invoke(node, ["check", "--config", str(path)])
    assert result.exit_code == 1
    assert "is not a public key in PEM" in result.output


def test_check_finds_a_certificate_of_another_node_and_another_key(tmp_path: Path) -> None:
    init(tmp_path)
    certify(tmp_path, "organizations/clara/nodes/clara-2")
    config = ["check", "--config", str(tmp_path / "node.yaml")]
    result = CliRunner().invoke(node, config)
    assert result.exit_code == 1
    assert "clara-2" in result.output
    (tmp_path / "node-key.pem").unlink()
    pki.write_key(tmp_path / "node-key.pem", pki.create_key())
    result = CliRunner().invoke(node, config)
    assert "for another key" in result.output


def test_start_refuses_a_malformed_configuration_with_its_line(tmp_path: Path) -> None:
    init(tmp_path)
    path = tmp_path / "node.yaml"
    path.write_text(path.read_text() + "slot: 3\n")
    result = CliRunner().invoke(node, ["start", "--config", str(path)])
    assert result.exit_code == 2
    line = len(path.read_text().splitlines())
    assert f"node.yaml:{line}: slot: unknown key: did you mean 'slots'" in result.output


def test_the_commands_import_nothing_heavy() -> None:
    code = (
        "import sys, vantage.node.cli; print([m for m in ('grpc', 'docker', 'pydantic', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
