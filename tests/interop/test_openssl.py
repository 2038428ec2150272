"""OpenSSL verifies what an organization signs, and an organization answers what OpenSSL asks."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from vantage.common import pki
from vantage.common.authority import AuthorityDirectory
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError
from vantage.common.revocation import verify_revocation_list

CLARA = "organizations/clara"
NODE = f"{CLARA}/nodes/clara-1"


@pytest.fixture
def clara(tmp_path: Path) -> AuthorityDirectory:
    pki.CertificateAuthority.create(tmp_path / "ca", CLARA)
    return AuthorityDirectory.open(tmp_path / "ca")


def openssl(*arguments: object, code: int = 0) -> str:
    done = subprocess.run(
        ["openssl", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def ask(directory: Path, *subject: str, key: str = "ec", option: str = "ec_paramgen_curve:P-256") -> bytes:
    """A request as somebody without vantage makes it."""
    request = directory / "request.pem"
    made = ("-newkey", key, "-pkeyopt", option, "-nodes", "-keyout", directory / "key.pem", "-out", request)
    openssl("req", "-new", *made, *subject)
    return request.read_bytes()


def test_openssl_verifies_certificates_and_revocation_lists(clara: AuthorityDirectory, tmp_path: Path) -> None:
    request = pki.create_request(pki.create_key(), NODE).public_bytes(Encoding.PEM)
    good, bad = (clara.issue(request, "organizations/nodes") for _ in range(2))
    clara.revoke(bad.serial_number)
    root, crl = clara.directory / pki.CA_CERTIFICATE_FILE, clara.directory / "crl.pem"
    for name, certificate in (("good", good), ("bad", bad)):
        (tmp_path / name).write_text(pki.to_pem(certificate))
    check = ("verify", "-x509_strict", "-CAfile", root, "-purpose", "sslclient")
    assert "good: OK" in openssl(*check, "-crl_check", "-CRLfile", crl, tmp_path / "good")
    assert "bad: OK" in openssl(*check, tmp_path / "bad")
    assert "certificate revoked" in openssl(*check, "-crl_check", "-CRLfile", crl, tmp_path / "bad", code=2)
    shown = openssl("crl", "-in", crl, "-noout", "-text", "-CAfile", root)
    assert "verify OK" in shown
    assert f"{bad.serial_number:X}" in shown
    assert f"URI:vantage:{NODE}" in openssl("x509", "-in", tmp_path / "good", "-noout", "-ext", "subjectAltName")


def test_openssl_verifies_after_a_roll_over(clara: AuthorityDirectory, tmp_path: Path) -> None:
    request = pki.create_request(pki.create_key(), NODE).public_bytes(Encoding.PEM)
    old = clara.issue(request, "organizations/nodes")
    clara.renew(new_key=True)
    new = clara.issue(request, "organizations/nodes")
    both = tmp_path / "both.pem"
    both.write_text("".join(map(pki.to_pem, clara.authorities)))
    for name, certificate in (("old", old), ("new", new)):
        (tmp_path / name).write_text(pki.to_pem(certificate))
        assert f"{name}: OK" in openssl("verify", "-x509_strict", "-CAfile", both, tmp_path / name)


def test_a_request_made_with_openssl_is_answered(clara: AuthorityDirectory, tmp_path: Path) -> None:
    unnamed = ask(tmp_path, "-subj", "/CN=clara-1")
    assert pki.load_request(unnamed).name == ""
    certificate = clara.issue(unnamed, "organizations/nodes", NODE)
    key = pki.read_key(tmp_path / "key.pem")
    assert certificate.public_key() == key.public_key()
    der = certificate.public_bytes(Encoding.DER)
    assert pki.verify_chain([der], [clara.authority.certificate], SystemClock().now()).name == NODE
    named = ask(tmp_path, "-subj", "/", "-addext", f"subjectAltName=URI:vantage:{NODE}")
    assert pki.load_request(named).name == NODE
    openssl("req", "-in", tmp_path / "request.pem", "-outform", "DER", "-out", tmp_path / "request.der")
    assert pki.load_request((tmp_path / "request.der").read_bytes()).name == NODE


@pytest.mark.parametrize(("key", "option"), [("rsa", "rsa_keygen_bits:2048"), ("ec", "ec_paramgen_curve:P-384")])
def test_requests_for_other_keys_are_refused_with_what_to_do(tmp_path: Path, key: str, option: str) -> None:
    with pytest.raises(VantageError, match="prime256v1") as caught:
        pki.load_request(ask(tmp_path, "-subj", "/CN=x", key=key, option=option))
    assert caught.value.reason is Reason.CERTIFICATE_INVALID


def test_a_revocation_list_made_with_openssl_is_accepted(clara: AuthorityDirectory, tmp_path: Path) -> None:
    """An organization may keep its authority with other tools."""
    (tmp_path / "index.txt").write_text("R\t300101000000Z\t260101000000Z\t0A1B\tunknown\t/CN=x\n")
    (tmp_path / "number").write_text("07\n")
    (tmp_path / "openssl.cnf").write_text(
        "[ca]\ndefault_ca=own\n[own]\n"
        f"database={tmp_path / 'index.txt'}\ncrlnumber={tmp_path / 'number'}\ndefault_md=sha256\ndefault_crl_days=30\n"
    )
    own = ("-keyfile", clara.directory / pki.CA_KEY_FILE, "-cert", clara.directory / pki.CA_CERTIFICATE_FILE)
    openssl("ca", "-gencrl", "-config", tmp_path / "openssl.cnf", *own, "-out", tmp_path / "crl.pem")
    content = (tmp_path / "crl.pem").read_bytes()
    found = verify_revocation_list(content, clara.authorities, SystemClock().now())
    assert (found.number, list(found.serials)) == (7, [0x0A1B])
