"""A new certificate for a node that goes on running, and a word in time before the old one ends.

``vantage node renew`` makes a new key and a signing request beside the present ones (``node-key.new.pem``,
``node-cert.new.csr``). When the answer lies at ``node-cert.new.pem``, the node shows it to the server with its next
heartbeat; once the server has accepted it, and not before, both files take the places of the old ones. A certificate
that was replaced in place, for the same key or together with it, is noticed as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from vantage.common import pki
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.node.config import IdentitySection
from vantage.node.identity import Identity, read_passphrase

log = logging.getLogger(__name__)

WARN_BEFORE = timedelta(days=30)


def pending(path: Path) -> Path:
    """Where the successor of a file lies."""
    return path.with_name(f"{path.stem}.new{path.suffix}")


def prepare(section: IdentitySection) -> Path:
    """Make the next key and the signing request for it; returns the path of the request.

    Raises:
        ConflictError: that was done already and is not finished.
        VantageError: the passphrase cannot be read.
    """
    key_path = pending(section.key)
    if key_path.exists():
        raise error(
            Reason.ALREADY_EXISTS,
            f"{key_path} exists: a renewal has begun already; put the answer to {_request(section)} at "
            f"{pending(section.certificate)}, or remove both to begin anew",
            path=str(key_path),
        )
    key = pki.create_key()
    request = _request(section)
    request.write_bytes(pki.create_request(key, section.name).public_bytes(serialization.Encoding.PEM))
    pki.write_key(key_path, key, read_passphrase(section))
    return request


def finish(section: IdentitySection) -> None:
    """Go on where a process died between moving the key and moving the certificate."""
    certificate = pending(section.certificate)
    if certificate.exists() and not pending(section.key).exists() and _fits(certificate, section):
        certificate.replace(section.certificate)


class Renewal:
    """Looks for a newer certificate, and tells the node's admin what to do.

    Args:
        section: where the files are.
        identity: the present one.
        clock: the time.
        say: the console.
        renewed: told the new identity once it counts.
    """

    def __init__(
        self,
        section: IdentitySection,
        identity: Identity,
        clock: Clock,
        say: Callable[[str], None],
        renewed: Callable[[Identity], None],
    ) -> None:
        self.identity = identity
        self._section = section
        self._clock = clock
        self._say = say
        self._renewed = renewed
        self._complaint = ""
        self._days: int | None = None
        self._seen = self._marks()

    def changed(self) -> bool:
        """Whether files were replaced since this was asked last; costs four looks at the directory."""
        before, self._seen = self._seen, self._marks()
        return self._seen != before

    def candidate(self) -> Identity | None:
        """The identity to try instead of the present one; None when there is none. Reads files."""
        for section in (self._pending(), self._section):
            if section is None:
                continue
            try:
                found = Identity.load(section, self._clock)
            except VantageError as problem:
                self._complain(f"the new certificate cannot be used, the present one goes on: {problem.message}")
                continue
            # The first that can be used decides: what lies behind it is older.
            return found if found.chain[0] != self.identity.chain[0] else None
        return None

    def accepted(self, candidate: Identity) -> None:
        """The server took a candidate: it is the node's identity from now on."""
        section = self._pending()
        try:
            if section is not None and Identity.load(section, self._clock).chain[0] == candidate.chain[0]:
                # The certificate last: while its new file is there, ``finish`` goes on from here.
                if section.key != self._section.key:
                    section.key.replace(self._section.key)
                section.certificate.replace(self._section.certificate)
                _request(self._section).unlink(missing_ok=True)
        except (OSError, VantageError) as problem:
            # It is in use all the same; at the next start the pending files are tried first.
            self._complain(f"the new certificate is in use, but its files cannot be put in place: {problem}")
        self.identity = candidate
        self._days, self._seen = None, self._marks()
        expires = candidate.chain[0].not_valid_after_utc
        log.info("certificate renewed", extra={"fingerprint": pki.fingerprint(candidate.chain[0])})
        self._say(f"the new certificate is in use, it is valid until {expires:%Y-%m-%d}")
        self._renewed(candidate)

    def refused(self, problem: VantageError) -> None:
        """The server did not take a candidate."""
        self._complain(f"the server does not accept the new certificate, the present one goes on: {problem.message}")

    def warn(self) -> None:
        """Say so when the present certificate ends soon; once a day."""
        expires = self.identity.chain[0].not_valid_after_utc
        left = expires - self._clock.now()
        if left > WARN_BEFORE or left.days == self._days:
            return
        self._days = left.days
        log.warning("certificate ends soon", extra={"expires": expires.isoformat(), "days": left.days})
        self._say(
            f"the certificate of this node ends on {expires:%Y-%m-%d %H:%M} UTC, in {_days(left)}: run "
            "'vantage node renew'; the node need not be restarted"
        )

    def _marks(self) -> list[tuple[int, int] | None]:
        section = self._section
        paths = (section.key, section.certificate, pending(section.key), pending(section.certificate))
        return [_mark(path) for path in paths]

    def _pending(self) -> IdentitySection | None:
        key, certificate = pending(self._section.key), pending(self._section.certificate)
        if not certificate.exists():
            return None
        if not key.exists():
            key = self._section.key  # a certificate for the present key
        return self._section.model_copy(update={"key": key, "certificate": certificate})

    def _complain(self, text: str) -> None:
        """Once for each thing that is wrong, not at every exchange."""
        if text != self._complaint:
            self._complaint = text
            log.warning("new certificate not used")
            self._say(text)


def _mark(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _days(left: timedelta) -> str:
    return f"{left.days} days" if left.days != 1 else "1 day"


def _request(section: IdentitySection) -> Path:
    return pending(section.certificate).with_suffix(".csr")


def _fits(certificate: Path, section: IdentitySection) -> bool:
    try:
        found = pki.load_certificates(certificate.read_bytes())[0]
        return found.public_key() == pki.read_key(section.key, read_passphrase(section)).public_key()
    except (OSError, VantageError):
        return False
