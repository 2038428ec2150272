"""What the server knows of certificates: revocation lists, which were shown here, and whether one still counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from sqlalchemy import Connection, delete, exists, func, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert

from vantage.common import pki
from vantage.common.errors import Reason, VantageError, error
from vantage.common.revocation import RevocationList
from vantage.server.storage import organization_store, schema

_list = schema.revocation_list.c
_revoked = schema.revoked_certificate.c
_used = schema.used_certificate.c


@dataclass(frozen=True)
class StoredList:
    """A revocation list as stored."""

    number: int
    signer: str
    content: bytes


def authorities(connection: Connection, organization: str) -> list[x509.Certificate]:
    """Certificates of an organization's authorities; none when it does not exist."""
    pems = organization_store.certificates(connection, organization)
    return [each for pem in pems for each in pki.load_certificates(pem)]


def revocations(connection: Connection, organization: str) -> StoredList | None:
    """The revocation list in use."""
    row = connection.execute(
        select(_list.number, _list.signer, _list.content).where(_list.organization == organization)
    ).one_or_none()
    return None if row is None else StoredList(int(row.number), row.signer, row.content)


def set_revocations(connection: Connection, organization: str, found: RevocationList) -> None:
    """Replace the revocation list of an organization."""
    values = {"number": str(found.number), "signer": found.signer, "content": found.der}
    connection.execute(
        upsert(schema.revocation_list)
        .values(organization=organization, **values)
        .on_conflict_do_update(index_elements=["organization"], set_=values)
    )
    connection.execute(delete(schema.revoked_certificate).where(_revoked.organization == organization))
    if found.serials:
        connection.execute(
            insert(schema.revoked_certificate),
            [{"organization": organization, "serial": f"{serial:x}"} for serial in found.serials],
        )


def use(
    connection: Connection, holder: str, certificate: x509.Certificate, authority: x509.Certificate, now: datetime
) -> None:
    """Note that a certificate is being used, or say why it does not count.

    A certificate counts from its first use: from then on those of the same name that are older are refused.

    Raises:
        PermissionDeniedError: CERTIFICATE_REVOKED or CERTIFICATE_SUPERSEDED.
    """
    serial, not_before = pki.serial_text(certificate), certificate.not_valid_before_utc
    if _is_revoked(connection, holder, serial):
        raise _revoked_error(holder, serial)
    rows = connection.execute(select(_used.serial, _used.not_before, _used.first_used).where(_used.holder == holder))
    ranks = {row.serial: (row.not_before, row.first_used) for row in rows}
    own = ranks.get(serial, (not_before, now))
    if any(rank > own for rank in ranks.values()):
        raise error(
            Reason.CERTIFICATE_SUPERSEDED,
            f"a newer certificate of {holder} has been used: the one with serial number {serial} no longer counts; "
            "use the newer one, or ask your organization's admin for another",
            serial=serial,
        )
    if serial not in ranks:
        connection.execute(
            insert(schema.used_certificate).values(
                holder=holder,
                serial=serial,
                authority=pki.key_id(authority),
                not_before=not_before,
                first_used=now,
            )
        )


def standing(connection: Connection, holder: str, serial: str) -> VantageError | None:
    """Why a certificate that was shown here counts no longer; None when it does.

    That a newer one has been used is no reason here: what the older one opened may go on until it ends.
    """
    if _is_revoked(connection, holder, serial):
        return _revoked_error(holder, serial)
    authority = connection.execute(
        select(_used.authority).where(_used.holder == holder, _used.serial == serial)
    ).scalar_one_or_none()
    organization = organization_of(holder)
    if authority is None or authority not in {pki.key_id(each) for each in authorities(connection, organization)}:
        return error(
            Reason.CERTIFICATE_UNTRUSTED,
            f"the authority that issued the certificate of {holder} is no longer one of {organization}: ask its admin "
            "for a certificate of the present one",
        )
    return None


def organization_of(holder: str) -> str:
    """The organization that certifies a name."""
    return "/".join(holder.split("/")[:2])


def lists(connection: Connection, organizations: Sequence[str]) -> dict[str, bytes]:
    """Revocation lists in use, DER."""
    rows = connection.execute(
        select(_list.organization, _list.content).where(_list.organization.in_(list(organizations)))
    )
    return {row.organization: row.content for row in rows}


def list_sizes(connection: Connection, organizations: Sequence[str]) -> dict[str, int]:
    """Bytes of revocation lists in use."""
    rows = connection.execute(
        select(_list.organization, func.length(_list.content).label("size")).where(
            _list.organization.in_(list(organizations))
        )
    )
    return {row.organization: int(row.size) for row in rows}


def _is_revoked(connection: Connection, holder: str, serial: str) -> bool:
    found = exists().where(_revoked.organization == organization_of(holder), _revoked.serial == serial)
    return bool(connection.execute(select(found)).scalar_one())


def _revoked_error(holder: str, serial: str) -> VantageError:
    return error(
        Reason.CERTIFICATE_REVOKED,
        f"the certificate of {holder} with serial number {serial} was revoked by its organization: ask its admin for "
        "another",
        serial=serial,
    )
