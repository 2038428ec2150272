"""Rows of published lists of keys."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, and_, bindparam, delete, insert, select

from vantage.common.errors import Reason, error
from vantage.server.storage import schema

_keys = schema.key_bundle.c
_ONE = select(schema.key_bundle).where(_keys.holder == bindparam("wanted"))
_VERSIONS = select(_keys.holder, _keys.version).where(_keys.holder.in_(bindparam("wanted", expanding=True)))
_DELETE = delete(schema.key_bundle).where(_keys.holder == bindparam("wanted"))
_INSERT = insert(schema.key_bundle)


@dataclass(frozen=True, slots=True)
class PublishedKeys:
    """The latest list of keys of a holder, as signed."""

    holder: str
    version: int
    envelope: bytes


def get(connection: Connection, holder: str) -> PublishedKeys | None:
    """The list of a holder."""
    row = connection.execute(_ONE, {"wanted": holder}).one_or_none()
    return None if row is None else PublishedKeys(row.holder, row.version, row.envelope)


def put(connection: Connection, keys: PublishedKeys, now: datetime) -> PublishedKeys:
    """Publish a list in place of the one before; the same again is harmless.

    Raises:
        RefusedError: KEYS_STALE: a newer version, or another list of the same version, is published.
    """
    known = get(connection, keys.holder)
    if known is not None and known.version >= keys.version:
        if known == keys:
            return known
        raise error(
            Reason.KEYS_STALE,
            f"version {known.version} of the keys of {keys.holder} is published: sign a list with a higher version",
            holder=keys.holder,
            version=str(known.version),
        )
    connection.execute(_DELETE, {"wanted": keys.holder})
    connection.execute(
        _INSERT, {"holder": keys.holder, "version": keys.version, "envelope": keys.envelope, "published": now}
    )
    return keys


def remove(connection: Connection, holder: str) -> None:
    """Forget the list of a holder that is no more."""
    connection.execute(_DELETE, {"wanted": holder})


def check_versions(connection: Connection, versions: Sequence[tuple[str, int]]) -> None:
    """Refuse payloads that are sealed to keys that are not the latest.

    The check spares a round trip, not trust: a node that cannot open its arguments refuses the run by itself.

    Raises:
        RefusedError: KEYS_STALE, with the holder.
    """
    if not versions:
        return
    rows = connection.execute(_VERSIONS, {"wanted": sorted({holder for holder, _version in versions})})
    latest = {row.holder: row.version for row in rows}
    for holder, version in versions:
        if latest.get(holder) != version:
            raise error(
                Reason.KEYS_STALE,
                f"the keys of {holder} have changed: fetch them again (ListNodeKeys), and seal the arguments anew",
                holder=holder,
                version=str(latest.get(holder, 0)),
            )


def list_of_nodes(
    connection: Connection, collaboration: str, organizations: Iterable[str], after: str | None, limit: int
) -> list[PublishedKeys]:
    """Lists of the nodes that serve a collaboration, by holder; of all its members when no organization is named."""
    node, serves, member = schema.node.c, schema.node_collaboration.c, schema.member.c
    query = (
        select(_keys.holder, _keys.version, _keys.envelope)
        .select_from(schema.key_bundle)
        .join(schema.node, node.name == _keys.holder)
        .join(schema.node_collaboration, and_(serves.node == node.name, serves.collaboration == collaboration))
        .join(
            schema.member, and_(member.organization == node.organization, member.collaboration == serves.collaboration)
        )
        .order_by(_keys.holder)
        .limit(limit)
    )
    wanted = sorted(set(organizations))
    if wanted:
        query = query.where(node.organization.in_(wanted))
    if after is not None:
        query = query.where(_keys.holder > after)
    return [PublishedKeys(row.holder, row.version, row.envelope) for row in connection.execute(query)]
