from __future__ import annotations

import contextlib
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vantage.common import pki
from vantage.common.authority import AuthorityDirectory
from vantage.common.clock import ManualClock
from vantage.common.errors import InvalidArgumentError, NotFoundError, PermissionDeniedError, Reason, VantageError
from vantage.common.trust import TrustStore
from vantage.common.trust_record import Change, How, What

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLARA = "organizations/clara"
NODE = f"{CLARA}/nodes/clara-1"


@dataclass(frozen=True)
class Said:
    """What a server says of one organization."""

    organization: str
    ca_certificates: Sequence[str] = ()
    revocation_list: bytes = b""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def clara(tmp_path: Path, clock: ManualClock) -> AuthorityDirectory:
    return authority(tmp_path / "clara", CLARA, clock)


@pytest.fixture
def store(tmp_path: Path, clock: ManualClock) -> TrustStore:
    return TrustStore(tmp_path / "trust", clock=clock)


def authority(directory: Path, organization: str, clock: ManualClock) -> AuthorityDirectory:
    pki.CertificateAuthority.create(directory, organization, clock=clock)
    return AuthorityDirectory.open(directory, clock=clock)


def said(directory: AuthorityDirectory, revocations: bytes = b"") -> Said:
    return Said(directory.authority.organization, [pki.to_pem(each) for each in directory.authorities], revocations)


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def leaf(directory: AuthorityDirectory, name: str = NODE) -> x509.Certificate:
    return directory.authority.issue(name, pki.create_key().public_key())


def refusal(store: TrustStore, certificate: x509.Certificate, at: datetime = NOW) -> VantageError:
    with pytest.raises(PermissionDeniedError) as caught:
        store.certify([der(certificate)], at)
    return caught.value


def test_an_offer_alone_is_not_trusted(store: TrustStore, clara: AuthorityDirectory) -> None:
    changes = store.offer([said(clara)])
    mark = pki.fingerprint(clara.authority.certificate)
    assert changes == [Change(What.OFFERED, CLARA, mark)]
    problem = refusal(store, leaf(clara))
    assert problem.reason is Reason.CERTIFICATE_UNTRUSTED
    assert mark in problem.message
    assert "vantage trust add clara --fingerprint" in problem.message
    assert store.offer([said(clara)]) == []


def test_a_confirmed_fingerprint_is_trusted_and_recorded(
    store: TrustStore, clara: AuthorityDirectory, tmp_path: Path, clock: ManualClock
) -> None:
    store.offer([said(clara)])
    store.confirm(CLARA, pki.fingerprint(clara.authority.certificate).upper().replace("SHA256:", ""))
    again = TrustStore(tmp_path / "trust", clock=clock)
    assert again.certify([der(leaf(clara))], NOW).name == NODE
    (pin,) = again.record(CLARA).pins
    assert (pin.how, pin.since) == (How.FINGERPRINT, NOW)
    assert again.record(CLARA).offered == ()
    assert stat.S_IMODE((tmp_path / "trust" / "trust.json").stat().st_mode) == 0o600


def test_a_fingerprint_that_was_not_offered_is_not_trusted(store: TrustStore, clara: AuthorityDirectory) -> None:
    with pytest.raises(NotFoundError, match="nothing was"):
        store.confirm(CLARA, pki.fingerprint(clara.authority.certificate))


def test_an_authority_is_pinned_for_its_own_organization_only(
    store: TrustStore, clara: AuthorityDirectory, tmp_path: Path, clock: ManualClock
) -> None:
    hilda = authority(tmp_path / "hilda", "organizations/hilda", clock)
    with pytest.raises(InvalidArgumentError):
        store.pin(CLARA, hilda.authority.certificate)
    store.pin("organizations/hilda", hilda.authority.certificate)
    assert refusal(store, leaf(clara)).reason is Reason.CERTIFICATE_UNTRUSTED
    assert store.offer([Said(CLARA, [pki.to_pem(hilda.authority.certificate)])])[0].what is What.REFUSED


def test_first_use_trusts_the_first_authority_and_no_other(
    tmp_path: Path, clara: AuthorityDirectory, clock: ManualClock
) -> None:
    store = TrustStore(tmp_path / "trust", clock=clock, first_use=True)
    assert store.offer([said(clara)])[0].what is What.PINNED
    assert store.certify([der(leaf(clara))], NOW).organization == CLARA
    impostor = authority(tmp_path / "impostor", CLARA, clock)
    changes = store.offer([Said(CLARA, [*said(clara).ca_certificates, *said(impostor).ca_certificates])])
    assert [each.what for each in changes] == [What.OFFERED]
    assert refusal(store, leaf(impostor)).reason is Reason.CERTIFICATE_UNTRUSTED


def test_what_the_owner_removed_does_not_come_back_by_first_use(
    tmp_path: Path, clara: AuthorityDirectory, clock: ManualClock
) -> None:
    store = TrustStore(tmp_path / "trust", clock=clock, first_use=True)
    store.offer([said(clara)])
    store.remove(CLARA)
    store.offer([said(clara)])
    assert refusal(store, leaf(clara)).reason is Reason.CERTIFICATE_UNTRUSTED
    store.confirm(CLARA, pki.fingerprint(clara.authority.certificate))
    assert store.certify([der(leaf(clara))], NOW).name == NODE
    with pytest.raises(NotFoundError):
        store.remove("organizations/hilda")


def test_the_authority_that_issued_the_own_certificate_is_trusted(
    tmp_path: Path, clara: AuthorityDirectory, clock: ManualClock
) -> None:
    own = leaf(clara)
    offered = TrustStore(tmp_path / "one", clock=clock, own=[own])
    impostor = authority(tmp_path / "impostor", CLARA, clock)
    offered.offer([Said(CLARA, [*said(impostor).ca_certificates, *said(clara).ca_certificates])])
    assert offered.certify([der(own)], NOW).name == NODE
    assert refusal(offered, leaf(impostor)).reason is Reason.CERTIFICATE_UNTRUSTED
    from_file = TrustStore(tmp_path / "two", clock=clock, own=[own, clara.authority.certificate])
    assert from_file.certify([der(own)], NOW).name == NODE
    assert from_file.record(CLARA).pins[0].how is How.OWN


def test_a_roll_over_needs_confirmation_and_both_count_side_by_side(
    store: TrustStore, clara: AuthorityDirectory, clock: ManualClock
) -> None:
    store.pin(CLARA, clara.authority.certificate)
    old = leaf(clara)
    clock.advance(timedelta(days=1))
    clara.renew(new_key=True)
    new = leaf(clara)
    assert [each.what for each in store.offer([said(clara)])] == [What.OFFERED]
    assert refusal(store, new, clock.now()).reason is Reason.CERTIFICATE_UNTRUSTED
    store.confirm(CLARA, pki.fingerprint(clara.authority.certificate))
    assert [store.certify([der(each)], clock.now()).name for each in (old, new)] == [NODE, NODE]


def test_a_renewed_certificate_of_a_pinned_key_needs_none(store: TrustStore, clara: AuthorityDirectory) -> None:
    store.pin(CLARA, clara.authority.certificate)
    clara.renew(new_key=False)
    assert [each.what for each in store.offer([said(clara)])] == [What.PINNED]
    assert store.record(CLARA).pins[-1].how is How.SAME_KEY


def test_a_withdrawn_authority_does_not_count_until_it_is_back(store: TrustStore, clara: AuthorityDirectory) -> None:
    store.pin(CLARA, clara.authority.certificate)
    own = leaf(clara)
    # The server never named it, so that it cannot withdraw it either.
    assert store.offer([Said(CLARA)]) == []
    store.offer([said(clara)])
    assert [each.what for each in store.offer([Said(CLARA)])] == [What.WITHDRAWN]
    assert "no longer its authorities" in refusal(store, own).message
    assert store.offer([]) == []
    assert [each.what for each in store.offer([said(clara)])] == [What.RESTORED]
    assert store.certify([der(own)], NOW).name == NODE


def test_what_was_offered_and_confirmed_can_be_withdrawn_at_once(store: TrustStore, clara: AuthorityDirectory) -> None:
    store.offer([said(clara)])
    store.confirm(CLARA, pki.fingerprint(clara.authority.certificate))
    assert [each.what for each in store.offer([Said(CLARA)])] == [What.WITHDRAWN]


def test_a_revoked_certificate_is_refused_whatever_moment_is_asked_for(
    store: TrustStore, clara: AuthorityDirectory, clock: ManualClock, tmp_path: Path
) -> None:
    store.pin(CLARA, clara.authority.certificate)
    good, bad = leaf(clara), leaf(clara)
    clock.advance(timedelta(hours=1))
    changes = store.offer([said(clara, clara.revoke(bad.serial_number))])
    assert changes == [Change(What.REVOCATIONS, CLARA, "1")]
    for each in (store, TrustStore(tmp_path / "trust", clock=clock)):
        assert refusal(each, bad, NOW).reason is Reason.CERTIFICATE_REVOKED
        assert each.certify([der(good)], NOW).name == NODE


def test_an_older_revocation_list_does_not_bring_back_what_was_revoked(
    store: TrustStore, clara: AuthorityDirectory
) -> None:
    store.pin(CLARA, clara.authority.certificate)
    bad = leaf(clara)
    before, after = clara.revoke(), clara.revoke(bad.serial_number)
    store.offer([said(clara, after)])
    assert store.offer([said(clara, before)])[0].what is What.REFUSED
    store.offer([said(clara)])
    store.offer([])
    assert refusal(store, bad).reason is Reason.CERTIFICATE_REVOKED


def test_a_clock_that_was_set_back_forgets_no_revocation(
    store: TrustStore, clara: AuthorityDirectory, clock: ManualClock, tmp_path: Path
) -> None:
    store.pin(CLARA, clara.authority.certificate)
    bad = leaf(clara)
    clock.advance(timedelta(days=30))
    store.offer([said(clara, clara.revoke(bad.serial_number))])
    clock.jump(timedelta(days=-29))
    again = TrustStore(tmp_path / "trust", clock=clock)
    assert refusal(again, bad, clock.now()).reason is Reason.CERTIFICATE_REVOKED


def test_a_list_of_an_authority_that_is_not_trusted_yet_counts_when_it_is(
    store: TrustStore, clara: AuthorityDirectory, clock: ManualClock
) -> None:
    bad = leaf(clara)
    clock.advance(timedelta(hours=1))
    store.offer([said(clara, clara.revoke(bad.serial_number))])
    store.confirm(CLARA, pki.fingerprint(clara.authority.certificate))
    assert refusal(store, bad, clock.now()).reason is Reason.CERTIFICATE_REVOKED
    clara.renew(new_key=True)
    worse = leaf(clara)
    changes = store.offer([said(clara, clara.revoke(worse.serial_number))])
    assert {each.what for each in changes} == {What.OFFERED, What.REFUSED}
    store.confirm(CLARA, pki.fingerprint(clara.authority.certificate))
    assert refusal(store, worse, clock.now()).reason is Reason.CERTIFICATE_REVOKED
    assert refusal(store, bad, clock.now()).reason is Reason.CERTIFICATE_REVOKED


def test_outdated_lists_are_named_and_still_revoke(
    store: TrustStore, clara: AuthorityDirectory, clock: ManualClock
) -> None:
    store.pin(CLARA, clara.authority.certificate)
    bad = leaf(clara)
    store.offer([said(clara, clara.revoke(bad.serial_number, days=1))])
    assert store.outdated() == []
    clock.advance(timedelta(days=2))
    assert store.outdated() == [CLARA]
    assert refusal(store, bad, clock.now()).reason is Reason.CERTIFICATE_REVOKED


def test_two_stores_on_one_file_see_each_other(
    store: TrustStore, clara: AuthorityDirectory, tmp_path: Path, clock: ManualClock
) -> None:
    running = TrustStore(tmp_path / "trust", clock=clock)
    running.offer([said(clara)])
    certificate = leaf(clara)
    refusal(running, certificate)
    store.confirm(CLARA, pki.fingerprint(clara.authority.certificate))
    assert running.certify([der(certificate)], NOW).name == NODE


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 2}', '{"version": 1, "organizations": {"x": {}}}'])
def test_a_damaged_file_is_said_and_never_taken_for_an_empty_one(
    store: TrustStore, tmp_path: Path, content: str
) -> None:
    (tmp_path / "trust").mkdir()
    (tmp_path / "trust" / "trust.json").write_text(content)
    for ask in (lambda: store.records(), lambda: store.offer([])):
        with pytest.raises(VantageError) as caught:
            ask()
        assert caught.value.reason is Reason.CONFIGURATION_INVALID


def test_nonsense_in_a_bundle_is_refused_not_raised(store: TrustStore) -> None:
    nonsense = [Said("organizations/../x"), Said(CLARA, ["x", "-----BEGIN CERTIFICATE-----", "y" * 20_000], b"\x30")]
    assert {each.what for each in store.offer(nonsense)} == {What.REFUSED}
    with pytest.raises(PermissionDeniedError):
        store.certify([b"\x30\x00"], NOW)
    with pytest.raises(PermissionDeniedError):
        store.certify([], NOW)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(extra=st.binary(max_size=30), at=st.integers(0, 3000), value=st.integers(0, 255), pinned=st.booleans())
@example(extra=b"", at=0, value=0x30, pinned=True)  # the chain as it was: it is believed while it is pinned
@example(extra=b"", at=0, value=0x30, pinned=False)
def test_fuzzed_bundles_and_chains_never_raise_anything_else(
    store: TrustStore, clara: AuthorityDirectory, extra: bytes, at: int, value: int, pinned: bool
) -> None:
    def spoiled(content: bytes) -> bytes:
        place = at % len(content)
        return content[:place] + bytes([value]) + extra + content[place + 1 :]

    if pinned:
        store.pin(CLARA, clara.authority.certificate)
    else:
        with contextlib.suppress(NotFoundError):  # of an example before
            store.remove(CLARA)
    pem = spoiled(pki.to_pem(clara.authority.certificate).encode()).decode("utf-8", "replace")
    store.offer([Said(CLARA, [pem], spoiled(clara.revoke(5))), Said(pem[:30], [pem], extra)])
    with contextlib.suppress(PermissionDeniedError):
        found = store.certify([spoiled(der(leaf(clara)))], NOW)
        assert pinned
        assert found.name == NODE
