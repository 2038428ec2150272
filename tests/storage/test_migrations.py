"""The migrations make the tables that the stores use, and old rows survive them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CompoundSelect, Select, TextClause, text

from vantage.server.domain.runs import OPEN, RunState
from vantage.server.domain.tasks import OnFailure
from vantage.server.storage import run_store, schema, task_queries, task_store
from vantage.server.storage.database import sqlite_engine
from vantage.server.storage.migrate import alembic_config, migrate, newest

TASK = {
    **dict.fromkeys(("title", "function", "parent_run", "creator", "creator_organization", "owner"), ""),
    **dict.fromkeys(("name", "owner_organization", "request_id"), ""),
    **dict.fromkeys(("timeout", "depth", "created", "deadline", "open_runs", "succeeded_runs", "unsuccessful_runs"), 0),
    **dict.fromkeys(("signed_order", "content_hash"), b""),
    "collaboration": "collaborations/c",
    "image": "i",
    "state": 1,
    "last_sequence": 1,
}
RUN = {
    **dict.fromkeys(("name", "task", "collaboration", "wanted_node", "datasets", "node", "lease_id"), ""),
    "organization": "organizations/a",
    "position": 0,
    "state": 1,
    "attempt": 0,
    "subtasks": 0,
}
"""Columns of the release before, with values."""


def test_migrations_and_tables_agree(tmp_path: Path) -> None:
    migrate(tmp_path / "new.db")
    engine = sqlite_engine(tmp_path / "new.db")
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    engine.dispose()


def test_members_of_the_first_release_stay_members_and_rows_survive_up_and_down(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    migrate(path, "0001")
    engine = sqlite_engine(path)
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        connection.execute(text("INSERT INTO organization VALUES ('organizations/clara', 'Clara', 0)"))
        connection.execute(text("INSERT INTO collaboration VALUES ('collaborations/lungs', '', 'users/root', 0)"))
        connection.execute(text("INSERT INTO member VALUES ('collaborations/lungs', 'organizations/clara')"))
    migrate(path)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT organization, state FROM member")).all() == [("organizations/clara", 2)]
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        command.downgrade(alembic_config(connection), "0001")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT * FROM member")).all() == [
            ("collaborations/lungs", "organizations/clara")
        ]
    migrate(path)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == newest()
    engine.dispose()


def test_payloads_of_earlier_releases_count_for_the_organization_of_their_uploader(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    migrate(path, "0005")
    engine = sqlite_engine(path)
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        connection.execute(
            text("INSERT INTO organization (name, display_name, created) VALUES ('organizations/a', '', 0)")
        )
        connection.execute(
            text(
                "INSERT INTO user_account (name, organization, display_name, password_hash, created)"
                " VALUES ('users/rosa', 'organizations/a', '', '', 0), ('users/root', NULL, '', '', 0)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO node (name, organization, created)"
                " VALUES ('organizations/a/nodes/n', 'organizations/a', 0)"
            )
        )
        for number, uploader in enumerate(("users/rosa", "users/root", "organizations/a/nodes/n", "users/gone")):
            connection.execute(
                text("INSERT INTO payload VALUES (:name, :uploader, 'r', 1, 'd', 1, 0)"),
                {"name": f"payloads/{number}", "uploader": uploader},
            )
    migrate(path)
    with engine.connect() as connection:
        found = connection.execute(text("SELECT organization, removing FROM payload ORDER BY name")).all()
    engine.dispose()
    assert found == [("organizations/a", 0), ("", 0), ("organizations/a", 0), ("", 0)]


def test_tasks_of_earlier_releases_go_on_as_they_did_and_those_go_on_making_them(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    migrate(path, "0006")
    engine = sqlite_engine(path)

    def create(name: str) -> None:
        with engine.connect().execution_options(writing=True) as connection, connection.begin():
            connection.execute(insert_all("task", TASK), {**TASK, "name": name, "request_id": name[-36:]})
            connection.execute(insert_all("run", RUN), {**RUN, "task": name, "name": f"{name}/runs/1"})

    create("tasks/before")
    migrate(path)
    create("tasks/after")  # by a server of the release before, which is not updated yet
    with engine.connect() as connection:
        for name in ("tasks/before", "tasks/after"):
            found = task_queries.read_task(connection, name)
            assert found is not None
            assert (found.spec.quorum, found.spec.on_failure, found.spec.max_attempts) == (0, OnFailure.CONTINUE, 3)
            assert (found.spec.max_runtime, found.spec.detached) == (timedelta(0), False)
            assert (found.runs[0].max_attempts, found.runs[0].retry_time) == (3, None)
    engine.dispose()


def test_runs_that_have_not_ended_belong_to_those_who_asked_for_them_after_a_migration_too(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    migrate(path, "0008")
    engine = sqlite_engine(path)
    states = (RunState.QUEUED, RunState.ASSIGNED, RunState.RUNNING, RunState.SUCCEEDED)
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        connection.execute(insert_all("task", TASK), {**TASK, "name": "tasks/1", "owner": "users/rosa"})
        for state in states:
            row = {**RUN, "task": "tasks/1", "name": f"tasks/1/runs/{state}", "state": state, "position": state}
            connection.execute(insert_all("run", RUN), row)
    migrate(path)
    with engine.connect() as connection:
        runs = run_store.get_runs(connection, [f"tasks/1/runs/{state}" for state in states]).values()
        assert [run.owner for run in runs if run.state in OPEN] == ["users/rosa"] * 3
    with engine.connect().execution_options(writing=True) as connection, connection.begin():
        command.downgrade(alembic_config(connection), "0008")
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM run")).scalar_one() == len(states)
    engine.dispose()


def insert_all(table: str, columns: Iterable[str]) -> TextClause:
    names = list(columns)
    return text(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(f':{name}' for name in names)})")  # noqa: S608  # our own names


def plan_of(path: Path, query: Select[Any] | CompoundSelect[Any], *values: object) -> list[str]:
    migrate(path)
    engine = sqlite_engine(path)
    with engine.connect() as connection:
        text = str(query.compile(dialect=engine.dialect))
        plan = [str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)]
    engine.dispose()
    return plan


def test_counting_runs_reads_no_more_than_those_that_have_not_ended(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "new.db", run_store._COUNT_OPEN)
    assert "SCAN run" not in plan
    assert {line for line in plan if line.startswith("SCAN run")} == {
        "SCAN run USING INDEX ix_run_queued",
        "SCAN run USING INDEX ix_run_leased",
    }


def test_cancelling_reads_no_more_than_what_descends_from_the_task(tmp_path: Path) -> None:
    plan = plan_of(tmp_path / "new.db", task_store._ACTIVE_BELOW, "tasks/1", 1)
    assert any("ix_task_parent_run" in line for line in plan)
    assert not any(line.startswith(("SCAN task", "SCAN run")) for line in plan)
