"""What is known of the authorities of one organization, and the rules by which it changes. Pure; no files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Any, Protocol

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from vantage.common import pki
from vantage.common.errors import VantageError
from vantage.common.revocation import MAX_BYTES, RevocationList, check_succession, verify_revocation_list

MAX_OFFERED = 10
"""Certificates of one organization that are looked at in one bundle."""
MAX_CERTIFICATE_CHARACTERS = 16_384


class Told(Protocol):
    """What a server says of one organization; ``OrganizationTrust`` of the trust service is one."""

    @property
    def organization(self) -> str:
        """organizations/{organization}."""
        ...

    @property
    def ca_certificates(self) -> Sequence[str]:
        """Certificates of its authorities, PEM."""
        ...

    @property
    def revocation_list(self) -> bytes:
        """Its revocation list, DER; empty for none."""
        ...


class How(Enum):
    """How a certificate came to be pinned."""

    FINGERPRINT = "fingerprint confirmed"
    FILE = "from a file"
    OWN = "issued the own certificate"
    SAME_KEY = "renewed with a pinned key"
    FIRST_USE = "first use"


class What(Enum):
    """What a bundle changed."""

    PINNED = "pinned"
    OFFERED = "offered"
    WITHDRAWN = "withdrawn"
    RESTORED = "restored"
    REVOCATIONS = "revocations"
    REFUSED = "refused"


@dataclass(frozen=True)
class Change:
    """One thing that a bundle changed.

    Attributes:
        what: what it was.
        organization: whose.
        detail: fingerprint, number of the revocation list, or why something was refused.
    """

    what: What
    organization: str
    detail: str


@dataclass(frozen=True)
class Pin:
    """A certificate that its owner decided to trust.

    Attributes:
        certificate: of the authority.
        how: how it came here.
        since: when.
        told: whether the server has ever named it as an authority of the organization.
        withdrawn: the server named it once and does so no longer, because the organization gave it up: it does not
            count then. A server that lies about it only makes itself useless, so that nobody has to confirm it.
    """

    certificate: x509.Certificate
    how: How
    since: datetime
    told: bool = False
    withdrawn: bool = False

    @property
    def fingerprint(self) -> str:
        """Of the certificate."""
        return pki.fingerprint(self.certificate)


@dataclass(frozen=True)
class TrustRecord:
    """What is known of one organization.

    Attributes:
        organization: its name.
        pins: whom its owner trusts.
        offered: certificates that the server told, and nobody has confirmed.
        removed: fingerprints that the owner removed: never pinned by first use again.
        revocations: latest revocation list that a pinned authority signed.
        unproven: list that the server told and no pinned authority signed; tried again when another is pinned.
    """

    organization: str
    pins: tuple[Pin, ...] = ()
    offered: tuple[x509.Certificate, ...] = ()
    removed: frozenset[str] = frozenset()
    revocations: RevocationList | None = None
    unproven: bytes = b""

    @property
    def roots(self) -> list[x509.Certificate]:
        """Certificates that count."""
        return [each.certificate for each in self.pins if not each.withdrawn]

    def pinned(self, certificate: x509.Certificate, how: How, now: datetime) -> TrustRecord:
        """With a certificate pinned; the same one again changes nothing.

        Raises:
            InvalidArgumentError: CERTIFICATE_INVALID, it is no authority of the organization.
        """
        pki.check_authority(certificate, self.organization)
        if any(each.certificate == certificate for each in self.pins):
            return self
        changed = replace(
            self,
            pins=(*self.pins, Pin(certificate, how, now, told=certificate in self.offered)),
            offered=tuple(each for each in self.offered if each != certificate),
            removed=self.removed - {pki.fingerprint(certificate)},
        )
        return changed.with_list(changed.unproven, now)[0] if changed.unproven else changed

    def without(self, fingerprints: Iterable[str]) -> TrustRecord:
        """Without some pins; what remains of the revocation list must be signed by one that is left."""
        gone = frozenset(fingerprints)
        pins = tuple(each for each in self.pins if each.fingerprint not in gone)
        signers = {pki.key_id(each.certificate) for each in pins}
        kept = self.revocations if self.revocations and self.revocations.signer in signers else None
        return replace(self, pins=pins, removed=self.removed | gone, revocations=kept)

    def with_list(self, content: bytes, now: datetime) -> tuple[TrustRecord, str]:
        """With a revocation list that was told; and why it does not count, or an empty text."""
        if len(content) > MAX_BYTES:
            return self, "the revocation list is too large"
        pins = [each.certificate for each in self.pins]
        try:
            found = verify_revocation_list(content, pins, now)
            used = self.revocations
            # All pins, also withdrawn ones: the server's word must not make an older list count.
            if used is not None and not check_succession(found, used.number, used.signer, used.der, pins):
                return replace(self, unproven=b""), ""
        except VantageError as problem:
            return replace(self, unproven=content), problem.message
        return replace(self, revocations=found, unproven=b""), ""

    def told(
        self, told: Told, own: Sequence[x509.Certificate], first_use: bool, now: datetime
    ) -> tuple[TrustRecord, list[Change]]:
        """With what a server told of the organization, and what that changed. Bad content is refused, never raised.

        What is pinned without a person: (1) a certificate that signed the own one, which came from the organization
        itself, (2) one that is signed with the key of a pinned one, (3) where that was chosen, those that are told
        first, unless the owner removed any.
        """
        changes: list[Change] = []

        def note(what: What, detail: str) -> None:
            changes.append(Change(what, self.organization, detail))

        certificates = list(_authorities(told, self.organization, note))
        record, fresh = self, not self.pins and not self.removed
        keys = {pki.key_id(each.certificate) for each in self.pins}
        for certificate in certificates:
            if any(each.certificate == certificate for each in record.pins):
                continue
            mark = pki.fingerprint(certificate)
            how = None
            if mark not in record.removed:
                if any(_issued(leaf, certificate) for leaf in own):
                    how = How.OWN
                elif pki.key_id(certificate) in keys:
                    how = How.SAME_KEY
                elif first_use and fresh:
                    how = How.FIRST_USE
            if how is not None:
                record = record.pinned(certificate, how, now)
                note(What.PINNED, mark)
            elif certificate not in self.offered:
                note(What.OFFERED, mark)
        pins = []
        for pin in record.pins:
            named = pin.certificate in certificates
            withdrawn = pin.told and not named
            if withdrawn != pin.withdrawn:
                note(What.WITHDRAWN if withdrawn else What.RESTORED, pin.fingerprint)
            pins.append(replace(pin, told=pin.told or named, withdrawn=withdrawn))
        here = {pin.fingerprint for pin in pins}
        offered = tuple(each for each in certificates if pki.fingerprint(each) not in here)
        record = replace(record, pins=tuple(pins), offered=offered)
        before = self.revocations
        if told.revocation_list and (before is None or before.der != told.revocation_list):
            known = told.revocation_list == self.unproven
            record, problem = record.with_list(bytes(told.revocation_list), now)
            if problem and record.pins and not known:
                note(What.REFUSED, problem)
        if record.revocations is not None and record.revocations != before:
            note(What.REVOCATIONS, str(record.revocations.number))
        return record, changes

    def to_json(self) -> dict[str, Any]:
        """As it is kept in a file."""
        return {
            "pinned": [
                {
                    "certificate": pki.to_pem(each.certificate),
                    "fingerprint": each.fingerprint,
                    "how": each.how.name.lower(),
                    "since": each.since.isoformat(),
                    "told": each.told,
                    "withdrawn": each.withdrawn,
                }
                for each in self.pins
            ],
            "offered": [pki.to_pem(each) for each in self.offered],
            "removed": sorted(self.removed),
            "revocation_list": _b64(self.revocations.der if self.revocations else b""),
            "unproven_revocation_list": _b64(self.unproven),
        }

    @classmethod
    def from_json(cls, organization: str, document: dict[str, Any], now: datetime) -> TrustRecord:
        """Read what ``to_json`` wrote; the revocation list is verified again.

        Raises:
            VantageError, ValueError, KeyError, TypeError: the file was changed by something else.
        """
        pins = tuple(
            Pin(
                pki.load_certificates(each["certificate"])[0],
                How[each["how"].upper()],
                datetime.fromisoformat(each["since"]),
                bool(each["told"]),
                bool(each["withdrawn"]),
            )
            for each in document["pinned"]
        )
        content = base64.b64decode(document["revocation_list"], validate=True)
        # ``max``: a clock that was set back must not make the node forget what was revoked.
        moment = max(now, *(pin.since for pin in pins), _list_time(content)) if content else now
        found = verify_revocation_list(content, [pin.certificate for pin in pins], moment) if content else None
        return cls(
            organization,
            pins,
            tuple(pki.load_certificates(each)[0] for each in document["offered"]),
            frozenset(document["removed"]),
            found,
            base64.b64decode(document["unproven_revocation_list"], validate=True),
        )


def _authorities(told: Told, organization: str, note: Callable[[What, str], None]) -> Iterator[x509.Certificate]:
    for pem in list(told.ca_certificates)[:MAX_OFFERED]:
        try:
            if len(pem) > MAX_CERTIFICATE_CHARACTERS:
                raise ValueError("an authority certificate is too large")
            for certificate in pki.load_certificates(pem)[:1]:
                pki.check_authority(certificate, organization)
                yield certificate
        except VantageError as problem:
            note(What.REFUSED, problem.message)
        except ValueError as problem:
            note(What.REFUSED, str(problem))


def _issued(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (*pki.MALFORMED, InvalidSignature):
        return False
    return True


def _list_time(content: bytes) -> datetime:
    return x509.load_der_x509_crl(content).last_update_utc


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def is_empty(record: TrustRecord) -> bool:
    """Whether nothing would be lost by forgetting a record."""
    return not record.pins and not record.removed and not record.offered
