"""Whom somebody trusts: pinned authorities of organizations and their revocation lists, in one file of their own.

A server only *offers* authorities. An organization counts when its certificate was pinned: by a fingerprint that the
owner confirmed, from a file, because it issued the owner's own certificate, or, where that was chosen, at first use.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import filelock
from cryptography import x509

from vantage.common import names, pki
from vantage.common.clock import Clock, SystemClock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.files import replace_private
from vantage.common.pki import CertifiedName
from vantage.common.revocation import check_current
from vantage.common.rpc import normalize_fingerprint
from vantage.common.trust_record import Change, How, Told, TrustRecord, is_empty

FILE = "trust.json"
_VERSION = 1
_Records = Mapping[str, TrustRecord]
_T = TypeVar("_T")


class TrustStore:
    """Authorities that its owner trusts. Several processes may use one: each sees what the others changed.

    Args:
        directory: holds ``trust.json`` (0600); made when something is first written.
        clock: the time.
        first_use: pin what is told first of an organization, without anybody confirming it.
        own: the owner's certificate chain, leaf first: its organization's authority is trusted.
        command: how a person changes the store, for messages.
    """

    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock | None = None,
        first_use: bool = False,
        own: Sequence[x509.Certificate] = (),
        command: str = "vantage trust",
    ) -> None:
        self._path = directory / FILE
        self._clock = clock or SystemClock()
        self._first_use = first_use
        self._own: Sequence[x509.Certificate] = ()
        self._command = command
        self._read: tuple[tuple[int, int, int] | None, _Records] = (None, {})
        self.belongs_to(own)

    def belongs_to(self, own: Sequence[x509.Certificate]) -> None:
        """Say, also after a renewal, which certificate chain the owner has; authorities in it are pinned.

        Raises:
            VantageError: the file is not usable.
        """
        self._own = own[:1]
        organization = _organization_in(own[0]) if own else ""
        held = self.record(organization) if organization else None
        for certificate in own[1:]:
            if held is None or any(pin.certificate == certificate for pin in held.pins):
                continue
            with contextlib.suppress(VantageError):  # an intermediate, or whatever else stands in the file
                self.pin(organization, certificate, How.OWN)

    def record(self, organization: str) -> TrustRecord:
        """What is known of an organization; an empty record when nothing is."""
        return self._records().get(organization) or TrustRecord(organization)

    def records(self) -> list[TrustRecord]:
        """Everything that is known, by name."""
        return [each for _, each in sorted(self._records().items())]

    def certify(self, chain: Sequence[bytes], at: datetime) -> CertifiedName:
        """Who a certificate chain speaks for: the ``Certify`` of signed statements.

        Checks: (1) the leaf names an organization of which an authority is pinned, (2) the chain leads to one of them
        and to nobody else's, at that moment, (3) the leaf is not revoked: now, not at that moment, because whoever
        stole a key also chooses the moment.

        Args:
            chain: DER, leaf first.
            at: moment for which it must be valid.

        Raises:
            PermissionDeniedError: CERTIFICATE_UNTRUSTED, CERTIFICATE_REVOKED.
        """
        # (1)
        organization = _organization_of(chain)
        record = self.record(organization)
        if not record.roots:
            raise self._unknown(record)
        # (2)
        found = pki.verify_chain(chain, record.roots, at)
        # (3)
        if record.revocations is not None and record.revocations.revokes(found.certificate):
            serial = pki.serial_text(found.certificate)
            raise error(
                Reason.CERTIFICATE_REVOKED,
                f"the certificate of {found.name} with serial number {serial} was revoked by its organization",
                serial=serial,
            )
        return found

    def offer(self, bundle: Iterable[Told]) -> list[Change]:
        """Take what a server told of organizations; returns what that changed, for the owner to know.

        Organizations that it does not name keep what they have; so does anything that proves nothing.
        """

        def change(records: dict[str, TrustRecord], now: datetime) -> list[Change]:
            changes: list[Change] = []
            named = set()
            for told in bundle:
                name = told.organization
                if not names.is_valid(name, "organizations"):
                    continue
                named.add(name)
                record = records.get(name) or TrustRecord(name)
                own = [leaf for leaf in self._own if _organization_in(leaf) == name]
                records[name], news = record.told(told, own, self._first_use, now)
                changes += news
            for name in list(records):
                if is_empty(records[name]) or (
                    name not in named and not records[name].pins and not records[name].removed
                ):
                    del records[name]
            return changes

        return self._change(change)

    def pin(self, organization: str, certificate: x509.Certificate, how: How = How.FILE) -> TrustRecord:
        """Trust an authority of an organization.

        Raises:
            InvalidArgumentError: it is no authority of the organization.
        """
        names.parse(organization, "organizations", field="organization")

        def change(records: dict[str, TrustRecord], now: datetime) -> TrustRecord:
            record = records.get(organization) or TrustRecord(organization)
            records[organization] = record.pinned(certificate, how, now)
            return records[organization]

        return self._change(change)

    def confirm(self, organization: str, fingerprint: str) -> x509.Certificate:
        """Trust the offered authority that has a fingerprint, which the owner has from the organization itself.

        Raises:
            NotFoundError: none like that was offered.
        """
        wanted = normalize_fingerprint(fingerprint)
        record = self.record(organization)
        for certificate in (*record.offered, *(pin.certificate for pin in record.pins)):
            if pki.fingerprint(certificate) == wanted:
                self.pin(organization, certificate, How.FINGERPRINT)
                return certificate
        offered = ", ".join(pki.fingerprint(each) for each in record.offered) or "nothing"
        raise error(
            Reason.NOT_FOUND,
            f"no authority of {organization} with fingerprint {wanted} was offered ({offered} was): compare it with "
            "the organization by another way than this server, or give its certificate as a file",
        )

    def remove(self, organization: str, fingerprint: str | None = None) -> list[str]:
        """Trust an organization's authority, or all of them, no longer; returns their fingerprints.

        Raises:
            NotFoundError: there is none like that.
        """
        wanted = None if fingerprint is None else normalize_fingerprint(fingerprint)

        def change(records: dict[str, TrustRecord], now: datetime) -> list[str]:
            record = records.get(organization) or TrustRecord(organization)
            gone = [pin.fingerprint for pin in record.pins if wanted in (None, pin.fingerprint)]
            if not gone:
                raise error(Reason.NOT_FOUND, f"no such authority of {organization} is trusted: see '{self._command}'")
            records[organization] = record.without(gone)
            return gone

        return self._change(change)

    def outdated(self) -> list[str]:
        """Organizations whose revocation list is no longer current: what they revoked since is not known here."""
        now = self._clock.now()
        return [
            each.organization for each in self.records() if each.revocations is not None and not _is_current(each, now)
        ]

    def _unknown(self, record: TrustRecord) -> VantageError:
        short = record.organization.rpartition("/")[2]
        if record.pins:
            why = "it has told the server that those are no longer its authorities: ask its admin for the present one"
        elif record.offered:
            marks = " or ".join(pki.fingerprint(each) for each in record.offered)
            why = f"compare {marks} with what its admin says, then run '{self._command} add {short} --fingerprint ...'"
        else:
            why = f"get its certificate from its admin and run '{self._command} add {short} --certificate FILE'"
        return error(
            Reason.CERTIFICATE_UNTRUSTED,
            f"no authority of {record.organization} is trusted here: {why}",
            organization=record.organization,
        )

    def _records(self) -> _Records:
        """What the file says; read again only when it was replaced."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return {}
        except OSError as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"{self._path} cannot be read: {problem.strerror}", path=str(self._path)
            ) from problem
        mark = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._read[0] != mark:
            self._read = (mark, self._load())
        return self._read[1]

    def _load(self) -> dict[str, TrustRecord]:
        now = self._clock.now()
        try:
            document = json.loads(self._path.read_bytes())
            if document["version"] != _VERSION:
                raise ValueError("another version of vantage wrote it")
            return {name: TrustRecord.from_json(name, each, now) for name, each in document["organizations"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, VantageError) as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"{self._path} cannot be used ({problem}): bring it back from a backup, or move it away and decide "
                "again whom to trust",
                path=str(self._path),
            ) from problem

    def _change(self, change: Callable[[dict[str, TrustRecord], datetime], _T]) -> _T:
        with _locked(self._path):
            before = self._load() if self._path.exists() else {}
            records = dict(before)
            answer = change(records, self._clock.now())
            if records != before:
                document = {name: each.to_json() for name, each in sorted(records.items())}
                replace_private(self._path, json.dumps({"version": _VERSION, "organizations": document}, indent=1))
            return answer


def _is_current(record: TrustRecord, now: datetime) -> bool:
    try:
        if record.revocations is not None:
            check_current(record.revocations, now)
    except VantageError:
        return False
    return True


def _organization_of(chain: Sequence[bytes]) -> str:
    try:
        return _organization_in(x509.load_der_x509_certificate(chain[0]))
    except (*pki.MALFORMED, IndexError, VantageError):
        raise error(
            Reason.CERTIFICATE_UNTRUSTED, "the certificate is not trusted: it is malformed, or names no resource"
        ) from None


def _organization_in(certificate: x509.Certificate) -> str:
    """Who would have to vouch for a certificate."""
    return "/".join(pki.certified_name(certificate).split("/")[:2])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with filelock.FileLock(path.with_suffix(".lock"), mode=0o600):
            yield
    except OSError as problem:
        raise error(
            Reason.CONFIGURATION_INVALID, f"{path} cannot be written: {problem.strerror or problem}", path=str(path)
        ) from problem
