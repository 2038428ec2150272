"""Tables of identity and administration. Times are microseconds since 1970 in UTC; names are resource names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    text,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Instant(TypeDecorator[datetime]):
    """A time as an integer of microseconds: the same in every database, sortable, no time zone to lose."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        return None if value is None else _EPOCH + value * _MICROSECOND


setting = Table(
    "setting",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
"""Facts about this server: audience, hash of the bootstrap token while it is unused."""

organization = Table(
    "organization",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("created", Instant, nullable=False),
)

organization_certificate = Table(
    "organization_certificate",
    metadata,
    Column("organization", ForeignKey("organization.name", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("pem", Text, nullable=False),
)

revocation_list = Table(
    "revocation_list",
    metadata,
    Column("organization", ForeignKey("organization.name", ondelete="CASCADE"), primary_key=True),
    Column("number", String(60), nullable=False),
    Column("signer", String(64), nullable=False),
    Column("content", LargeBinary, nullable=False),
)
"""The list in use of each organization. Its number may have 159 bits: kept as decimal text."""

revoked_certificate = Table(
    "revoked_certificate",
    metadata,
    Column("organization", ForeignKey("organization.name", ondelete="CASCADE"), primary_key=True),
    Column("serial", String(40), primary_key=True),
)
"""Entries of the list in use, hexadecimal."""

used_certificate = Table(
    "used_certificate",
    metadata,
    Column("holder", String(160), primary_key=True),
    Column("serial", String(40), primary_key=True),
    Column("authority", String(64), nullable=False),
    Column("not_before", Instant, nullable=False),
    Column("first_used", Instant, nullable=False),
)
"""Certificates that were shown here, by the name that they certify: the newest of a name ends the older ones."""

user = Table(
    "user_account",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("organization", ForeignKey("organization.name"), nullable=True, index=True),
    Column("display_name", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("created", Instant, nullable=False),
    Column("kind", Integer, nullable=False, server_default="1"),
)
"""Users; an empty ``password_hash`` means that no password is right."""

user_role = Table(
    "user_role",
    metadata,
    Column("user", ForeignKey("user_account.name", ondelete="CASCADE"), primary_key=True),
    Column("role", String(160), primary_key=True),
)

role = Table(
    "role",
    metadata,
    Column("name", String(160), primary_key=True),
    Column("organization", ForeignKey("organization.name"), nullable=True, index=True),
    Column("description", Text, nullable=False),
    Column("creator", String(160), nullable=False),
    Column("created", Instant, nullable=False),
)
"""Custom roles; those that come with the server are not stored."""

role_permission = Table(
    "role_permission",
    metadata,
    Column("role", ForeignKey("role.name", ondelete="CASCADE"), primary_key=True),
    Column("resource", Integer, primary_key=True),
    Column("operation", Integer, primary_key=True),
    Column("scope", Integer, nullable=False),
)

lockout = Table(
    "lockout",
    metadata,
    Column("username_hash", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("locked_until", Instant, nullable=True),
    Column("last_failure", Instant, nullable=False, index=True),
)
"""Failed log-ins by hash of the user name as typed: unknown users are counted like known ones."""

login_session = Table(
    "login_session",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("user", ForeignKey("user_account.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("refresh_hash", LargeBinary, nullable=False),
    Column("generation", Integer, nullable=False),
    Column("created", Instant, nullable=False),
    Column("expires", Instant, nullable=False, index=True),
    Column("method", Integer, nullable=False, server_default="1"),
    Column("peer", Text, nullable=False, server_default=""),
    Column("refreshed", Instant, nullable=True),
    Column("previous_hash", LargeBinary, nullable=True),
    Column("rotation_id", String(36), nullable=True),
    Column("certificate", String(71), nullable=True),
)
"""A log-in: its row is what makes its tokens work. Only hashes of the latest refresh token and of the one before are
kept, the latter with the request that used it. ``certificate`` is the fingerprint of the certificate that a log-in by
key showed."""

assertion_seen = Table(
    "assertion_seen",
    metadata,
    Column("principal", String(160), primary_key=True),
    Column("jti", String(100), primary_key=True),
    Column("expires", Instant, nullable=False, index=True),
)

collaboration = Table(
    "collaboration",
    metadata,
    Column("name", String(80), primary_key=True),
    Column("display_name", Text, nullable=False),
    Column("creator", String(160), nullable=False),
    Column("created", Instant, nullable=False),
)

member = Table(
    "member",
    metadata,
    Column("collaboration", ForeignKey("collaboration.name", ondelete="CASCADE"), primary_key=True),
    Column("organization", ForeignKey("organization.name"), primary_key=True, index=True),
    Column("state", Integer, nullable=False, default=2, server_default="2"),
    Column("invited_by", String(160), nullable=False, default="", server_default=""),
    Column("since", Instant, nullable=False, default=_EPOCH, server_default="0"),
)
"""Who was invited, and what became of it; states are those of ``membership.Standing``."""

study = Table(
    "study",
    metadata,
    Column("name", String(160), primary_key=True),
    Column("collaboration", ForeignKey("collaboration.name", ondelete="CASCADE"), nullable=False, index=True),
    Column("display_name", Text, nullable=False),
    Column("creator", String(160), nullable=False),
    Column("created", Instant, nullable=False),
)

study_organization = Table(
    "study_organization",
    metadata,
    Column("study", ForeignKey("study.name", ondelete="CASCADE"), primary_key=True),
    Column("organization", ForeignKey("organization.name"), primary_key=True, index=True),
)

node = Table(
    "node",
    metadata,
    Column("name", String(160), primary_key=True),
    Column("organization", ForeignKey("organization.name"), nullable=False, index=True),
    Column("created", Instant, nullable=False),
)

key_bundle = Table(
    "key_bundle",
    metadata,
    Column("holder", String(160), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("published", Instant, nullable=False),
)
"""The latest list of keys of each holder, as signed; the server only passes it on."""

node_collaboration = Table(
    "node_collaboration",
    metadata,
    Column("node", ForeignKey("node.name", ondelete="CASCADE"), primary_key=True),
    Column("collaboration", ForeignKey("collaboration.name", ondelete="CASCADE"), primary_key=True, index=True),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("time", Instant, nullable=False, index=True),
    Column("event", String(120), nullable=False),
    Column("decision", Integer, nullable=False),
    Column("reason", Text, nullable=False),
    Column("principal", String(160), nullable=False, index=True),
    Column("organization", String(80), nullable=False, index=True),
    Column("target", String(200), nullable=False, index=True),
    Column("peer", String(120), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("details", Text, nullable=False),
    Column("exported", Boolean, nullable=False, default=False, server_default="0"),
    sqlite_autoincrement=True,
)
"""Who asked what and what was decided; written with the change that it speaks of, never changed, never content."""
Index("ix_audit_exported", audit.c.exported, sqlite_where=text("NOT exported"), postgresql_where=text("NOT exported"))
