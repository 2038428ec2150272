"""Files of a renewal; the way with a server is in tests/node/test_certificates.py."""

from __future__ import annotations

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vantage.common import pki
from vantage.common.authority import AuthorityDirectory
from vantage.common.clock import ManualClock
from vantage.common.errors import ConflictError, Reason, VantageError, error
from vantage.node import renewal
from vantage.node.config import IdentitySection
from vantage.node.identity import Identity, create

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
CLARA = "organizations/clara"


class Files:
    """A node's files, and its organization."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock(NOW)
        pki.CertificateAuthority.create(directory / "ca", CLARA, clock=self.clock)
        self.clara = AuthorityDirectory.open(directory / "ca", clock=self.clock)
        self.section = IdentitySection(
            organization="clara",
            node="clara-1",
            key=directory / "node-key.pem",
            certificate=directory / "node-cert.pem",
        )
        self.answer(create(self.section), self.section.certificate)
        self.said: list[str] = []
        self.renewed: list[Identity] = []
        identity = Identity.load(self.section, self.clock)
        self.watch = renewal.Renewal(self.section, identity, self.clock, self.said.append, self.renewed.append)

    def answer(self, request: Path, place: Path, days: int = 365) -> None:
        place.write_text(pki.to_pem(self.clara.issue(request.read_bytes(), "organizations/nodes", days=days)))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("VANTAGE_NODE_KEY_PASSPHRASE", "a long phrase")
    return Files(tmp_path)


def test_the_next_key_is_private_and_has_the_passphrase_of_the_present_one(files: Files) -> None:
    renewal.prepare(files.section)
    key = renewal.pending(files.section.key)
    assert b"ENCRYPTED" in key.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    with pytest.raises(ConflictError):
        renewal.prepare(files.section)
    assert key.read_bytes() == before


def test_nothing_is_a_candidate_before_the_answer_is_there(files: Files) -> None:
    assert files.watch.candidate() is None
    request = renewal.prepare(files.section)
    assert files.watch.changed()
    assert files.watch.candidate() is None
    assert not files.watch.changed()
    files.answer(request, renewal.pending(files.section.certificate))
    assert files.watch.changed()
    candidate = files.watch.candidate()
    assert candidate is not None
    old = files.section.certificate.read_bytes()
    files.watch.refused(_problem())
    assert files.section.certificate.read_bytes() == old  # nothing moves before the server has taken it
    files.watch.accepted(candidate)
    assert files.watch.identity is candidate
    assert files.renewed == [candidate]
    assert not files.watch.changed()
    assert files.watch.candidate() is None
    assert Identity.load(files.section, files.clock).chain[0] == candidate.chain[0]


def test_files_that_cannot_be_moved_are_said_and_the_certificate_is_used(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.answer(renewal.prepare(files.section), renewal.pending(files.section.certificate))
    candidate = files.watch.candidate()
    assert candidate is not None

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    files.watch.accepted(candidate)
    assert files.watch.identity is candidate
    assert any("No space left" in line for line in files.said)
    assert files.watch.candidate() is None  # the old one, which is still in place, is none


def test_the_end_is_said_once_a_day_from_thirty_days_before(files: Files) -> None:
    for _ in range(2):
        files.watch.warn()
    assert files.said == []
    files.clock.advance(timedelta(days=335, hours=1))
    for _ in range(3):
        files.watch.warn()
    files.clock.advance(timedelta(days=1))
    files.watch.warn()
    assert [line.partition(", in ")[2].partition(":")[0] for line in files.said] == ["29 days", "28 days"]


def test_half_a_renewal_of_another_key_is_left_alone(files: Files) -> None:
    request = renewal.prepare(files.section)
    files.answer(request, renewal.pending(files.section.certificate))
    renewal.pending(files.section.key).unlink()  # somebody removed it: the answer fits no key here
    renewal.finish(files.section)
    assert renewal.pending(files.section.certificate).exists()
    assert files.watch.candidate() is None
    assert any("cannot be used" in line for line in files.said)


def _problem() -> VantageError:
    return error(Reason.CERTIFICATE_UNTRUSTED, "not known here")
