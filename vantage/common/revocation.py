"""Revocation lists: which certificates of an organization no longer count, signed by its authority (X.509, RFC 5280).

An organization has one list at a time. It is signed by any of its authorities that count at the moment, and covers the
serial numbers of all of them: they are random numbers of 159 bits, so that a serial number names one certificate. After
a roll-over the new authority signs the next list, with everything that was on the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import pki
from vantage.common.errors import Reason, VantageError, error

LIFETIME = timedelta(days=180)
"""How long a list is current. Afterwards it still revokes, but nobody can know what was revoked since."""
MAX_BYTES = 1024 * 1024
MAX_ENTRIES = 20_000
LEEWAY = timedelta(minutes=5)
"""How far the clock of whoever signs the list may be ahead."""


@dataclass(frozen=True)
class RevocationList:
    """A list whose signature and form were checked; only ``verify_revocation_list`` builds it.

    Attributes:
        number: higher than that of every earlier list of the organization.
        issued: when it was signed.
        expires: when the next one is due.
        serials: serial numbers of the revoked certificates, with the moment of revocation.
        signer: key id of the authority that signed it.
        der: the list itself.
    """

    number: int
    issued: datetime
    expires: datetime
    serials: Mapping[int, datetime]
    signer: str
    der: bytes

    def revokes(self, certificate: x509.Certificate) -> bool:
        """Whether a certificate of the organization is on the list."""
        return certificate.serial_number in self.serials


def sign_revocation_list(
    key: ec.EllipticCurvePrivateKey,
    authority: x509.Certificate,
    serials: Mapping[int, datetime],
    number: int,
    now: datetime,
    lifetime: timedelta = LIFETIME,
) -> bytes:
    """Sign a list; returns it in DER.

    Args:
        key: private key of the authority.
        authority: its certificate.
        serials: everything that is revoked, with the moment of revocation.
        number: higher than that of the list before.
        now: the time.
        lifetime: until the next list is due.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.subject)
        .last_update(now)
        .next_update(now + lifetime)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    for serial, moment in sorted(serials.items()):
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(moment).build()
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def to_pem(der: bytes) -> str:
    """A list in PEM."""
    return x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM).decode()


def verify_revocation_list(content: bytes, authorities: Sequence[x509.Certificate], at: datetime) -> RevocationList:
    """Check a list.

    Checks: (1) size and form, with a number, (2) the signature is that of one of the authorities, (3) it counts from a
    moment that is not in the future. That its number is higher than that of the list before is for the caller to check
    with ``check_succession``; that it is still current, with ``check_current`` when it is new.

    Args:
        content: PEM or DER.
        authorities: certificates of the organization's authorities.
        at: the time.

    Raises:
        InvalidArgumentError: REVOCATION_LIST_INVALID, with the check that failed.
    """
    # (1)
    if len(content) > MAX_BYTES:
        raise _invalid(f"it has more than {MAX_BYTES} bytes")
    try:
        found = (
            x509.load_pem_x509_crl(content)
            if content.lstrip().startswith(b"-----")
            else x509.load_der_x509_crl(content)
        )
        number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        issued, expires = found.last_update_utc, found.next_update_utc
        if len(found) > MAX_ENTRIES:
            raise _invalid(f"it has more than {MAX_ENTRIES} entries")
        serials = {each.serial_number: each.revocation_date_utc for each in found}
        # (2)
        signer = next((each for each in authorities if _signed_by(found, each)), None)
        der = found.public_bytes(serialization.Encoding.DER)
    except x509.ExtensionNotFound:
        raise _invalid("it has no number (extension cRLNumber)") from None
    except pki.MALFORMED:
        raise _invalid("it is not an X.509 revocation list in PEM or DER") from None
    if expires is None:
        raise _invalid("it does not say when the next one is due (nextUpdate)")
    if signer is None:
        raise _invalid("it is not signed by one of the organization's authorities")
    # (3)
    if issued > at + LEEWAY:
        raise _invalid(f"it counts from {issued:%Y-%m-%d %H:%M} UTC, which is in the future: compare the clocks")
    return RevocationList(number, issued, expires, serials, pki.key_id(signer), der)


def check_current(new: RevocationList, at: datetime) -> None:
    """Refuse a list whose successor is overdue.

    Raises:
        InvalidArgumentError: REVOCATION_LIST_INVALID.
    """
    if new.expires <= at:
        raise _invalid(f"its successor was due at {new.expires:%Y-%m-%d %H:%M} UTC: sign a new one")


def check_succession(
    new: RevocationList, number: int, signer: str, der: bytes, authorities: Sequence[x509.Certificate]
) -> bool:
    """Whether a list replaces the one in use (number, signer, der); False when it is the same list.

    An older list would bring revoked certificates back. The numbers of an authority that the organization has given up
    do not count: whoever stole its key could have used up all numbers.

    Raises:
        ConflictError: REVOCATION_LIST_OUTDATED.
    """
    if new.der == der:
        return False
    if new.number <= number and signer in {pki.key_id(each) for each in authorities}:
        raise error(
            Reason.REVOCATION_LIST_OUTDATED,
            f"the revocation list has number {new.number}, the one in use {number}: sign a new one on top of it "
            "('vantage org crl')",
            number=str(number),
        )
    return True


def _signed_by(found: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    key = authority.public_key()
    return (
        found.issuer == authority.subject
        and isinstance(key, ec.EllipticCurvePublicKey)
        and found.is_signature_valid(key)
    )


def _invalid(why: str) -> VantageError:
    return error(Reason.REVOCATION_LIST_INVALID, f"the revocation list is not accepted: {why}")
