"""Which of many waiting runs a node gets: as the rule says of all of them, without reading all of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, Integer, LargeBinary, event, insert

from vantage.server.domain.fairness import choose
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.runs import RunState
from vantage.server.storage import assignment, schema, task_schema
from vantage.server.storage.database import sqlite_engine

ORGANIZATION, COLLABORATION, TASK = "organizations/alpha", "collaborations/lungs", "tasks/one"
ONE, TWO = (f"{ORGANIZATION}/nodes/{each}" for each in ("one", "two"))
NODE = NodePrincipal(ONE, ORGANIZATION, frozenset({COLLABORATION}))
QUEUED, HELD = int(RunState.QUEUED), int(RunState.RUNNING)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    made = sqlite_engine(Path(tmp_path_factory.mktemp("claims")) / "server.db")
    schema.metadata.create_all(made)
    now = datetime.now(UTC)
    with made.execution_options(writing=True).begin() as connection:
        connection.execute(insert(schema.organization).values(name=ORGANIZATION, display_name="", created=now))
        connection.execute(
            insert(schema.collaboration).values(name=COLLABORATION, display_name="", creator="", created=now)
        )
        connection.execute(insert(schema.member).values(collaboration=COLLABORATION, organization=ORGANIZATION))
        values: dict[str, object] = {
            column.name: b"" if isinstance(column.type, LargeBinary) else 0 if isinstance(column.type, Integer) else ""
            for column in task_schema.task.columns
            if not column.nullable and column.server_default is None
        }
        values |= {"name": TASK, "created": now, "deadline": now, "state": 1}
        connection.execute(insert(task_schema.task).values(values))
    yield made
    made.dispose()


def run(
    number: int, owner: str, node: str = "", state: int = QUEUED, collaboration: str = COLLABORATION
) -> dict[str, object]:
    return {
        "name": f"{TASK}/runs/{number:05}",
        "task": TASK,
        "position": number,
        "organization": ORGANIZATION,
        "collaboration": collaboration,
        "wanted_node": node,
        "datasets": "",
        "node": ONE if state == HELD else "",
        "state": state,
        "attempt": 0,
        "lease_id": "",
        "subtasks": 0,
        "owner": owner,
    }


def picked(connection: Connection, free: int) -> list[str]:
    return [str(row.name) for row in assignment._claimable(connection, NODE, free)]


RUNS = st.lists(
    st.tuples(
        st.sampled_from("aaabbcd"),
        st.sampled_from(["", "", "", ONE, TWO]),
        st.sampled_from([QUEUED] * 5 + [HELD]),
        st.sampled_from([COLLABORATION] * 5 + ["collaborations/other"]),
    ),
    min_size=15,
    max_size=60,
)


@given(RUNS, st.integers(1, 16))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_what_is_chosen_is_what_the_rule_says_of_all_that_wait(
    engine: Engine, runs: list[tuple[str, str, int, str]], free: int
) -> None:
    waiting: dict[str, list[str]] = {}
    held: dict[str, int] = {}
    with engine.execution_options(writing=True).connect() as connection:
        if rows := [run(number, *each) for number, each in enumerate(runs)]:
            connection.execute(insert(task_schema.run), rows)
        for row, (owner, node, state, collaboration) in zip(rows, runs, strict=True):
            if state == HELD:
                held[owner] = held.get(owner, 0) + 1
            elif node != TWO and collaboration == COLLABORATION:
                waiting.setdefault(owner, []).append(str(row["name"]))
        found = picked(connection, free)
        connection.rollback()
    fair = choose(waiting, held, free)
    # All that wait are handed out as they came.
    assert found == (fair if len(fair) == free else sorted(fair))


def test_many_in_whose_names_runs_wait_cost_few_statements(engine: Engine) -> None:
    statements: list[str] = []
    with engine.execution_options(writing=True).connect() as connection:
        rows = [run(number, f"users/{number % 100:03}") for number in range(300)]
        connection.execute(insert(task_schema.run), rows)
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert picked(connection, 150) == [row["name"] for row in rows[:150]]
        connection.rollback()
    assert len(statements) <= 6
