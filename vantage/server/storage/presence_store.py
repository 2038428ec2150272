"""Rows of presence: what each node said of itself when it last connected, and when it was last heard of."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from vantage.server.domain.session import Transport
from vantage.server.storage.task_schema import presence

_ALL = select(presence)
_DELETE = delete(presence).where(presence.c.node == bindparam("wanted"))
_INSERT = insert(presence)
_SEEN = update(presence).where(presence.c.node == bindparam("wanted")).values(last_seen=bindparam("seen"))


@dataclass(frozen=True, slots=True)
class Presence:
    """What is known of a node.

    Attributes:
        datasets: (name, format).
        transport: that of the open session, not kept.
        executor: what runs algorithms there, as the open session says; not kept.
        catalogue: what it shares of its datasets beyond that, as JSON; empty for nothing.
    """

    online: bool
    last_seen: datetime | None
    version: str
    datasets: tuple[tuple[str, str], ...]
    transport: Transport = Transport.UNKNOWN
    catalogue: str = ""
    executor: str = ""


UNKNOWN = Presence(False, None, "", ())


def load(connection: Connection) -> dict[str, Presence]:
    """All nodes that ever connected, none of them online."""
    return {
        row.node: Presence(
            False,
            row.last_seen,
            row.version,
            tuple((a, b) for a, b in json.loads(row.datasets)),
            catalogue=row.catalogue,
        )
        for row in connection.execute(_ALL)
    }


def save(connection: Connection, node: str, known: Presence) -> None:
    """Replace what is known of a node."""
    connection.execute(_DELETE, {"wanted": node})
    connection.execute(
        _INSERT,
        {
            "node": node,
            "last_seen": known.last_seen,
            "version": known.version,
            "datasets": json.dumps(known.datasets),
            "catalogue": known.catalogue,
        },
    )


def seen(connection: Connection, node: str, at: datetime) -> None:
    """Note when a node was last heard of."""
    connection.execute(_SEEN, {"wanted": node, "seen": at})
