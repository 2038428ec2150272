"""Rows of uploaded payloads; their bytes lie in files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Row, bindparam, insert, select, update

from vantage.server.storage.task_schema import ARGUMENTS, RESULT, content, payload, run, task

_COMPLETE = select(payload.c.name, payload.c.size, payload.c.digest).where(
    payload.c.name.in_(bindparam("wanted", expanding=True)),
    payload.c.uploader == bindparam("uploader"),
    payload.c.complete,
)


@dataclass(frozen=True, slots=True)
class StoredPayload:
    """An upload. ``created`` is when it began until it is complete, then when it ended."""

    name: str
    uploader: str
    request_id: str
    size: int
    digest: str
    complete: bool
    created: datetime


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


def find_or_insert(connection: Connection, new: StoredPayload) -> StoredPayload:
    """The upload that the same request began earlier, or this new one, inserted."""
    if (earlier := find_upload(connection, new.uploader, new.request_id)) is not None:
        return earlier
    connection.execute(
        insert(payload).values(
            name=new.name,
            uploader=new.uploader,
            request_id=new.request_id,
            size=new.size,
            digest=new.digest,
            complete=new.complete,
            created=new.created,
        )
    )
    return new


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
    return StoredPayload(row.name, row.uploader, row.request_id, row.size, row.digest, row.complete, row.created)
