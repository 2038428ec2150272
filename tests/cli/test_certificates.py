"""The organization's authority: no server is involved."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.cli.conftest import Run
from vantage.common import pki
from vantage.common.clock import SystemClock
from vantage.testing.commands import call

PHRASE = "a long phrase"


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    path = tmp_path / "node-cert.csr"
    request = pki.create_request(pki.create_key(), "organizations/clara/nodes/clara-1")
    path.write_bytes(request.public_bytes(serialization.Encoding.PEM))
    return path


def test_an_authority_is_made_once_and_says_its_fingerprint(tmp_path: Path, run: Run) -> None:
    done = run("org", "init", "clara", "--ca", tmp_path / "ca")
    assert done.exit_code == 0
    certificate = x509.load_pem_x509_certificate((tmp_path / "ca" / "ca-cert.pem").read_bytes())
    assert f"fingerprint: {pki.fingerprint(certificate)}" in done.stdout
    assert "not encrypted" in done.stderr
    assert stat.S_IMODE((tmp_path / "ca" / "ca-key.pem").stat().st_mode) == 0o600
    before = (tmp_path / "ca" / "ca-key.pem").read_bytes()
    again = run("organization", "init", "clara", "--ca", tmp_path / "ca", "--output", "json")
    assert again.exit_code == 1
    assert json.loads(again.stderr)["error"]["reason"] == "ALREADY_EXISTS"
    assert (tmp_path / "ca" / "ca-key.pem").read_bytes() == before


def test_a_node_is_certified_by_the_whole_way_of_the_two_admins(tmp_path: Path) -> None:
    ca, station = tmp_path / "ca", tmp_path / "station"
    call("org", "init", "clara", "--ca", ca, "--passphrase-stdin", stdin=f"{PHRASE}\n")
    call("node", "init", station, "--server", "127.0.0.1:7600", "--organization", "clara", "--node", "clara-1")
    out, err = call(
        "node", "issue", station / "node-cert.csr", "--ca", ca, "--yes", "--passphrase-stdin", stdin=f"{PHRASE}\n"
    )
    assert "certified organizations/clara/nodes/clara-1 until" in err
    (station / "node-cert.pem").write_text(out)
    assert (
        "organizations/clara/nodes/clara-1 at 127.0.0.1:7600"
        in call("node", "check", "--config", station / "node.yaml")[0]
    )
    chain = [x509.load_pem_x509_certificate(out.encode()).public_bytes(serialization.Encoding.DER)]
    root = x509.load_pem_x509_certificate((ca / "ca-cert.pem").read_bytes())
    assert pki.verify_chain(chain, [root], SystemClock().now()).name == "organizations/clara/nodes/clara-1"


def test_a_wrong_passphrase_is_said(tmp_path: Path, run: Run, request_file: Path) -> None:
    run("org", "init", "clara", "--ca", tmp_path / "ca", "--passphrase-stdin", stdin=f"{PHRASE}\n")
    issue = ("node", "issue", request_file, "--ca", tmp_path / "ca", "--yes")
    wrong = run(*issue, "--passphrase-stdin", stdin="other\n")
    assert wrong.exit_code == 2
    assert "passphrase is wrong" in wrong.stderr
    missing = run(*issue)
    assert missing.exit_code == 2
    assert "--passphrase-stdin" in missing.stderr


def test_the_passphrase_may_come_from_the_environment(
    tmp_path: Path, run: Run, request_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("org", "init", "clara", "--ca", tmp_path / "ca", "--passphrase-stdin", stdin=f"{PHRASE}\n")
    monkeypatch.setenv("VANTAGE_CA_PASSPHRASE", PHRASE)
    monkeypatch.setenv("VANTAGE_CA", str(tmp_path / "ca"))
    done = run("node", "issue", request_file, "--yes", "--days", "30", "--out", tmp_path / "cert.pem", "-o", "json")
    assert done.exit_code == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["name"] == "organizations/clara/nodes/clara-1"
    assert document["certificate"] == (tmp_path / "cert.pem").read_text()


def test_what_is_not_to_be_certified_is_not(tmp_path: Path, run: Run, request_file: Path) -> None:
    run("org", "init", "hilda", "--ca", tmp_path / "ca")
    foreign = run("node", "issue", request_file, "--ca", tmp_path / "ca", "--yes")
    assert (foreign.exit_code, foreign.stdout) == (2, "")
    assert "cannot certify organizations/clara/nodes/clara-1" in foreign.stderr
    other = run("node", "issue", request_file, "--ca", tmp_path / "ca", "--yes", "--expect", "clara-2")
    assert (other.exit_code, other.stdout) == (2, "")
    assert "not for clara-2" in other.stderr
    nothing = tmp_path / "nothing.csr"
    nothing.write_text("nothing")
    assert (
        "is not a signing request: not a certificate signing request"
        in run("node", "issue", nothing, "--ca", tmp_path / "ca", "--yes").stderr
    )
    assert "there is no authority" in run("node", "issue", request_file, "--ca", tmp_path / "no", "--yes").stderr


def test_without_a_terminal_nothing_is_certified_unasked(tmp_path: Path, run: Run, request_file: Path) -> None:
    run("org", "init", "clara", "--ca", tmp_path / "ca")
    done = run("node", "issue", request_file, "--ca", tmp_path / "ca")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "--yes" in done.stderr
