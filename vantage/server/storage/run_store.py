"""Rows of runs, and what goes in and out of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, case, func, insert, select, text, union_all, update

from vantage.server.domain.contents import Failure, Payload
from vantage.server.domain.runs import Run, RunState
from vantage.server.storage.task_schema import ARGUMENTS, RESULT, content, run, task

MAX_INLINE_TOTAL = 8 * 1024 * 1024
"""Bytes of results that are read together: what holds them all must fit into a message, and into memory."""

_INSERT = insert(run)
_INSERT_CONTENT = insert(content)
_UPDATE = (
    update(run)
    .where(run.c.name == bindparam("b_name"))
    .values(
        node=bindparam("b_node"),
        state=bindparam("b_state"),
        attempt=bindparam("b_attempt"),
        lease_id=bindparam("b_lease_id"),
        failure_reason=bindparam("b_failure_reason"),
        failure_message=bindparam("b_failure_message"),
        failure_metadata=bindparam("b_failure_metadata"),
        assign_time=bindparam("b_assign_time"),
        start_time=bindparam("b_start_time"),
        finish_time=bindparam("b_finish_time"),
        statement=bindparam("b_statement"),
        retry_time=bindparam("b_retry_time"),
    )
)
_COUNT_SUBTASKS = (
    update(run).where(run.c.name == bindparam("b_name")).values(subtasks=run.c.subtasks + bindparam("b_more"))
)
_BY_NAME = select(run).where(run.c.name.in_(bindparam("wanted", expanding=True))).with_for_update()
_OF_TASKS = select(run).where(run.c.task.in_(bindparam("wanted", expanding=True))).order_by(run.c.task, run.c.position)
# The states are literals, as in the indexes: with parameters the partial indexes would not be used.
_OPEN_OF_TASKS = (
    select(run).where(run.c.task.in_(bindparam("wanted", expanding=True)), text("state IN (1, 2, 3)")).with_for_update()
)
_OPEN_AT = (
    select(run)
    .where(
        run.c.organization == bindparam("organization"),
        run.c.collaboration == bindparam("collaboration"),
        text("state IN (1, 2, 3)"),
    )
    .with_for_update()
)
_LEASED_TO = select(run).where(run.c.node == bindparam("wanted"), text("state IN (2, 3)")).with_for_update()
_HELD = select(run).where(text("state = 1"), run.c.retry_time.is_not(None))
_QUEUED_AT = select(run).where(text("state = 1"), run.c.organization.in_(bindparam("wanted", expanding=True)))
_NODES_WITH_LEASES = select(run.c.node).where(text("state IN (2, 3)")).distinct()
_INLINE_SO_FAR = func.sum(case((content.c.inline.is_not(None), content.c.size), else_=0)).over(order_by=content.c.run)
_RESULTS: Select[Any] = select(
    content.c.run,
    content.c.media_type,
    content.c.sealing,
    case((_INLINE_SO_FAR <= MAX_INLINE_TOTAL, content.c.inline)).label("inline"),
    func.coalesce(content.c.reference, case((_INLINE_SO_FAR > MAX_INLINE_TOTAL, content.c.run))).label("reference"),
    content.c.size,
    content.c.digest,
).where(content.c.run.in_(bindparam("wanted", expanding=True)), content.c.kind == RESULT)
# In two halves, each with its index: a scrape must not read the runs of all times.
_COUNT_OPEN = union_all(
    *(
        select(run.c.state, func.count().label("number")).where(text(some)).group_by(run.c.state)
        for some in ("state = 1", "state IN (2, 3)")
    )
)
WORK: Select[Any] = (
    select(
        run,
        task.c.title,
        task.c.image,
        task.c.function,
        task.c.timeout,
        task.c.parent_run,
        task.c.signed_order,
        task.c.parent_orders,
        task.c.creator,
        task.c.creator_organization,
        task.c.deadline,
        task.c.study,
        task.c.max_runtime,
        content.c.media_type,
        content.c.sealing,
        content.c.inline,
        content.c.reference,
        content.c.size,
        content.c.digest,
    )
    .select_from(run)
    .join(task, task.c.name == run.c.task)
    .outerjoin(content, (content.c.run == run.c.name) & (content.c.kind == ARGUMENTS))
)
"""Runs with all that their nodes need to know."""
_WORK_OF = WORK.where(run.c.name.in_(bindparam("wanted", expanding=True)))


def insert_runs(connection: Connection, runs: Sequence[Run]) -> None:
    """Insert new runs; their arguments are inserted by ``insert_contents``."""
    connection.execute(
        _INSERT,
        [
            {
                "name": each.name,
                "task": each.task,
                "position": each.position,
                "organization": each.organization,
                "collaboration": each.collaboration,
                "wanted_node": each.wanted_node,
                "datasets": json.dumps(each.datasets) if each.datasets else "",
                "subtasks": 0,
                "node": each.node,
                "state": int(each.state),
                "attempt": each.attempt,
                "lease_id": each.lease_id,
                "max_attempts": each.max_attempts,
                "owner": each.owner,
            }
            for each in runs
        ],
    )


def insert_contents(connection: Connection, contents: Sequence[tuple[str, int, Payload]]) -> None:
    """Insert arguments or results: (run, kind, payload)."""
    if contents:
        connection.execute(
            _INSERT_CONTENT,
            [
                {
                    "run": name,
                    "kind": kind,
                    "media_type": each.media_type,
                    "sealing": each.sealing,
                    "inline": each.inline,
                    "reference": each.reference,
                    "size": each.size,
                    "digest": each.digest,
                }
                for name, kind, each in contents
            ],
        )


def update_runs(connection: Connection, runs: Iterable[Run]) -> None:
    """Write changed runs back, without their results."""
    connection.execute(
        _UPDATE,
        [
            {
                "b_name": each.name,
                "b_node": each.node,
                "b_state": int(each.state),
                "b_attempt": each.attempt,
                "b_lease_id": each.lease_id,
                "b_failure_reason": None if each.failure is None else each.failure.reason,
                "b_failure_message": None if each.failure is None else each.failure.message,
                "b_failure_metadata": (
                    json.dumps(each.failure.metadata) if each.failure is not None and each.failure.metadata else None
                ),
                "b_assign_time": each.assign_time,
                "b_start_time": each.start_time,
                "b_finish_time": each.finish_time,
                "b_statement": each.statement or None,
                "b_retry_time": each.retry_time,
            }
            for each in runs
        ],
    )


def count_subtasks(connection: Connection, more: dict[str, int]) -> None:
    """Note that runs created subtasks."""
    connection.execute(_COUNT_SUBTASKS, [{"b_name": name, "b_more": number} for name, number in more.items()])


def get_runs(connection: Connection, names: Iterable[str]) -> dict[str, Run]:
    """Runs by name, locked in a unit that writes, without results."""
    return {row.name: build_run(row) for row in connection.execute(_BY_NAME, {"wanted": list(names)})}


def runs_of(connection: Connection, tasks: Iterable[str], *, results: bool) -> dict[str, list[Run]]:
    """Runs of tasks in the order of their targets."""
    found: dict[str, list[Run]] = {}
    rows = connection.execute(_OF_TASKS, {"wanted": list(tasks)}).all()
    kept = get_results(connection, [row.name for row in rows if row.state == RunState.SUCCEEDED]) if results else {}
    for row in rows:
        found.setdefault(row.task, []).append(build_run(row, kept.get(row.name)))
    return found


def open_runs_of(connection: Connection, tasks: Iterable[str]) -> list[Run]:
    """Runs of tasks that have not ended, locked."""
    return [build_run(row) for row in connection.execute(_OPEN_OF_TASKS, {"wanted": list(tasks)})]


def open_runs_at(connection: Connection, organization: str, collaboration: str) -> list[Run]:
    """Runs of an organization in a collaboration that have not ended."""
    return [
        build_run(row)
        for row in connection.execute(_OPEN_AT, {"organization": organization, "collaboration": collaboration})
    ]


def leased_to(connection: Connection, node: str) -> list[Run]:
    """Runs that a node holds, locked."""
    return [build_run(row) for row in connection.execute(_LEASED_TO, {"wanted": node})]


def held(connection: Connection) -> list[Run]:
    """Runs that wait in the queue before they are tried again."""
    return [build_run(row) for row in connection.execute(_HELD)]


def queued_at(connection: Connection, organizations: Iterable[str], limit: int) -> list[Run]:
    """Runs of organizations that wait in the queue, the oldest first."""
    rows = connection.execute(_QUEUED_AT.order_by(run.c.name).limit(limit), {"wanted": list(organizations)})
    return [build_run(row) for row in rows]


def nodes_with_leases(connection: Connection) -> list[str]:
    """Nodes that hold runs."""
    return list(connection.execute(_NODES_WITH_LEASES).scalars())


def count_open(connection: Connection) -> dict[RunState, int]:
    """How many runs have not ended, by state; states without any are left out."""
    return {RunState(row.state): row.number for row in connection.execute(_COUNT_OPEN)}


def work_of(connection: Connection, names: Iterable[str]) -> Sequence[Row[tuple[object, ...]]]:
    """Rows of ``WORK`` for given runs."""
    return connection.execute(_WORK_OF, {"wanted": list(names)}).all()


def get_results(connection: Connection, names: Sequence[str]) -> dict[str, Payload]:
    """Results of runs; inline ones beyond ``MAX_INLINE_TOTAL`` by reference to their run."""
    if not names:
        return {}
    return {row.run: build_payload(row) for row in connection.execute(_RESULTS, {"wanted": list(names)})}


def build_payload(row: Row[tuple[object, ...]]) -> Payload:
    """A payload from the columns of ``content``."""
    return Payload(row.media_type, row.sealing, row.inline, row.reference, row.size, row.digest)


def build_run(row: Row[tuple[object, ...]], result: Payload | None = None) -> Run:
    """A run from its row."""
    failure = None
    if row.failure_reason is not None:
        metadata = json.loads(row.failure_metadata) if row.failure_metadata else {}
        failure = Failure(row.failure_reason, row.failure_message, metadata)
    datasets = tuple((parameter, dataset) for parameter, dataset in json.loads(row.datasets)) if row.datasets else ()
    return Run(
        row.name,
        row.task,
        row.position,
        row.organization,
        row.wanted_node,
        row.node,
        RunState(row.state),
        row.attempt,
        row.lease_id,
        row.subtasks,
        datasets,
        result,
        failure,
        row.assign_time,
        row.start_time,
        row.finish_time,
        row.statement or b"",
        row.max_attempts,
        row.retry_time,
        row.owner,
        row.collaboration,
    )
