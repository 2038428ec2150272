"""Rows of tasks."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, func, insert, or_, select, text, tuple_, update
from sqlalchemy.sql import ColumnElement

from vantage.server.domain.membership import Standing
from vantage.server.domain.permissions import Reach
from vantage.server.domain.runs import Run
from vantage.server.domain.tasks import OnFailure, Tally, Target, Task, TaskSpec, TaskState
from vantage.server.storage import schema
from vantage.server.storage.reach_filter import in_reach
from vantage.server.storage.task_schema import run, task

_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class Head:
    """What changes of a task while its runs move, and by what rules."""

    name: str
    state: TaskState
    closing: TaskState | None
    last_sequence: int
    open_runs: int
    succeeded: int
    unsuccessful: int
    quorum: int = 0
    on_failure: OnFailure = OnFailure.CONTINUE
    finished: datetime | None = None

    @property
    def tally(self) -> Tally:
        """How its runs stand."""
        return Tally(self.open_runs, self.succeeded, self.unsuccessful, self.quorum, self.on_failure)


@dataclass(frozen=True, slots=True)
class Listing:
    """Filter of a list; what is empty does not narrow."""

    collaboration: str = ""
    states: tuple[TaskState, ...] = ()
    creator: str = ""
    created_after: datetime | None = None


_INSERT = insert(task)
_SELECT = select(task)
_WEIGHED: Select[Any] = select(
    task.c.name,
    (func.length(task.c.signed_order) + func.coalesce(func.length(task.c.parent_orders), 0)).label("order_bytes"),
    (task.c.open_runs + task.c.succeeded_runs + task.c.unsuccessful_runs).label("runs"),
)
_SOME = _SELECT.where(task.c.name.in_(bindparam("wanted", expanding=True)))
_ONE = _SELECT.where(task.c.name == bindparam("wanted"))
_HEADS = select(
    task.c.name,
    task.c.state,
    task.c.closing,
    task.c.last_sequence,
    task.c.open_runs,
    task.c.succeeded_runs,
    task.c.unsuccessful_runs,
    task.c.quorum,
    task.c.on_failure,
)
_HEADS_LOCKED = _HEADS.where(task.c.name.in_(bindparam("wanted", expanding=True))).with_for_update()
_UPDATE = (
    update(task)
    .where(task.c.name == bindparam("b_name"))
    .values(
        state=bindparam("b_state"),
        closing=bindparam("b_closing"),
        finished=bindparam("b_finished"),
        last_sequence=bindparam("b_last_sequence"),
        open_runs=bindparam("b_open_runs"),
        succeeded_runs=bindparam("b_succeeded"),
        unsuccessful_runs=bindparam("b_unsuccessful"),
    )
)
_REQUESTS = select(task.c.creator, task.c.request_id, task.c.name, task.c.content_hash).where(
    tuple_(task.c.creator, task.c.request_id).in_(bindparam("wanted", expanding=True))
)
_MEMBERS = select(schema.member.c.organization, schema.member.c.state).where(
    schema.member.c.collaboration == bindparam("wanted"), schema.member.c.state != int(Standing.INVITED)
)
_ACTIVE = select(task.c.name, task.c.deadline).where(task.c.state == int(TaskState.ACTIVE))
_CHILDREN = select(task.c.name).where(
    task.c.parent_run.in_(bindparam("wanted", expanding=True)),
    task.c.state == int(TaskState.ACTIVE),
    task.c.detached.is_(False),
)
_ABOVE = select(task.c.name).where(task.c.name == bindparam("wanted")).cte("lineage", recursive=True)
_LINEAGE = _ABOVE.union(
    select(task.c.name)
    .select_from(_ABOVE)
    .join(run, run.c.task == _ABOVE.c.name)
    # As in the index, which would not be used without.
    .join(task, (task.c.parent_run == run.c.name) & text("task.parent_run <> ''"))
)
_ACTIVE_BELOW = select(task.c.name).where(
    # Not joined: there the planner may read all tasks and look each up in the lineage.
    task.c.name.in_(select(_LINEAGE.c.name)),
    task.c.state == int(TaskState.ACTIVE),
)


def insert_tasks(connection: Connection, tasks: Sequence[tuple[Task, str, bytes]]) -> None:
    """Insert new tasks, each with request id and content hash; runs are not included."""
    connection.execute(
        _INSERT,
        [
            {
                "name": each.name,
                "collaboration": each.spec.collaboration,
                "study": each.spec.study,
                "title": each.spec.title,
                "image": each.spec.image,
                "function": each.spec.function,
                "timeout": each.spec.timeout // _MICROSECOND,
                "signed_order": each.spec.order,
                "parent_orders": pack(each.spec.parent_orders),
                "parent_run": each.spec.parent_run,
                "depth": each.depth,
                "creator": each.creator,
                "creator_organization": each.creator_organization,
                "owner": each.owner,
                "owner_organization": each.owner_organization,
                "request_id": request_id,
                "content_hash": content_hash,
                "state": int(each.state),
                "closing": None,
                "created": each.created,
                "deadline": each.deadline,
                "finished": None,
                "last_sequence": each.last_sequence,
                "open_runs": len(each.runs),
                "succeeded_runs": 0,
                "unsuccessful_runs": 0,
                "quorum": each.spec.quorum,
                "on_failure": int(each.spec.on_failure),
                "max_runtime": each.spec.max_runtime // _MICROSECOND,
                "max_attempts": each.spec.max_attempts,
                "detached": each.spec.detached,
            }
            for each, request_id, content_hash in tasks
        ],
    )


def pack(orders: Sequence[bytes]) -> bytes | None:
    """Several envelopes as one value."""
    return json.dumps([base64.b64encode(each).decode() for each in orders]).encode() if orders else None


def unpack(value: bytes | None) -> tuple[bytes, ...]:
    """What ``pack`` has packed."""
    return tuple(base64.b64decode(each) for each in json.loads(value)) if value else ()


def find_requests(connection: Connection, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, bytes]]:
    """Tasks that earlier requests made: (creator, request id) -> (name, content hash)."""
    rows = connection.execute(_REQUESTS, {"wanted": list(keys)})
    return {(row.creator, row.request_id): (row.name, row.content_hash) for row in rows}


def members(connection: Connection, collaboration: str) -> dict[str, Standing]:
    """Members of a collaboration and where they stand, without the invited; empty when there is none of that name."""
    rows = connection.execute(_MEMBERS, {"wanted": collaboration})
    return {row.organization: Standing(row.state) for row in rows}


def lock_heads(connection: Connection, names: Iterable[str]) -> dict[str, Head]:
    """The changing parts of tasks, locked until the commit, so that their sequences have no gaps."""
    return {
        row.name: Head(
            row.name,
            TaskState(row.state),
            None if row.closing is None else TaskState(row.closing),
            row.last_sequence,
            row.open_runs,
            row.succeeded_runs,
            row.unsuccessful_runs,
            row.quorum,
            OnFailure(row.on_failure),
        )
        for row in connection.execute(_HEADS_LOCKED, {"wanted": sorted(names)})
    }


def update_heads(connection: Connection, heads: Iterable[Head]) -> None:
    """Write them back."""
    connection.execute(
        _UPDATE,
        [
            {
                "b_name": head.name,
                "b_state": int(head.state),
                "b_closing": None if head.closing is None else int(head.closing),
                "b_finished": head.finished,
                "b_last_sequence": head.last_sequence,
                "b_open_runs": head.open_runs,
                "b_succeeded": head.succeeded,
                "b_unsuccessful": head.unsuccessful,
            }
            for head in heads
        ],
    )


def get_task(connection: Connection, name: str) -> Row[tuple[object, ...]] | None:
    """The row of a task."""
    return connection.execute(_ONE, {"wanted": name}).one_or_none()


def get_tasks(connection: Connection, names: Sequence[str]) -> dict[str, Row[tuple[object, ...]]]:
    """Rows of tasks by name."""
    return {row._mapping["name"]: row for row in connection.execute(_SOME, {"wanted": names})}


def active_tasks(connection: Connection) -> list[tuple[str, datetime]]:
    """Tasks that have not ended, with their deadlines."""
    return [(row.name, row.deadline) for row in connection.execute(_ACTIVE)]


def active_children(connection: Connection, runs: Iterable[str]) -> list[str]:
    """Tasks that these runs created, that have not ended and that end with them."""
    return list(connection.execute(_CHILDREN, {"wanted": list(runs)}).scalars())


def active_from(connection: Connection, name: str) -> list[str]:
    """A task and all its descendants, as far as they have not ended; also below ended ones, and detached ones."""
    return list(connection.execute(_ACTIVE_BELOW, {"wanted": name}).scalars())


def list_tasks(
    connection: Connection, reach: Reach, listing: Listing, before: str | None, limit: int
) -> Sequence[Row[Any]]:
    """Tasks that are reached and match, newest first, below a name: name, ``order_bytes`` and number of ``runs``."""
    query = _WEIGHED.order_by(task.c.name.desc()).limit(limit)
    if not reach.everything:
        query = query.where(_reached(reach))
    if listing.collaboration:
        query = query.where(task.c.collaboration == listing.collaboration)
    if listing.states:
        query = query.where(task.c.state.in_([int(state) for state in listing.states]))
    if listing.creator:
        query = query.where(task.c.creator == listing.creator)
    if listing.created_after is not None:
        query = query.where(task.c.created >= listing.created_after)
    if before is not None:
        query = query.where(task.c.name < before)
    return connection.execute(query).all()


def _reached(reach: Reach) -> ColumnElement[bool]:
    condition = in_reach(
        reach, organization=task.c.owner_organization, collaboration=task.c.collaboration, creator=task.c.owner
    )
    if reach.organization is None:
        return condition
    # Tasks that it asked, and tasks that it was asked: both are its business.
    asked = select(run.c.name).where(run.c.task == task.c.name, run.c.organization == reach.organization)
    return or_(condition, asked.exists())


def build_task(row: Row[tuple[object, ...]], runs: Sequence[Run]) -> Task:
    """A task from its row and its runs; arguments are left out."""
    found = row._mapping
    spec = TaskSpec(
        found["collaboration"],
        found["title"],
        found["image"],
        found["function"],
        tuple(Target(each.organization, each.wanted_node, None, each.datasets) for each in runs),
        found["timeout"] * _MICROSECOND,
        found["parent_run"],
        found["signed_order"],
        unpack(found["parent_orders"]),
        found["study"],
        found["quorum"],
        OnFailure(found["on_failure"]),
        found["max_runtime"] * _MICROSECOND,
        found["max_attempts"],
        found["detached"],
    )
    return Task(
        found["name"],
        spec,
        TaskState(found["state"]),
        found["creator"],
        found["creator_organization"],
        found["owner"],
        found["owner_organization"],
        found["depth"],
        found["created"],
        found["deadline"],
        found["finished"],
        found["last_sequence"],
        tuple(runs),
    )
