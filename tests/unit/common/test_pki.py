from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from vantage.common import pki
from vantage.common.clock import ManualClock
from vantage.common.errors import ConflictError, InvalidArgumentError, PermissionDeniedError, Reason

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NODE = "organizations/clara/nodes/clara-1"


@pytest.fixture
def authority(tmp_path: Path) -> pki.CertificateAuthority:
    return pki.CertificateAuthority.create(tmp_path / "ca", "organizations/clara", clock=ManualClock(NOW))


def der(certificate: object) -> bytes:
    return certificate.public_bytes(Encoding.DER)  # type: ignore[attr-defined,no-any-return]


def test_a_chain_certifies_the_name_it_was_issued_for(authority: pki.CertificateAuthority) -> None:
    leaf = authority.issue(NODE, pki.create_key().public_key())
    certified = pki.verify_chain([der(leaf)], [authority.certificate], NOW)
    assert (certified.name, certified.organization) == (NODE, "organizations/clara")


def test_keys_are_private_and_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = pki.create_key()
    pki.write_key(path, key, b"a passphrase")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(ConflictError):
        pki.write_key(path, pki.create_key())
    assert pki.read_key(path, b"a passphrase").private_numbers() == key.private_numbers()


@pytest.mark.parametrize("passphrase", [None, b"wrong"])
def test_a_key_needs_its_passphrase(tmp_path: Path, passphrase: bytes | None) -> None:
    path = tmp_path / "key.pem"
    pki.write_key(path, pki.create_key(), b"right")
    with pytest.raises(InvalidArgumentError) as caught:
        pki.read_key(path, passphrase)
    assert caught.value.reason is Reason.KEY_INVALID
    assert "passphrase" in caught.value.message


def test_the_authority_survives_on_disk(tmp_path: Path, authority: pki.CertificateAuthority) -> None:
    loaded = pki.CertificateAuthority.load(tmp_path / "ca", clock=ManualClock(NOW))
    leaf = loaded.issue(NODE, pki.create_key().public_key())
    assert pki.verify_chain([der(leaf)], [authority.certificate], NOW).name == NODE


def test_an_authority_refuses_names_of_others(authority: pki.CertificateAuthority) -> None:
    with pytest.raises(InvalidArgumentError):
        authority.issue("organizations/hilda/nodes/one", pki.create_key().public_key())
    with pytest.raises(InvalidArgumentError):
        authority.issue("organizations/clara2/nodes/one", pki.create_key().public_key())


def test_users_are_certified_by_their_organization(authority: pki.CertificateAuthority) -> None:
    name = "organizations/clara/users/rosa"
    leaf = authority.issue(name, pki.create_key().public_key())
    assert pki.verify_chain([der(leaf)], [authority.certificate], NOW).name == name
    for wrong in (
        "organizations/clara",
        "organizations/clara/",
        "organizations/clara/nodes",
        "organizations/clara/x/y",
    ):
        with pytest.raises(InvalidArgumentError):
            authority.issue(wrong, pki.create_key().public_key())


def test_another_organizations_authority_is_not_trusted(tmp_path: Path, authority: pki.CertificateAuthority) -> None:
    other = pki.CertificateAuthority.create(tmp_path / "other", "organizations/hilda", clock=ManualClock(NOW))
    leaf = other.issue("organizations/hilda/nodes/one", pki.create_key().public_key())
    with pytest.raises(PermissionDeniedError) as caught:
        pki.verify_chain([der(leaf)], [authority.certificate], NOW)
    assert caught.value.reason is Reason.CERTIFICATE_UNTRUSTED


def test_an_authority_that_forges_a_foreign_name_is_caught(tmp_path: Path) -> None:
    class Forger(pki.CertificateAuthority):
        pass

    forger = Forger.create(tmp_path / "ca", "organizations/hilda", clock=ManualClock(NOW))
    forger.organization = "organizations/clara"
    leaf = forger.issue(NODE, pki.create_key().public_key())
    with pytest.raises(PermissionDeniedError, match="cannot certify"):
        pki.verify_chain([der(leaf)], [forger.certificate], NOW)


@pytest.mark.parametrize("at", [NOW - timedelta(days=1), NOW + timedelta(days=400)])
def test_validity_is_checked(authority: pki.CertificateAuthority, at: datetime) -> None:
    leaf = authority.issue(NODE, pki.create_key().public_key())
    with pytest.raises(PermissionDeniedError, match="expired"):
        pki.verify_chain([der(leaf)], [authority.certificate], at)


@pytest.mark.parametrize("chain", [[], [b"junk"], [b"x"] * 5])
def test_malformed_chains(authority: pki.CertificateAuthority, chain: list[bytes]) -> None:
    with pytest.raises(PermissionDeniedError):
        pki.verify_chain(chain, [authority.certificate], NOW)


def test_a_leaf_cannot_issue(tmp_path: Path, authority: pki.CertificateAuthority) -> None:
    key = pki.create_key()
    leaf = authority.issue("organizations/clara/nodes/evil", key.public_key())
    below = pki.CertificateAuthority(key, leaf, ManualClock(NOW))
    below.organization = "organizations/clara"
    forged = below.issue(NODE, pki.create_key().public_key())
    with pytest.raises(PermissionDeniedError):
        pki.verify_chain([der(forged), der(leaf)], [authority.certificate], NOW)


def test_a_signing_request_carries_its_name(authority: pki.CertificateAuthority) -> None:
    key = pki.create_key()
    for encoding in (Encoding.PEM, Encoding.DER):
        request = pki.load_request(pki.create_request(key, NODE).public_bytes(encoding))
        assert (request.name, request.public_key) == (NODE, key.public_key())


def test_only_an_authority_certificate_serves_as_one(tmp_path: Path, authority: pki.CertificateAuthority) -> None:
    pki.check_authority(authority.certificate, "organizations/clara")
    with pytest.raises(InvalidArgumentError, match="belongs to"):
        pki.check_authority(authority.certificate, "organizations/hilda")
    with pytest.raises(InvalidArgumentError, match="self-signed"):
        pki.check_authority(authority.issue(NODE, pki.create_key().public_key()), "organizations/clara")
