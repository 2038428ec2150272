"""Keys on this machine: made whole or not at all, checked when they are opened, never overwritten."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vantage.client.keyring import KEY_FILE, RECOVERY_FILE, REQUEST_FILE, SECRETS_FILE, KeyFiles
from vantage.common import dsse, pki, sealing
from vantage.common.attestation import verify_keys
from vantage.common.clock import ManualClock
from vantage.common.errors import (
    ConfigurationError,
    ConflictError,
    InvalidArgumentError,
    NotFoundError,
    Reason,
    RefusedError,
)
from vantage.common.seen_versions import SeenVersions
from vantage.common.statements import KeyBundle

ROSA = "organizations/dora/users/rosa"
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


class Place:
    """A directory for keys, and the authority of dora."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock(NOW)
        self.authority = pki.CertificateAuthority.create(directory / "ca", "organizations/dora", clock=self.clock)
        self.files = KeyFiles(directory / "keys" / "rosa", self.clock)

    def certificate(self, name: str = "", days: int = 365) -> bytes:
        asked = pki.load_request((self.files.directory / REQUEST_FILE).read_bytes())
        leaf = self.authority.issue(name or asked.name, asked.public_key, lifetime=timedelta(days=days))
        return (pki.to_pem(leaf) + pki.to_pem(self.authority.certificate)).encode()

    def ready(self, passphrase: bytes | None = None) -> KeyFiles:
        self.files.create(ROSA, passphrase)
        self.files.install(self.certificate())
        return self.files


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_made_certified_and_opened(place: Place) -> None:
    files = place.ready()
    opened = files.open()
    assert (opened.name, opened.organization) == (ROSA, "organizations/dora")
    assert opened.recipients == (sealing.recipient_of(opened.identities[0]),)
    assert opened.chain[1] == place.authority.certificate
    assert opened.sent_chain == opened.chain[:1]
    (only,) = files.seal_keys()
    assert (only.created, only.newest) == (NOW, True)
    modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in files.directory.iterdir()}
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE(files.directory.stat().st_mode) == 0o700
    assert "AGE-SECRET-KEY" not in repr(opened)


def test_keys_are_never_overwritten_and_a_creation_that_broke_off_is_done_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(pki, "write_key", broken)
        with pytest.raises(ConfigurationError, match="No space left"):
            place.files.create(ROSA)
    assert not place.files.exists
    (place.files.directory / "trust.json").write_text("{}")
    place.files.create(ROSA)
    assert (place.files.directory / "trust.json").exists()
    before = (place.files.directory / KEY_FILE).read_bytes()
    with pytest.raises(ConflictError) as caught:
        place.files.create(ROSA)
    assert caught.value.reason is Reason.ALREADY_EXISTS
    assert (place.files.directory / KEY_FILE).read_bytes() == before


def test_a_passphrase_is_asked_for_only_when_there_is_one(place: Place) -> None:
    files = place.ready(b"two dry foxes")
    assert files.open(lambda: b"two dry foxes").name == ROSA
    for given, word in ((None, "has a passphrase"), (lambda: b"wrong", "passphrase is wrong")):
        with pytest.raises(InvalidArgumentError, match=word):
            KeyFiles(files.directory, place.clock).open(given)


def test_a_passphrase_protects_what_opens_answers_too_and_is_asked_for_once(place: Place) -> None:
    files = place.ready(b"two dry foxes")
    path = files.directory / SECRETS_FILE
    (first,) = files.identities()
    times = 0

    def asked() -> bytes:
        nonlocal times
        times += 1
        return b"two dry foxes"

    again = KeyFiles(files.directory, place.clock, asked)
    assert again.open().identities == (first,)
    second = again.rotate()
    assert again.revoke(sealing.recipient_of(first)) == second
    assert (again.open().recipients, times) == ((second,), 1)
    for each in files.directory.iterdir():
        assert b"AGE-SECRET-KEY" not in each.read_bytes()
        assert stat.S_IMODE(each.stat().st_mode) == 0o600
    for given, word in ((None, "has a passphrase"), (lambda: b"wrong", "passphrase is wrong")):
        with pytest.raises(InvalidArgumentError, match=word):
            KeyFiles(files.directory, place.clock, given).seal_keys()
        with pytest.raises(InvalidArgumentError, match=word):
            KeyFiles(files.directory, place.clock, given).rotate()
    assert again.open().recipients == (second,)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RefusedError, match=r"seal-keys.*cut"):
        again.open()


def test_no_passphrase_is_asked_for_without_one(place: Place) -> None:
    files = place.ready()

    def asked() -> bytes:
        raise AssertionError("nobody is to be asked")

    assert files.open(asked).name == ROSA


def test_what_does_not_fit_says_which_command_helps(place: Place) -> None:
    with pytest.raises(InvalidArgumentError, match="vantage key create"):
        place.files.open()
    place.files.create(ROSA)
    with pytest.raises(InvalidArgumentError, match=r"vantage user issue.*vantage key import"):
        place.files.open()
    with pytest.raises(InvalidArgumentError, match="is for organizations/dora/users/otto"):
        place.files.install(place.certificate("organizations/dora/users/otto"))
    stranger = pki.create_key()
    with pytest.raises(InvalidArgumentError, match="another key"):
        place.files.install(pki.to_pem(place.authority.issue(ROSA, stranger.public_key())).encode())
    with pytest.raises(InvalidArgumentError, match="not a certificate"):
        place.files.install(b"nonsense")
    place.files.install(place.certificate(days=1))
    place.clock.advance(timedelta(days=2))
    with pytest.raises(InvalidArgumentError, match="vantage user issue"):
        place.files.open()
    place.files.install(place.certificate())
    assert place.files.open().name == ROSA
    pki.write_key(place.files.directory / "other.pem", stranger)
    (place.files.directory / "other.pem").replace(place.files.directory / KEY_FILE)
    with pytest.raises(InvalidArgumentError, match="not for the key beside it"):
        place.files.open()


@pytest.mark.parametrize("name", [KEY_FILE, SECRETS_FILE])
def test_private_files_that_others_can_read_are_refused(place: Place, name: str) -> None:
    files = place.ready()
    (files.directory / name).chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        files.open()


def test_rotation_keeps_what_opens_old_answers_and_revocation_does_not(place: Place) -> None:
    files = place.ready()
    first = files.open()
    sealed = sealing.seal(b"old", first.recipients)
    second = files.rotate()
    opened = files.open()
    assert opened.recipients == (second,)
    assert sealing.unseal(sealed, opened.identities) == b"old"
    assert [each.newest for each in files.seal_keys()] == [True, False]
    assert files.revoke(first.recipients[0]) == second
    assert [each.recipient for each in files.seal_keys()] == [second]
    third = files.revoke(second)
    assert [each.recipient for each in files.seal_keys()] == [third]
    with pytest.raises(NotFoundError):
        files.revoke(second)


def test_each_signed_list_is_newer_than_all_before(place: Place) -> None:
    files = place.ready()
    opened = files.open()
    versions = [KeyBundle.decode(dsse.peek(files.sign_list(opened))).version for _ in range(2)]
    assert versions == [int(NOW.timestamp()), int(NOW.timestamp()) + 1]
    envelope = files.sign_list(opened, above=versions[-1] + 100)
    certify = lambda chain, at: pki.verify_chain(chain, [place.authority.certificate], at)  # noqa: E731
    verified = verify_keys(envelope, certify, ROSA, NOW)
    assert (verified.version, verified.recipients) == (versions[-1] + 101, opened.recipients)
    assert files.published_version() == verified.version


def test_recovery_keys_can_open_new_answers_too(place: Place) -> None:
    files = place.ready()
    recovery = sealing.recipient_of(sealing.create_identity())
    files.set_recovery([recovery])
    assert files.open().recipients[1:] == (recovery,)
    (files.directory / RECOVERY_FILE).write_text("# of dora\nage1nonsense\n")
    with pytest.raises(ConfigurationError, match="age1nonsense"):
        files.open()
    files.set_recovery([])
    assert len(files.open().recipients) == 1


def test_versions_that_were_seen_outlive_the_program(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    mine, other = SeenVersions(path), SeenVersions(path)
    mine["a"] = 5
    other["a"] = 3
    other["b"] = 1
    assert dict(SeenVersions(path)) == {"a": 5, "b": 1}
    path.write_text("[]")
    with pytest.raises(ConfigurationError, match="bring it back"):
        SeenVersions(path)
