"""The organization's directory and the revocation lists that come from it."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from vantage.common import pki, revocation
from vantage.common.authority import AuthorityDirectory
from vantage.common.clock import ManualClock
from vantage.common.errors import ConflictError, NotFoundError, Reason, VantageError
from vantage.common.revocation import check_current, check_succession, verify_revocation_list

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLARA = "organizations/clara"
NODE = f"{CLARA}/nodes/clara-1"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def clara(tmp_path: Path, clock: ManualClock) -> AuthorityDirectory:
    pki.CertificateAuthority.create(tmp_path / "ca", CLARA, clock=clock)
    return AuthorityDirectory.open(tmp_path / "ca", clock=clock)


def request(name: str = NODE) -> bytes:
    return pki.create_request(pki.create_key(), name).public_bytes(Encoding.PEM)


def issue(clara: AuthorityDirectory, name: str = NODE) -> x509.Certificate:
    return clara.issue(request(name), "/".join(name.split("/")[0::2]))


def refusal(content: bytes, clara: AuthorityDirectory, at: datetime = NOW) -> str:
    with pytest.raises(VantageError) as caught:
        verify_revocation_list(content, clara.authorities, at)
    assert caught.value.reason is Reason.REVOCATION_LIST_INVALID
    return caught.value.message


def test_what_was_issued_is_remembered(clara: AuthorityDirectory, clock: ManualClock) -> None:
    node = issue(clara)
    clock.advance(timedelta(minutes=1))
    user = issue(clara, f"{CLARA}/users/rosa")
    assert [(each.name, each.certificate, each.revoked) for each in clara.issued()] == [
        (NODE, node, None),
        (f"{CLARA}/users/rosa", user, None),
    ]
    clara.revoke(node.serial_number)
    again = AuthorityDirectory.open(clara.directory, clock=clock)
    assert [each.revoked for each in again.issued()] == [clock.now(), None]


def test_a_request_is_answered_for_its_name_and_kind_only(clara: AuthorityDirectory) -> None:
    unnamed = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    bare = unnamed.sign(pki.create_key(), hashes.SHA256()).public_bytes(Encoding.DER)
    assert pki.certified_name(clara.issue(bare, "organizations/nodes", NODE)) == NODE
    for content, kind, name in (
        (bare, "organizations/nodes", ""),
        (request(), "organizations/users", ""),
        (request(), "organizations/nodes", f"{CLARA}/nodes/other"),
        (request("organizations/hilda/nodes/one"), "organizations/nodes", ""),
        (b"", "organizations/nodes", NODE),
        (b"-----BEGIN CERTIFICATE REQUEST-----\n", "organizations/nodes", NODE),
        (b"x" * 70_000, "organizations/nodes", NODE),
    ):
        with pytest.raises(VantageError):
            clara.issue(content, kind, name)
    assert len(clara.issued()) == 1


def test_lists_build_on_each_other(clara: AuthorityDirectory, clock: ManualClock) -> None:
    first = verify_revocation_list(clara.revoke(11), clara.authorities, NOW)
    clock.advance(timedelta(days=1))
    second = verify_revocation_list(clara.revoke(12), clara.authorities, clock.now())
    assert (first.number, second.number) == (1, 2)
    assert dict(second.serials) == {11: NOW, 12: clock.now()}
    clara.revoke(11)  # once more: the first moment counts
    renewed = clara.revocations()
    assert renewed is not None
    assert (renewed.number, renewed.serials[11]) == (3, NOW)
    assert stat.S_IMODE((clara.directory / "ca-key.pem").stat().st_mode) == 0o600


def test_what_a_person_may_name(clara: AuthorityDirectory, tmp_path: Path, clock: ManualClock) -> None:
    certificate = issue(clara)
    text = pki.serial_text(certificate)
    colons = ":".join(text[i : i + 2] for i in range(0, len(text), 2)).upper() if len(text) % 2 == 0 else f"0X{text}"
    assert clara.find(text) == clara.find(colons) == [certificate.serial_number]
    assert clara.find(NODE) == [certificate]
    file = tmp_path / "cert.pem"
    file.write_text(pki.to_pem(certificate))
    assert clara.find(str(file)) == [certificate]
    clara.revoke(certificate.serial_number)
    with pytest.raises(NotFoundError):
        clara.find(NODE)
    for nonsense in ("", "zz", "0", "-5", "f" * 60, f"{CLARA}"):
        with pytest.raises(VantageError):
            clara.find(nonsense)
    pki.CertificateAuthority.create(tmp_path / "other", CLARA, clock=clock)
    foreign = AuthorityDirectory.open(tmp_path / "other", clock=clock)
    file.write_text(pki.to_pem(issue(foreign)))
    with pytest.raises(VantageError, match="was not issued by"):
        clara.find(str(file))


def test_a_roll_over_keeps_what_was(clara: AuthorityDirectory, clock: ManualClock) -> None:
    old = clara.authority.certificate
    clara.revoke(11)
    new = clara.renew(new_key=True, passphrase=b"secret")
    assert clara.authorities == [new, old]
    reopened = AuthorityDirectory.open(clara.directory, passphrase=b"secret", clock=clock)
    found = verify_revocation_list(reopened.revoke(12), [new], NOW)
    assert (found.number, sorted(found.serials), found.signer) == (2, [11, 12], pki.key_id(new))
    same = reopened.renew(new_key=False, passphrase=b"secret")
    assert pki.key_id(same) == pki.key_id(new)
    assert len(reopened.authorities) == 3


@pytest.mark.parametrize("moved", [0, 1])
def test_a_renewal_that_died_is_finished_when_the_directory_is_opened(
    clara: AuthorityDirectory, clock: ManualClock, moved: int
) -> None:
    """The process died before it moved the key, or between key and certificate."""
    key = pki.create_key()
    certificate = pki.self_signed(key, CLARA, NOW)
    place = clara.directory / ("ca-key.pem" if moved else "ca-key.pem.new")
    place.unlink(missing_ok=True)
    pki.write_key(place, key)
    (clara.directory / "ca-cert.pem.new").write_text(pki.to_pem(certificate))
    assert AuthorityDirectory.open(clara.directory, clock=clock).authority.certificate == certificate
    assert not list(clara.directory.glob("*.new"))


def test_a_list_of_somebody_else_is_not_accepted(clara: AuthorityDirectory, tmp_path: Path, clock: ManualClock) -> None:
    pki.CertificateAuthority.create(tmp_path / "impostor", CLARA, clock=clock)
    impostor = AuthorityDirectory.open(tmp_path / "impostor", clock=clock)
    refusal(impostor.revoke(), clara)
    der = bytearray(clara.revoke(11))
    der[-1] ^= 1
    refusal(bytes(der), clara)
    without = x509.CertificateRevocationListBuilder().issuer_name(clara.authority.certificate.subject)
    plain = without.last_update(NOW).next_update(NOW + timedelta(days=1)).sign(clara.authority.key, hashes.SHA256())
    assert "no number" in refusal(plain.public_bytes(Encoding.DER), clara)


def test_a_list_is_bounded_and_not_from_the_future(clara: AuthorityDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    der = clara.revoke(1, 2, 3)
    refusal(der, clara, NOW - timedelta(minutes=6))
    verify_revocation_list(der, clara.authorities, NOW - timedelta(minutes=4))
    monkeypatch.setattr(revocation, "MAX_ENTRIES", 2)
    assert "more than 2 entries" in refusal(der, clara)
    monkeypatch.setattr(revocation, "MAX_BYTES", 20)
    assert "more than 20 bytes" in refusal(der, clara)


def test_a_list_whose_successor_is_due_still_revokes_and_is_not_new(clara: AuthorityDirectory) -> None:
    der = clara.revoke(11, days=1)
    found = verify_revocation_list(der, clara.authorities, NOW + timedelta(days=2))
    assert 11 in found.serials
    check_current(found, NOW)
    with pytest.raises(VantageError, match="was due"):
        check_current(found, NOW + timedelta(days=2))


def test_an_older_list_never_replaces_a_newer_one(clara: AuthorityDirectory) -> None:
    one, two = (verify_revocation_list(clara.revoke(), clara.authorities, NOW) for _ in range(2))
    assert check_succession(two, one.number, one.signer, one.der, clara.authorities)
    assert not check_succession(two, two.number, two.signer, two.der, clara.authorities)
    with pytest.raises(ConflictError) as caught:
        check_succession(one, two.number, two.signer, two.der, clara.authorities)
    assert caught.value.reason is Reason.REVOCATION_LIST_OUTDATED
    assert check_succession(one, two.number, "an authority that was given up", two.der, clara.authorities)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 10_000), st.integers(0, 255))
def test_strangers_bytes_raise_nothing_but_errors_of_ours(content: bytes, at: int, value: int) -> None:
    for good in (_CRL, _REQUEST):
        place = at % len(good)
        spoiled = good[:place] + bytes([value]) + good[place + 1 :]
        for each in (content, good[: at % len(good)], spoiled):
            try:
                verify_revocation_list(each, [_AUTHORITY.certificate], NOW)
            except VantageError as problem:
                assert problem.reason is Reason.REVOCATION_LIST_INVALID  # noqa: PT017
            try:
                pki.load_request(each)
            except VantageError as problem:
                assert problem.reason is Reason.CERTIFICATE_INVALID  # noqa: PT017
    for good in (_REQUEST, _LEAF):
        place = at % len(good)
        spoiled = good[:place] + bytes([good[place] ^ (value or 1)]) + good[place + 1 :]
        try:
            pki.verify_chain([spoiled], _ROOTS, NOW)
        except VantageError as problem:
            assert problem.reason is Reason.CERTIFICATE_UNTRUSTED  # noqa: PT017
        else:
            # The encoding of the signature itself has a byte that says nothing: what was signed is the same.
            assert good is _LEAF
            assert x509.load_der_x509_certificate(spoiled).tbs_certificate_bytes == _LEAF_SIGNED


_KEY = pki.create_key()
_AUTHORITY = pki.CertificateAuthority(_KEY, pki.self_signed(_KEY, CLARA, NOW), ManualClock(NOW))
_CRL = revocation.sign_revocation_list(_KEY, _AUTHORITY.certificate, {1: NOW, 2: NOW}, 3, NOW)
_REQUEST = pki.create_request(_KEY, NODE).public_bytes(Encoding.DER)
_ROOTS = [_AUTHORITY.certificate]
_LEAF = _AUTHORITY.issue(NODE, _KEY.public_key()).public_bytes(Encoding.DER)
_LEAF_SIGNED = x509.load_der_x509_certificate(_LEAF).tbs_certificate_bytes
