"""The organization's authority by the command line: offline, and told to a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from tests.cli.conftest import Run
from vantage.common import pki
from vantage.common.clock import SystemClock
from vantage.common.revocation import verify_revocation_list
from vantage.testing import commands
from vantage.testing.commands import call, call_json

PHRASE = "a long phrase"
PASSWORD = "seven wet horses sing"


def request(path: Path, name: str) -> Path:
    path.write_bytes(pki.create_request(pki.create_key(), name).public_bytes(Encoding.PEM))
    return path


def root_of(ca: Path) -> x509.Certificate:
    return pki.load_certificates((ca / "ca-cert.pem").read_bytes())[0]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server where root has logged in."""
    data = tmp_path / "server"
    said = dict(line.split(": ", 1) for line in call("server", "init", "--data", data)[0].splitlines())
    with commands.running("server", "start", "--data", data, "--listen", "127.0.0.1:0", ready="ready: ") as ready:
        options = ("--server", ready.split()[1], "--fingerprint", said["fingerprint"])
        call("bootstrap", *options, "--token", said["bootstrap-token"], "--password-stdin", stdin=f"{PASSWORD}\n")
        yield ready.split()[1]


def test_certificates_are_issued_listed_and_revoked_offline(tmp_path: Path, run: Run) -> None:
    ca, phrase = tmp_path / "ca", tmp_path / "phrase"
    phrase.write_bytes(b"f\xfcnf Ha\xdfe\n")  # of a keyboard that is not set to UTF-8
    own = ("--ca", ca, "--passphrase-file", phrase)
    assert run("org", "init", "clara", *own).exit_code == 0
    assert b"ENCRYPTED" in (ca / "ca-key.pem").read_bytes()
    assert run("org", "issued", *own).stderr == "nothing was issued yet\n"
    node = request(tmp_path / "node.csr", "organizations/clara/nodes/clara-1")
    user = request(tmp_path / "user.csr", "organizations/clara/users/rosa")
    assert run("node", "issue", node, *own, "--yes", "--out", tmp_path / "node.pem").exit_code == 0
    issued = run("user", "issue", user, *own, "--yes", "--expect", "rosa", "-o", "json")
    document = json.loads(issued.stdout)
    assert document["name"] == "organizations/clara/users/rosa"
    leaf, authority = pki.load_certificates(document["certificate"])
    assert authority == root_of(ca)
    listed = json.loads(run("org", "issued", *own, "-o", "json").stdout)
    assert sorted((each["name"], each["revoked"]) for each in listed) == [
        ("organizations/clara/nodes/clara-1", None),
        ("organizations/clara/users/rosa", None),
    ]
    unasked = run("org", "revoke", "organizations/clara/users/rosa", *own)
    assert (unasked.exit_code, (ca / "crl.pem").exists()) == (2, False)
    done = run("org", "revoke", "organizations/clara/users/rosa", *own, "--yes", "--out", tmp_path / "crl.pem")
    assert "list 1 with 1 certificates" in done.stdout
    assert f"vantage organization set-crl clara {tmp_path / 'crl.pem'}" in done.stderr
    done = run("org", "revoke", tmp_path / "node.pem", *own, "--yes", "-o", "json")
    assert json.loads(done.stdout)["revoked_certificates"] == 2
    assert json.loads(run("org", "crl", *own, "--days", "3", "-o", "json").stdout)["number"] == 3
    found = verify_revocation_list((ca / "crl.pem").read_bytes(), [root_of(ca)], SystemClock().now())
    assert found.revokes(leaf)
    again = run("org", "revoke", "organizations/clara/users/rosa", *own, "--yes")
    assert (again.exit_code, "nothing to revoke" in again.stderr) == (1, True)
    assert "is not the file of a certificate" in run("org", "revoke", "nonsense", *own, "--yes").stderr


def test_the_authority_is_renewed(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = tmp_path / "ca"
    monkeypatch.setenv("VANTAGE_CA", str(ca))
    monkeypatch.setenv("VANTAGE_CA_PASSPHRASE", PHRASE)
    run("org", "init", "clara", "--passphrase-stdin", stdin=f"{PHRASE}\n")
    first = root_of(ca)
    done = run("org", "renew")
    assert pki.fingerprint(root_of(ca)) in done.stdout
    assert f"remove-ca clara {pki.fingerprint(first)}" in done.stderr
    second = root_of(ca)
    assert pki.key_id(first) == pki.key_id(second)
    run("org", "renew", "--new-key")
    assert pki.key_id(root_of(ca)) != pki.key_id(first)
    node = request(tmp_path / "node.csr", "organizations/clara/nodes/clara-1")
    assert run("node", "issue", node, "--yes").exit_code == 0  # the passphrase is the same


def test_a_request_of_another_tool_gets_its_name_from_the_admin(tmp_path: Path, run: Run) -> None:
    run("org", "init", "clara", "--ca", tmp_path / "ca")
    key = pki.create_key()
    bare = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    (tmp_path / "bare.csr").write_bytes(bare.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))
    issue = ("issue", tmp_path / "bare.csr", "--ca", tmp_path / "ca", "--yes")
    assert "give it with --expect" in run("node", *issue).stderr
    names = [
        json.loads(run(noun, *issue, "--expect", short, "-o", "json").stdout)["name"]
        for noun, short in (("node", "clara-1"), ("user", "rosa"))
    ]
    assert names == ["organizations/clara/nodes/clara-1", "organizations/clara/users/rosa"]
    assert run("user", "issue", request(tmp_path / "n", names[0]), "--ca", tmp_path / "ca", "--yes").exit_code == 2


def test_a_server_is_told_and_whom_one_trusts_is_ones_own_matter(server: str, tmp_path: Path) -> None:
    ca = tmp_path / "clara"
    call("org", "init", "clara", "--ca", ca)
    old = pki.fingerprint(root_of(ca))
    (der := tmp_path / "ca.der").write_bytes(root_of(ca).public_bytes(Encoding.DER))
    assert "not a certificate in PEM" in call("organization", "create", "clara", "--ca-certificate", der, code=2)[1]
    call("organization", "create", "clara", "--ca-certificate", ca / "ca-cert.pem")
    call("org", "revoke", "4711", "--ca", ca, "--yes")
    said = call("organization", "set-crl", "clara", ca / "crl.pem")[0]
    assert "list 1 of clara is in force: 1 certificates are revoked, 0 sessions" in said
    call("org", "renew", "--new-key", "--ca", ca)
    new = pki.fingerprint(root_of(ca))
    assert len(call_json("organization", "add-ca", "clara", ca / "ca-cert.pem")["ca_certificates"]) == 2
    standing = {each["fingerprint"]: each["standing"] for each in call_json("trust", "list")}
    assert standing == {old: "offered, not trusted", new: "offered, not trusted"}
    call("trust", "add", "clara", "--fingerprint", old)
    call("trust", "add", "clara", "--certificate", ca / "ca-cert.pem")
    left = call_json("organization", "remove-ca", "clara", old, "--yes")
    assert [pki.fingerprint(pki.load_certificates(each)[0]) for each in left["ca_certificates"]] == [new]
    listed = {each["fingerprint"]: (each["standing"], each["how"]) for each in call_json("trust", "list")}
    assert listed == {
        old: ("given up by the organization", "fingerprint confirmed"),
        new: ("trusted", "from a file"),
    }
    assert old in call("trust", "remove", "clara", "--fingerprint", old)[0]
    assert [each["fingerprint"] for each in call_json("trust", "list", "--offline")] == [new]
    wrong = call("trust", "add", "clara", "--fingerprint", "sha256:" + "0" * 64, code=1)[1]
    assert "compare it with the organization by another way" in wrong


def test_what_an_older_list_would_bring_back_stays_revoked(server: str, tmp_path: Path) -> None:
    ca = tmp_path / "clara"
    call("org", "init", "clara", "--ca", ca)
    call("organization", "create", "clara", "--ca-certificate", ca / "ca-cert.pem")
    call("org", "crl", "--ca", ca, "--out", tmp_path / "older.pem")
    call("org", "revoke", "4711", "--ca", ca, "--yes")
    call("organization", "set-crl", "clara", ca / "crl.pem")
    assert "sign a new one on top of it" in call("organization", "set-crl", "clara", tmp_path / "older.pem", code=1)[1]


def test_a_users_keys_are_certified_and_their_organization_is_trusted(
    tmp_path: Path, run: Run, configuration: Path
) -> None:
    ca = tmp_path / "ca"
    run("org", "init", "clara", "--ca", ca)
    run("profile", "add", "here", "--server", "127.0.0.1:7600", "--fingerprint", "sha256:" + "0" * 64)
    made = json.loads(run("key", "create", "--name", "clara/rosa", "-o", "json").stdout)
    out = tmp_path / "rosa-cert.pem"
    assert run("user", "issue", made["request"], "--ca", ca, "--expect", "rosa", "--yes", "--out", out).exit_code == 0
    imported = run("key", "import", out, "--offline")
    assert imported.exit_code == 0, imported.stderr
    (entry,) = json.loads(run("trust", "list", "--offline", "-o", "json").stdout)
    assert (entry["fingerprint"], entry["how"]) == (pki.fingerprint(root_of(ca)), "issued the own certificate")
