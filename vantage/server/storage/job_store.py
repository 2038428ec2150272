"""Jobs, read from the rows of tasks and runs: up to the root, then down to all that descends from it."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, select

from vantage.server.domain.jobs import MAX_RUNS, Job
from vantage.server.storage import run_store
from vantage.server.storage.task_schema import run, task

_PARENT = select(task.c.parent_run).where(task.c.name == bindparam("wanted"))
_TASK_OF = select(run.c.task).where(run.c.name == bindparam("wanted"))
_CHILDREN = select(task.c.name).where(task.c.parent_run.in_(bindparam("wanted", expanding=True))).order_by(task.c.name)


def job_of(connection: Connection, name: str) -> Job | None:
    """The job of a run; of a large one the run's own task and, from the root down, as much as is listed."""
    own = connection.execute(_TASK_OF, {"wanted": name}).scalar()
    if own is None:
        return None
    root = own
    while parent := connection.execute(_PARENT, {"wanted": root}).scalar():
        root = connection.execute(_TASK_OF, {"wanted": parent}).scalar_one()
    runs = list(run_store.runs_of(connection, [own], results=False).get(own, []))
    level = [root]
    while level and len(runs) < MAX_RUNS:
        others = [each for each in level if each != own]
        found = run_store.runs_of(connection, others, results=False) if others else {}
        runs += [each for each_task in others for each in found.get(each_task, [])]
        parents = [each.name for each in runs if each.task in level]
        level = list(connection.execute(_CHILDREN, {"wanted": parents}).scalars()) if parents else []
    return Job(root, tuple(runs[:MAX_RUNS]))
