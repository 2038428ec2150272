"""The node's key with a passphrase, from each place that it may come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from vantage.common import pki
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError
from vantage.node import identity
from vantage.node.config import IdentitySection
from vantage.node.identity import CREDENTIAL, PASSPHRASE_VARIABLE, Identity
from vantage.node.tunnels.secure import tls_context

PHRASE = "a passphrase of the node"


def section(directory: Path, passphrase_file: Path | None = None) -> IdentitySection:
    return IdentitySection(
        organization="organizations/clara",
        node="clara-1",
        key=directory / "node-key.pem",
        certificate=directory / "node-cert.pem",
        passphrase_file=passphrase_file,
    )


@pytest.fixture(params=["file", "credential", "environment"])
def given(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IdentitySection:
    if request.param == "environment":
        monkeypatch.setenv(PASSPHRASE_VARIABLE, PHRASE)
        return section(tmp_path)
    path = tmp_path / CREDENTIAL
    path.write_text(PHRASE + "\n")
    if request.param == "file":
        return section(tmp_path, path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    return section(tmp_path)


def test_the_key_is_encrypted_and_read_with_the_passphrase(
    given: IdentitySection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    identity.create(given)
    assert given.key.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in given.key.read_bytes()
    key = pki.read_key(given.key, PHRASE.encode())
    authority = pki.CertificateAuthority.create(tmp_path / "ca", "organizations/clara")
    given.certificate.write_text(pki.to_pem(authority.issue(given.name, key.public_key())))
    assert Identity.load(given, SystemClock()).name == "organizations/clara/nodes/clara-1"
    root = pki.to_pem(authority.certificate)
    tls_context(given.certificate, given.key, root, server_side=True, passphrase=PHRASE.encode())
    for wrong in (None, b"wrong"):
        with pytest.raises(VantageError):
            tls_context(given.certificate, given.key, root, server_side=True, passphrase=wrong)
    monkeypatch.delenv(PASSPHRASE_VARIABLE, raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(VantageError, match="passphrase") as caught:
        Identity.load(section(tmp_path), SystemClock())
    assert caught.value.reason is Reason.KEY_INVALID


def test_a_passphrase_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(VantageError, match="nowhere") as caught:
        identity.create(section(tmp_path, tmp_path / "nowhere"))
    assert caught.value.reason is Reason.KEY_INVALID
