"""Rows of uploaded payloads; their bytes lie in a payload store."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.contents import Quota
from vantage.server.storage.task_schema import ARGUMENTS, RESULT, content, payload, run, task

_COMPLETE = select(payload.c.name, payload.c.size, payload.c.digest).where(
    payload.c.name.in_(bindparam("wanted", expanding=True)),
    payload.c.uploader == bindparam("uploader"),
    payload.c.complete,
)
_UNUSED = ~exists().where(content.c.reference == payload.c.name)


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """An upload. ``created`` is when it was last taken up, until it is complete, then when it ended.

    ``organization`` is whose quota it counts for, "" for users of the server itself. ``removing``: its bytes are about
    to go, and nobody can use it any more.
    """

    name: str
    uploader: str
    request_id: str
    size: int
    digest: str
    complete: bool
    created: datetime
    organization: str = ""
    removing: bool = False


@dataclass(frozen=True, slots=True)
class Use:
    """A run that refers to a payload, and the parties of its task."""

    arguments: bool
    run: str
    organization: str
    node: str
    collaboration: str
    creator: str
    owner: str
    owner_organization: str


def complete_of(connection: Connection, uploader: str, names: Iterable[str]) -> dict[str, tuple[int, str]]:
    """Complete uploads of somebody among these names: name -> (size, digest)."""
    rows = connection.execute(_COMPLETE, {"wanted": sorted(names), "uploader": uploader})
    return {row.name: (row.size, row.digest) for row in rows}


def find_or_insert(connection: Connection, new: StoredPayload, quota: Quota) -> StoredPayload:
    """The upload that the same request began earlier, taken up again, or this new one, inserted.

    Args:
        new: it.
        quota: of its organization.

    Raises:
        LimitExceededError: PAYLOAD_QUOTA_EXCEEDED.
    """
    if (earlier := find_upload(connection, new.uploader, new.request_id)) is not None:
        if not earlier.complete and not earlier.removing:
            connection.execute(update(payload).where(payload.c.name == earlier.name).values(created=new.created))
        return earlier
    _check_quota(connection, new, quota)
    connection.execute(
        insert(payload).values(
            name=new.name,
            uploader=new.uploader,
            request_id=new.request_id,
            size=new.size,
            digest=new.digest,
            complete=new.complete,
            created=new.created,
            organization=new.organization,
        )
    )
    return new


def unused(connection: Connection) -> list[tuple[str, datetime, bool]]:
    """Uploads that no task refers to, complete or not: name, ``created``, whether they are being removed already."""
    query = select(payload.c.name, payload.c.created, payload.c.removing).where(or_(_UNUSED, payload.c.removing))
    return [(row.name, row.created, row.removing) for row in connection.execute(query)]


def condemn(
    connection: Connection, names: Iterable[str], before: datetime
) -> tuple[list[str], list[tuple[str, datetime]]]:
    """Of these uploads, those to remove now: nobody can refer to them, read them or go on with them any more.

    What a task refers to, and what was taken up or completed after a moment, stays; the latter is named as well, with
    that moment, unless a task refers to it.
    """
    wanted = payload.c.name.in_(sorted(names))
    connection.execute(
        update(payload)
        .where(wanted, _UNUSED, payload.c.created <= before)
        .values(removing=True, complete=False)
        .execution_options(synchronize_session=False)
    )
    query = select(payload.c.name, payload.c.created, payload.c.removing).where(
        wanted, or_(_UNUSED, payload.c.removing)
    )
    rows = connection.execute(query).all()
    return [row.name for row in rows if row.removing], [(row.name, row.created) for row in rows if not row.removing]


def forget(connection: Connection, names: Iterable[str]) -> None:
    """Uploads whose bytes are gone."""
    connection.execute(delete(payload).where(payload.c.name.in_(sorted(names)), payload.c.removing))


def _check_quota(connection: Connection, new: StoredPayload, quota: Quota) -> None:
    theirs = payload.c.organization == new.organization
    whose = f"the payloads of {new.organization or 'the server'}"
    count = connection.execute(select(func.count()).where(theirs)).scalar_one()
    if count >= quota.count:
        raise _over_quota(f"{whose} are {count}, as many as it may have", quota.count, count)
    if quota.size is not None:
        used = int(connection.execute(select(func.coalesce(func.sum(payload.c.size), 0)).where(theirs)).scalar_one())
        if used + new.size > quota.size:
            told = f"{whose} have {used} bytes, and with this one more than the {quota.size} that it may have"
            raise _over_quota(told, quota.size, used)


def _over_quota(told: str, quota: int, used: int) -> VantageError:
    return error(
        Reason.PAYLOAD_QUOTA_EXCEEDED,
        f"{told}: send less, wait until uploads that no task refers to are removed, or ask the server's operator for "
        "more",
        quota=str(quota),
        used=str(used),
    )


def find_upload(connection: Connection, uploader: str, request_id: str) -> StoredPayload | None:
    """The upload that a request began."""
    query = select(payload).where(payload.c.uploader == uploader, payload.c.request_id == request_id)
    return _build(connection.execute(query).one_or_none())


def get_with_uses(connection: Connection, name: str) -> tuple[StoredPayload | None, list[Use]]:
    """An upload by name, and the runs that refer to it."""
    found = _build(connection.execute(select(payload).where(payload.c.name == name)).one_or_none())
    return found, [] if found is None else uses_of(connection, name)


def get_result(connection: Connection, name: str) -> tuple[StoredPayload | bytes | None, list[Use]]:
    """The result of a run, inline or uploaded, and that run."""
    mine = (content.c.run == name) & (content.c.kind == RESULT)
    found = connection.execute(select(content.c.inline, content.c.reference).where(mine)).one_or_none()
    if found is None:
        return None, []
    if found.reference is None:
        return found.inline, _uses(connection, mine)
    return get_with_uses(connection, found.reference)


def complete(connection: Connection, name: str, now: datetime) -> None:
    """Note that all bytes of an upload are durable and right."""
    connection.execute(update(payload).where(payload.c.name == name).values(complete=True, created=now))


def uses_of(connection: Connection, name: str) -> list[Use]:
    """Runs that refer to a payload."""
    return _uses(connection, content.c.reference == name)


def _uses(connection: Connection, condition: ColumnElement[bool]) -> list[Use]:
    query = (
        select(content.c.kind, run.c.name, run.c.organization, run.c.node, task)
        .select_from(content)
        .join(run, run.c.name == content.c.run)
        .join(task, task.c.name == run.c.task)
        .where(condition)
    )
    return [
        Use(
            row.kind == ARGUMENTS,
            row[1],
            row.organization,
            row.node,
            row.collaboration,
            row.creator,
            row.owner,
            row.owner_organization,
        )
        for row in connection.execute(query)
    ]


def _build(row: Row[tuple[object, ...]] | None) -> StoredPayload | None:
    if row is None:
        return None
    return StoredPayload(
        row.name,
        row.uploader,
        row.request_id,
        row.size,
        row.digest,
        row.complete,
        row.created,
        row.organization,
        row.removing,
    )
