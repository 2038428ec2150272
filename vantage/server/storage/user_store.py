"""Users, their log-ins, and failed attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError

from vantage.common.errors import Reason, error
from vantage.server.domain.etags import etag_of
from vantage.server.domain.permissions import Owner, Reach
from vantage.server.domain.principals import LoginMethod, UserKind
from vantage.server.storage import schema, task_schema
from vantage.server.storage.reach_filter import in_reach

FORGET_FAILURES = timedelta(days=1)
"""After so long without an attempt the failures on a name count no more."""


@dataclass(frozen=True)
class User:
    """A user as stored; an empty ``password_hash`` means that no password is right."""

    name: str
    organization: str | None
    display_name: str
    password_hash: str
    roles: tuple[str, ...]
    created: datetime
    kind: UserKind = UserKind.PERSON

    @property
    def owner(self) -> Owner:
        """To whom it belongs; a user is their own "creator": scope own reaches oneself."""
        return Owner(organization=self.organization, creator=self.name)

    @property
    def etag(self) -> str:
        """Changes with what an update can change."""
        return etag_of(self.display_name, self.roles)


@dataclass(frozen=True)
class LoginSession:
    """A log-in as stored.

    Attributes:
        refresh_hash: of the latest refresh token.
        generation: how often it was replaced.
        created: when the user logged in.
        expires: when the latest refresh token ends.
        method: how the user proved who they are.
        peer: address that they came from.
        refreshed: when the refresh token was last replaced.
        previous_hash: of the refresh token before the latest.
        rotation_id: request id of the call that replaced it, when it carried one.
        certificate: serial number of the certificate of a log-in by key.
    """

    id: str
    user: str
    refresh_hash: bytes
    generation: int
    created: datetime
    expires: datetime
    method: LoginMethod = LoginMethod.PASSWORD
    peer: str = ""
    refreshed: datetime | None = None
    previous_hash: bytes | None = None
    rotation_id: str | None = None
    certificate: str | None = None


@dataclass(frozen=True)
class Lockout:
    """Failed attempts on one user name."""

    failures: int
    locked_until: datetime | None


def create(connection: Connection, user: User) -> None:
    """Insert a user.

    Raises:
        ConflictError: ALREADY_EXISTS.
    """
    try:
        connection.execute(
            insert(schema.user).values(
                name=user.name,
                organization=user.organization,
                display_name=user.display_name,
                password_hash=user.password_hash,
                created=user.created,
                kind=user.kind.value,
            )
        )
    except IntegrityError:
        raise error(Reason.ALREADY_EXISTS, f"{user.name} exists already: choose another user name") from None
    if user.roles:
        connection.execute(insert(schema.user_role), [{"user": user.name, "role": role} for role in user.roles])


def get(connection: Connection, name: str) -> User | None:
    """A user by resource name."""
    found = _load(connection, schema.user.c.name == name, 1)
    return found[0] if found else None


def list_users(
    connection: Connection, reach: Reach, organization: str | None, after: str | None, limit: int
) -> Sequence[User]:
    """Users in reach, by name."""
    table = schema.user.c
    # A user is their own "creator": scope own reaches oneself.
    conditions = [in_reach(reach, organization=table.organization, creator=table.name)]
    if organization is not None:
        conditions.append(table.organization == organization)
    if after is not None:
        conditions.append(table.name > after)
    return _load(connection, and_(*conditions), limit)


def left_something(connection: Connection, name: str) -> bool:
    """Whether anything says that a user of this name made it."""
    made = (
        task_schema.task.c.creator,
        task_schema.task.c.owner,
        task_schema.payload.c.uploader,
        schema.collaboration.c.creator,
        schema.study.c.creator,
        schema.role.c.creator,
    )
    return any(connection.execute(select(exists().where(column == name))).scalar_one() for column in made)


def set_details(connection: Connection, name: str, display_name: str, roles: Sequence[str]) -> None:
    """Replace display name and roles."""
    connection.execute(update(schema.user).where(schema.user.c.name == name).values(display_name=display_name))
    connection.execute(delete(schema.user_role).where(schema.user_role.c.user == name))
    if roles:
        connection.execute(insert(schema.user_role), [{"user": name, "role": role} for role in roles])


def set_password(connection: Connection, name: str, password_hash: str) -> None:
    """Replace the password's hash."""
    connection.execute(update(schema.user).where(schema.user.c.name == name).values(password_hash=password_hash))


def remove(connection: Connection, name: str) -> bool:
    """Delete a user with roles and log-ins; whether there was one."""
    return connection.execute(delete(schema.user).where(schema.user.c.name == name)).rowcount > 0


def open_session(connection: Connection, session: LoginSession) -> None:
    """Insert a log-in; remove what has expired."""
    connection.execute(delete(schema.login_session).where(schema.login_session.c.expires < session.created))
    connection.execute(
        insert(schema.login_session).values(
            id=session.id,
            user=session.user,
            refresh_hash=session.refresh_hash,
            generation=session.generation,
            created=session.created,
            expires=session.expires,
            method=session.method.value,
            peer=session.peer,
            certificate=session.certificate,
        )
    )


def get_session(connection: Connection, session_id: str) -> LoginSession | None:
    """A log-in by id."""
    found = _sessions(connection, schema.login_session.c.id == session_id, 1)
    return found[0] if found else None


def list_sessions(
    connection: Connection, user: str, now: datetime, after: str | None, limit: int
) -> list[LoginSession]:
    """Log-ins of a user that have not expired, the latest first: their ids sort by time."""
    table = schema.login_session.c
    condition = and_(table.user == user, table.expires > now)
    return _sessions(connection, condition if after is None else and_(condition, table.id < after), limit)


def rotate_session(
    connection: Connection,
    session: LoginSession,
    refresh_hash: bytes,
    rotation_id: str | None,
    now: datetime,
    expires: datetime,
) -> None:
    """Replace the refresh token of a log-in and remember which call did."""
    table = schema.login_session
    connection.execute(
        update(table)
        .where(table.c.id == session.id)
        .values(
            refresh_hash=refresh_hash,
            generation=session.generation + 1,
            expires=expires,
            refreshed=now,
            previous_hash=session.refresh_hash,
            rotation_id=rotation_id,
        )
    )


def end_sessions(
    connection: Connection,
    user: str,
    *,
    only: str | None = None,
    keep: str | None = None,
    method: LoginMethod | None = None,
) -> int:
    """End log-ins of a user: all, only one, all but one, or those that began in one way. Returns how many ended."""
    table = schema.login_session
    statement = delete(table).where(table.c.user == user)
    if only is not None:
        statement = statement.where(table.c.id == only)
    if keep is not None:
        statement = statement.where(table.c.id != keep)
    if method is not None:
        statement = statement.where(table.c.method == method.value)
    return connection.execute(statement).rowcount


def get_lockout(connection: Connection, username_hash: str) -> Lockout:
    """Failed attempts so far."""
    table = schema.lockout.c
    row = connection.execute(
        select(table.failures, table.locked_until).where(table.username_hash == username_hash)
    ).one_or_none()
    return Lockout(0, None) if row is None else Lockout(*row)


def set_lockout(connection: Connection, username_hash: str, lockout: Lockout, now: datetime) -> None:
    """Store failed attempts; forget those that are long past, most of them on names that nobody has."""
    table = schema.lockout
    connection.execute(delete(table).where(table.c.last_failure < now - FORGET_FAILURES))
    values = {"failures": lockout.failures, "locked_until": lockout.locked_until, "last_failure": now}
    connection.execute(
        upsert(schema.lockout)
        .values(username_hash=username_hash, **values)
        .on_conflict_do_update(index_elements=["username_hash"], set_=values)
    )


def clear_lockout(connection: Connection, username_hash: str) -> None:
    """Forget failed attempts after a success."""
    connection.execute(delete(schema.lockout).where(schema.lockout.c.username_hash == username_hash))


def use_assertion(connection: Connection, principal: str, jti: str, expires: datetime, now: datetime) -> bool:
    """Remember the id of an assertion; false when it was used before."""
    connection.execute(delete(schema.assertion_seen).where(schema.assertion_seen.c.expires < now))
    inserted = connection.execute(
        upsert(schema.assertion_seen)
        .values(principal=principal, jti=jti, expires=expires)
        .on_conflict_do_nothing(index_elements=["principal", "jti"])
    )
    return inserted.rowcount > 0


def _load(connection: Connection, condition: object, limit: int) -> list[User]:
    table = schema.user.c
    rows = connection.execute(
        select(table.name, table.organization, table.display_name, table.password_hash, table.created, table.kind)
        .where(condition)  # type: ignore[arg-type]
        .order_by(table.name)
        .limit(limit)
    ).all()
    roles: dict[str, list[str]] = {}
    names = [row.name for row in rows]
    for user, role in connection.execute(
        select(schema.user_role.c.user, schema.user_role.c.role)
        .where(schema.user_role.c.user.in_(names))
        .order_by(schema.user_role.c.role)
    ):
        roles.setdefault(user, []).append(role)
    return [
        User(
            row.name,
            row.organization,
            row.display_name,
            row.password_hash,
            tuple(roles.get(row.name, ())),
            row.created,
            UserKind(row.kind),
        )
        for row in rows
    ]


def _sessions(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[LoginSession]:
    table = schema.login_session.c
    rows = connection.execute(
        select(
            table.id,
            table.user,
            table.refresh_hash,
            table.generation,
            table.created,
            table.expires,
            table.method,
            table.peer,
            table.refreshed,
            table.previous_hash,
            table.rotation_id,
            table.certificate,
        )
        .where(condition)
        .order_by(table.id.desc())
        .limit(limit)
    ).all()
    return [LoginSession(*row[:6], LoginMethod(row[6]), *row[7:]) for row in rows]
