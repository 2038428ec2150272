"""Queued runs that a node may take, and in whose names they wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    ColumnExpressionArgument,
    Connection,
    FromClause,
    Row,
    ScalarSelect,
    Select,
    bindparam,
    func,
    literal,
    select,
    text,
)

from vantage.server.domain.membership import Standing
from vantage.server.domain.principals import NodePrincipal
from vantage.server.storage.run_store import WORK
from vantage.server.storage.schema import member
from vantage.server.storage.task_schema import run, task

MAX_OWNERS = 200
"""Owners among whom is chosen at a time: each costs a look into an index."""

_ORGANIZATION: BindParameter[str] = bindparam("organization")
_COLLABORATIONS: BindParameter[str] = bindparam("collaborations", expanding=True)
_WANTED: BindParameter[str] = bindparam("wanted", expanding=True)


def _may_take(table: FromClause, alias: str) -> tuple[ColumnExpressionArgument[bool], ...]:
    return (
        table.c.organization == _ORGANIZATION,
        # A literal, as in the indexes: with a parameter the partial indexes would not be used.
        text(f"{alias}.state = 1"),
        table.c.retry_time.is_(None),
        table.c.wanted_node.in_(["", bindparam("node")]),
        table.c.collaboration.in_(_COLLABORATIONS),
        # Looked at in the transaction: what the node's session remembers may be older than a suspension.
        table.c.collaboration.in_(
            select(member.c.collaboration).where(
                member.c.organization == _ORGANIZATION, member.c.state == int(Standing.ACTIVE)
            )
        ),
    )


_CLAIMABLE = WORK.where(*_may_take(run, "run")).with_for_update(of=run, skip_locked=True)
_OLDEST = _CLAIMABLE.order_by(run.c.name).limit(bindparam("free"))
_OLDEST_OF_SUBTASKS = _OLDEST.where(task.c.parent_run != "")
_SOME = _CLAIMABLE.where(run.c.name.in_(_WANTED))


def _first_owner(after: ColumnElement[str] | None = None) -> Select[Any]:
    asked = run.alias("asked")
    query = select(func.min(asked.c.owner).label("owner")).where(
        asked.c.organization == _ORGANIZATION, text("asked.state = 1")
    )
    return query if after is None else query.where(asked.c.owner > after)


def _next_run(owner: ColumnElement[str], after: ColumnElement[str] | None = None) -> ScalarSelect[Any]:
    following = run.alias("following")
    query = select(following.c.name).where(*_may_take(following, "following"), following.c.owner == owner)
    if after is not None:
        query = query.where(following.c.name > after)
    return query.order_by(following.c.name).limit(1).scalar_subquery()


def _turns() -> Select[Any]:
    # From one owner to the next, and from one run of each to the next, over an index, however many wait.
    waiting = _first_owner().add_columns(literal(1).label("place")).cte("waiting", recursive=True)
    waiting = waiting.union_all(
        select(_first_owner(waiting.c.owner).scalar_subquery(), waiting.c.place + 1).where(
            waiting.c.owner.is_not(None), waiting.c.place < bindparam("most")
        )
    )
    owners = (
        select(waiting.c.owner)
        .where(waiting.c.owner.is_not(None))
        .union(select(run.c.owner).where(run.c.name.in_(_WANTED)))
        .cte("owners")
    )
    turn = select(owners.c.owner, _next_run(owners.c.owner).label("run"), literal(1).label("number")).cte(
        "turn", recursive=True
    )
    turn = turn.union_all(
        select(turn.c.owner, _next_run(turn.c.owner, turn.c.run), turn.c.number + 1).where(
            turn.c.run.is_not(None), turn.c.number < bindparam("depth")
        )
    )
    return select(turn.c.owner, turn.c.run).where(turn.c.run.is_not(None)).order_by(turn.c.run)


_TURNS = _turns()
_LEASED_BY_OWNER = (
    select(run.c.owner, func.count().label("number"))
    .where(run.c.node == bindparam("node"), text("state IN (2, 3)"))
    .group_by(run.c.owner)
)


def oldest(connection: Connection, node: NodePrincipal, free: int) -> Sequence[Row[Any]]:
    """The oldest runs that a node may take, with all that it needs to know."""
    return connection.execute(_OLDEST, _of(node) | {"free": free}).all()


def oldest_of_subtasks(connection: Connection, node: NodePrincipal, free: int) -> Sequence[Row[Any]]:
    """As ``oldest``, of the runs that another run has asked for."""
    return connection.execute(_OLDEST_OF_SUBTASKS, _of(node) | {"free": free}).all()


def some(connection: Connection, node: NodePrincipal, names: Sequence[str]) -> Sequence[Row[Any]]:
    """Those of given runs that a node may take, in any order."""
    return connection.execute(_SOME, _of(node) | {"wanted": names}).all()


def waiting(connection: Connection, node: NodePrincipal, also: Sequence[str], depth: int) -> dict[str, list[str]]:
    """Names of runs that a node may take, by owner, oldest first, ``depth`` of each owner at most.

    Args:
        also: names of runs whose owners are among the owners in any case; of the others ``MAX_OWNERS`` are looked at.
    """
    found: dict[str, list[str]] = {}
    wanted = {"wanted": also, "depth": depth, "most": MAX_OWNERS}
    for row in connection.execute(_TURNS, _of(node) | wanted):
        found.setdefault(row.owner, []).append(row.run)
    return found


def leased_by_owner(connection: Connection, node: NodePrincipal) -> dict[str, int]:
    """How many runs a node has of each owner."""
    return {row.owner: row.number for row in connection.execute(_LEASED_BY_OWNER, {"node": node.name})}


def _of(node: NodePrincipal) -> dict[str, Any]:
    return {"node": node.name, "organization": node.organization, "collaborations": sorted(node.collaborations)}
