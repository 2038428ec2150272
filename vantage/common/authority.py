"""The directory of an organization's authority: keys, what was issued, what was revoked. It may live offline.

``ca-key.pem`` and ``ca-cert.pem`` are the authority; ``previous/`` holds those before it; ``issued/`` a copy of every
certificate, by serial number; ``crl.pem`` the latest revocation list, which is also the memory of what was revoked.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from vantage.common import names, pki
from vantage.common.clock import Clock, SystemClock
from vantage.common.errors import Reason, error
from vantage.common.files import replace_private
from vantage.common.pki import CA_CERTIFICATE_FILE, CA_KEY_FILE, CertificateAuthority
from vantage.common.revocation import (
    LIFETIME,
    RevocationList,
    sign_revocation_list,
    to_pem,
    verify_revocation_list,
)

ISSUED = "issued"
PREVIOUS = "previous"
REVOCATIONS = "crl.pem"
_NEW = ".new"


@dataclass(frozen=True)
class Issued:
    """A certificate that the authority issued.

    Attributes:
        name: the holder.
        certificate: the certificate.
        revoked: when it was revoked, if it was.
    """

    name: str
    certificate: x509.Certificate
    revoked: datetime | None


class AuthorityDirectory:
    """An opened directory.

    Args:
        directory: where it is.
        authority: the present authority.
        clock: the time.
    """

    def __init__(self, directory: Path, authority: CertificateAuthority, clock: Clock) -> None:
        self.directory = directory
        self.authority = authority
        self._clock = clock

    @classmethod
    def open(
        cls, directory: Path, *, passphrase: bytes | None = None, clock: Clock | None = None
    ) -> AuthorityDirectory:
        """Open a directory that ``CertificateAuthority.create`` made.

        Raises:
            VantageError: files missing or unreadable, passphrase missing or wrong.
        """
        clock = clock or SystemClock()
        _finish_renewal(directory)
        return cls(directory, CertificateAuthority.load(directory, passphrase=passphrase, clock=clock), clock)

    @property
    def authorities(self) -> list[x509.Certificate]:
        """Certificates of the present authority and of those before it, the present one first."""
        earlier = sorted((self.directory / PREVIOUS).glob(f"*/{CA_CERTIFICATE_FILE}"))
        return [self.authority.certificate, *(_certificate(path) for path in earlier)]

    def issue(self, request: bytes, kind: str, name: str = "", days: int | None = None) -> x509.Certificate:
        """Answer a signing request; the certificate is recorded before it is returned.

        Args:
            request: PKCS#10, PEM or DER.
            kind: what may be certified, ``organizations/nodes`` or ``organizations/users``.
            name: the holder; must be given when the request carries no name, and may not contradict it.
            days: lifetime; a year by default.

        Raises:
            InvalidArgumentError: CERTIFICATE_INVALID, with what to do.
        """
        asked = pki.load_request(request)
        if asked.name and name and asked.name != name:
            raise error(
                Reason.CERTIFICATE_INVALID, f"the signing request is for {asked.name}, not for {name}: compare the two"
            )
        holder = asked.name or name
        if not holder:
            raise error(
                Reason.CERTIFICATE_INVALID,
                "the signing request carries no name (URI vantage:organizations/... among its alternative names): "
                "give one with --name",
            )
        names.parse(holder, kind, field="the name in the signing request")
        lifetime = pki.HOLDER_LIFETIME if days is None else timedelta(days=days)
        certificate = self.authority.issue(holder, asked.public_key, lifetime=lifetime)
        record = self.directory / ISSUED / f"{pki.serial_text(certificate)}.pem"
        record.parent.mkdir(mode=0o700, exist_ok=True)
        replace_private(record, pki.to_pem(certificate))
        return certificate

    def issued(self) -> list[Issued]:
        """Everything that was issued, oldest first."""
        revoked = self._revoked()
        found = [_certificate(path) for path in (self.directory / ISSUED).glob("*.pem")]
        return [
            Issued(pki.certified_name(each), each, revoked.get(each.serial_number))
            for each in sorted(found, key=lambda each: (each.not_valid_before_utc, each.serial_number))
        ]

    def revocations(self) -> RevocationList | None:
        """The latest revocation list.

        Raises:
            InvalidArgumentError: REVOCATION_LIST_INVALID, the file was changed.
        """
        path = self.directory / REVOCATIONS
        if not path.exists():
            return None
        return verify_revocation_list(path.read_bytes(), self.authorities, self._clock.now())

    def find(self, what: str) -> list[x509.Certificate | int]:
        """What a person means to revoke: a file with a certificate, a serial number, or a name (all that count).

        Raises:
            VantageError: it is none of these, or not of this authority.
        """
        if Path(what).is_file():
            found = pki.load_certificates(Path(what).read_bytes())[0]
            if not any(_issued_by(found, each) for each in self.authorities):
                raise error(Reason.CERTIFICATE_INVALID, f"{what} was not issued by {self.authority.organization}")
            return [found]
        if any(names.is_valid(what, kind) for kind in pki.HOLDER_KINDS):
            now = self._clock.now()
            named = [
                each.certificate
                for each in self.issued()
                if each.name == what and each.revoked is None and each.certificate.not_valid_after_utc > now
            ]
            if not named:
                raise error(Reason.NOT_FOUND, f"nothing to revoke: {what} has no certificate that counts")
            return list(named)
        digits = what.lower().removeprefix("0x").replace(":", "")
        try:
            serial = int(digits, 16)
        except ValueError:
            serial = 0
        if not 0 < serial < 2**159:
            raise error(
                Reason.INVALID_ARGUMENT,
                f"{what!r} is not the file of a certificate, a serial number in hexadecimal, or the name of a node or "
                "user",
            )
        return [serial]

    def revoke(self, *serials: int, days: int | None = None, number: int | None = None) -> bytes:
        """Sign the next revocation list, with these added, and keep it; without any it only renews the list.

        Args:
            serials: serial numbers to add.
            days: how long the list is current.
            number: number of the list; one more than that of the last by default.

        Returns:
            The list in DER.
        """
        last, now = self.revocations(), self._clock.now()
        if number is None:
            number = 1 if last is None else last.number + 1
        entries = {**dict.fromkeys(serials, now), **self._revoked()}
        lifetime = LIFETIME if days is None else timedelta(days=days)
        der = sign_revocation_list(self.authority.key, self.authority.certificate, entries, number, now, lifetime)
        replace_private(self.directory / REVOCATIONS, to_pem(der))
        return der

    def renew(self, *, new_key: bool, passphrase: bytes | None = None) -> x509.Certificate:
        """Replace the authority's certificate; what was before is kept in ``previous``.

        With the same key, what it issued goes on to count. With a new key both count side by side until the old one is
        removed from the server.

        Args:
            new_key: a roll-over.
            passphrase: of the key, new or old.
        """
        key = pki.create_key() if new_key else self.authority.key
        certificate = pki.self_signed(key, self.authority.organization, self._clock.now())
        kept = self.directory / PREVIOUS / pki.serial_text(self.authority.certificate)
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in (CA_KEY_FILE, CA_CERTIFICATE_FILE):
            if not (kept / name).exists():
                os.link(self.directory / name, kept / name)
        (self.directory / (CA_KEY_FILE + _NEW)).unlink(missing_ok=True)
        pki.write_key(self.directory / (CA_KEY_FILE + _NEW), key, passphrase)
        # From here on the renewal is finished at the next ``open``, should the process die.
        replace_private(self.directory / (CA_CERTIFICATE_FILE + _NEW), pki.to_pem(certificate))
        _finish_renewal(self.directory)
        self.authority = CertificateAuthority(key, certificate, self._clock)
        return certificate

    def _revoked(self) -> Mapping[int, datetime]:
        last = self.revocations()
        return {} if last is None else last.serials


def _finish_renewal(directory: Path) -> None:
    """The certificate is moved last: while its new file is there, both new files belong together."""
    certificate = directory / (CA_CERTIFICATE_FILE + _NEW)
    if certificate.exists():
        key = directory / (CA_KEY_FILE + _NEW)
        if key.exists():
            key.replace(directory / CA_KEY_FILE)
        certificate.replace(directory / CA_CERTIFICATE_FILE)


def _certificate(path: Path) -> x509.Certificate:
    return pki.load_certificates(path.read_bytes())[0]


def _issued_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (*pki.MALFORMED, InvalidSignature):
        return False
    return True
