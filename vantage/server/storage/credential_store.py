"""One-time codes, recovery codes, identities at a provider, and reset tokens."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, delete, func, insert, literal, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from vantage.server.storage import credential_schema as schema
from vantage.server.storage.schema import Instant

_code = schema.one_time_code.c
_recovery = schema.recovery_code.c
_link = schema.identity_link.c
_reset = schema.password_reset.c


@dataclass(frozen=True)
class OneTimeCode:
    """An enrolment as stored; it counts once it is confirmed."""

    sealed_secret: bytes
    confirmed: datetime | None
    last_step: int


@dataclass(frozen=True)
class Identity:
    """Somebody at an identity provider, and the user whom they are."""

    issuer: str
    subject: str
    user: str
    created: datetime


def get_one_time_code(connection: Connection, user: str) -> OneTimeCode | None:
    """The enrolment of a user, confirmed or not."""
    row = connection.execute(
        select(_code.sealed_secret, _code.confirmed, _code.last_step).where(_code.user == user)
    ).one_or_none()
    return None if row is None else OneTimeCode(*row)


def begin_one_time_code(connection: Connection, user: str, sealed_secret: bytes, now: datetime) -> None:
    """Store an enrolment that is not confirmed, in place of an earlier one."""
    values = {"sealed_secret": sealed_secret, "created": now, "confirmed": None, "last_step": 0}
    connection.execute(
        upsert(schema.one_time_code)
        .values(user=user, **values)
        .on_conflict_do_update(index_elements=["user"], set_=values)
    )


def use_step(connection: Connection, user: str, step: int, *, confirmed: datetime) -> bool:
    """Remember the step of an accepted code, and that the enrolment is confirmed; false when it was used meanwhile."""
    statement = (
        update(schema.one_time_code)
        .where(_code.user == user, _code.last_step < step)
        .values(last_step=step, confirmed=func.coalesce(_code.confirmed, literal(confirmed, Instant())))
    )
    return connection.execute(statement).rowcount > 0


def remove_one_time_code(connection: Connection, user: str) -> bool:
    """Delete enrolment and recovery codes; whether there was an enrolment."""
    connection.execute(delete(schema.recovery_code).where(_recovery.user == user))
    return connection.execute(delete(schema.one_time_code).where(_code.user == user)).rowcount > 0


def any_one_time_code(connection: Connection) -> bool:
    """Whether any secret is stored."""
    return connection.execute(select(_code.user).limit(1)).first() is not None


def set_recovery_codes(connection: Connection, user: str, hashes: Iterable[bytes]) -> None:
    """Replace the recovery codes of a user."""
    connection.execute(delete(schema.recovery_code).where(_recovery.user == user))
    connection.execute(insert(schema.recovery_code), [{"user": user, "code_hash": each} for each in hashes])


def use_recovery_code(connection: Connection, user: str, code_hash: bytes) -> bool:
    """Use up a recovery code; false when there is no such code."""
    statement = delete(schema.recovery_code).where(_recovery.user == user, _recovery.code_hash == code_hash)
    return connection.execute(statement).rowcount > 0


def count_recovery_codes(connection: Connection, user: str) -> int:
    """How many recovery codes are left."""
    return connection.execute(
        select(func.count()).select_from(schema.recovery_code).where(_recovery.user == user)
    ).scalar_one()


def link_identity(connection: Connection, identity: Identity) -> Identity:
    """Link an identity; returns the link that stands, which is an earlier one when there is one."""
    connection.execute(
        upsert(schema.identity_link)
        .values(issuer=identity.issuer, subject=identity.subject, user=identity.user, created=identity.created)
        .on_conflict_do_nothing(index_elements=["issuer", "subject"])
    )
    standing = get_identity(connection, identity.issuer, identity.subject)
    return standing or identity


def get_identity(connection: Connection, issuer: str, subject: str) -> Identity | None:
    """The link of an identity."""
    found = _identities(connection, and_(_link.issuer == issuer, _link.subject == subject))
    return found[0] if found else None


def identities_of(connection: Connection, user: str) -> list[Identity]:
    """The identities of a user."""
    return _identities(connection, _link.user == user)


def unlink_identity(connection: Connection, user: str, issuer: str, subject: str) -> bool:
    """Remove a link of a user; whether there was one."""
    statement = delete(schema.identity_link).where(_link.user == user, _link.issuer == issuer, _link.subject == subject)
    return connection.execute(statement).rowcount > 0


def issue_reset(connection: Connection, user: str, token_hash: bytes, expires: datetime) -> None:
    """Store the reset token of a user in place of an earlier one."""
    values = {"token_hash": token_hash, "expires": expires}
    connection.execute(
        upsert(schema.password_reset)
        .values(user=user, **values)
        .on_conflict_do_update(index_elements=["user"], set_=values)
    )


def reset_user(connection: Connection, token_hash: bytes, now: datetime) -> str | None:
    """Whose reset token this is, unless it has expired."""
    return connection.execute(
        select(_reset.user).where(_reset.token_hash == token_hash, _reset.expires > now)
    ).scalar_one_or_none()


def remove_reset(connection: Connection, user: str) -> None:
    """Delete the reset token of a user."""
    connection.execute(delete(schema.password_reset).where(_reset.user == user))


def _identities(connection: Connection, condition: object) -> list[Identity]:
    rows = connection.execute(
        select(_link.issuer, _link.subject, _link.user, _link.created)
        .where(condition)  # type: ignore[arg-type]
        .order_by(_link.issuer, _link.subject)
    ).all()
    return [Identity(*row) for row in rows]
