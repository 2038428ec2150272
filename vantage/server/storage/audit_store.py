"""Entries of the audit."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, insert, or_, select, text, update

from vantage.server.domain.audit import Entry, Verdict
from vantage.server.domain.permissions import Reach
from vantage.server.storage.reach_filter import in_reach
from vantage.server.storage.schema import audit

_INSERT = insert(audit)
_PENDING = select(audit).where(text("NOT exported")).order_by(audit.c.id).limit(bindparam("limit"))
_EXPORTED = update(audit).where(audit.c.id == bindparam("b_id")).values(exported=True)


@dataclass(frozen=True)
class Listing:
    """Filter of a list; what is empty does not narrow."""

    principal: str = ""
    organization: str = ""
    event: str = ""
    target: str = ""
    verdict: Verdict | None = None
    after: datetime | None = None
    before: datetime | None = None


def append(connection: Connection, entries: Sequence[Entry]) -> None:
    """Write entries, in the transaction of what they speak of."""
    if entries:
        connection.execute(
            _INSERT,
            [
                {
                    "time": each.time,
                    "event": each.event,
                    "decision": int(each.verdict),
                    "reason": each.reason,
                    "principal": each.principal,
                    "organization": each.organization,
                    "target": each.target,
                    "peer": each.peer,
                    "request_id": each.request_id,
                    "details": json.dumps(each.details, separators=(",", ":")) if each.details else "",
                    "exported": False,
                }
                for each in entries
            ],
        )


def pending(connection: Connection, limit: int) -> list[Entry]:
    """The oldest entries that are not in the file yet."""
    return [_entry(row) for row in connection.execute(_PENDING, {"limit": limit})]


def mark_exported(connection: Connection, ids: Sequence[int]) -> None:
    """These are in the file, durably."""
    connection.execute(_EXPORTED, [{"b_id": each} for each in ids])


def list_entries(connection: Connection, reach: Reach, listing: Listing, before: int | None, limit: int) -> list[Entry]:
    """Entries that are reached and match, newest first, below an id."""
    table = audit.c
    query = (
        select(audit)
        .where(in_reach(reach, organization=table.organization, creator=table.principal))
        .order_by(table.id.desc())
        .limit(limit)
    )
    for column, wanted in (
        (table.principal, listing.principal),
        (table.organization, listing.organization),
        (table.event, listing.event),
    ):
        if wanted:
            query = query.where(column == wanted)
    if listing.target:
        query = query.where(
            or_(table.target == listing.target, table.target.startswith(f"{listing.target}/", autoescape=True))
        )
    if listing.verdict is not None:
        query = query.where(table.decision == int(listing.verdict))
    if listing.after is not None:
        query = query.where(table.time >= listing.after)
    if listing.before is not None:
        query = query.where(table.time < listing.before)
    if before is not None:
        query = query.where(table.id < before)
    return [_entry(row) for row in connection.execute(query)]


def _entry(row: object) -> Entry:
    found = row._mapping  # type: ignore[attr-defined]
    return Entry(
        found["time"],
        found["event"],
        Verdict(found["decision"]),
        found["reason"],
        found["principal"],
        found["organization"],
        found["target"],
        found["peer"],
        found["request_id"],
        json.loads(found["details"]) if found["details"] else {},
        found["id"],
    )
