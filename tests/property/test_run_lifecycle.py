"""Runs and leases under any order of events, against a small model: one effect, no gaps, no way back from an end."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import insert, select

from vantage.common import names
from vantage.server.domain.contents import inline_payload
from vantage.server.domain.leases import Report
from vantage.server.domain.permissions import Reach
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.runs import MAX_ATTEMPTS, OPEN, Lease, RunEvent, RunState
from vantage.server.domain.tasks import Target, Task, TaskSpec, TaskState
from vantage.server.storage import assignment, lifecycle, schema, task_queries, task_schema
from vantage.server.storage.creation import Asker, Request, create_tasks
from vantage.server.storage.database import sqlite_engine
from vantage.server.storage.lifecycle import Changes

COLLABORATION, ORGANIZATION = "collaborations/c1", "organizations/alpha"
NODES = [f"{ORGANIZATION}/nodes/{name}" for name in ("one", "two")]
SPEC = TaskSpec(
    COLLABORATION,
    "",
    "r/i@sha256:" + "00" * 32,
    "f",
    (Target(ORGANIZATION, "", None, ()),),
    timedelta(0),
    "",
    b"",
)
RESULT = inline_payload(b"1", "application/json", 1, 10, "result")


class Lifecycle(RuleBasedStateMachine):
    """Drives the units of work as the sessions do, with every lease that was ever given."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.engine = sqlite_engine(Path(self.directory.name) / "model.db")
        schema.metadata.create_all(self.engine)
        self.now = datetime(2026, 11, 1, tzinfo=UTC)
        with self.engine.begin() as connection:
            connection.execute(insert(schema.organization).values(name=ORGANIZATION, display_name="", created=self.now))
            connection.execute(
                insert(schema.collaboration).values(name=COLLABORATION, display_name="", creator="", created=self.now)
            )
            connection.execute(insert(schema.member).values(collaboration=COLLABORATION, organization=ORGANIZATION))
        self.given: list[tuple[str, Lease]] = []
        self.final: dict[str, RunState] = {}
        self.results: dict[str, int] = {}
        self.tasks: list[str] = []

    def teardown(self) -> None:
        self.engine.dispose()
        self.directory.cleanup()

    def note(self, changes: Changes) -> None:
        self.given += [(node, work.lease) for node, work in changes.assigned if (node, work.lease) not in self.given]

    @precondition(lambda self: len(self.tasks) < 4)
    @rule()
    def create(self) -> None:
        asker = Asker("users/rosa", ORGANIZATION, Reach(everything=True))
        request = Request(asker, names.new_id(), b"", SPEC, f"tasks/{names.new_id()}")
        with self.engine.begin() as connection:
            outcomes = create_tasks(connection, Changes(), [request, request], self.now)
        assert isinstance(outcomes[0], Task)
        assert not isinstance(outcomes[1], Task)
        self.tasks.append(request.name)

    @rule(node=st.sampled_from(NODES), free=st.integers(1, 3))
    def claim(self, node: str, free: int) -> None:
        changes = Changes()
        principal = NodePrincipal(node, ORGANIZATION, frozenset({COLLABORATION}))
        with self.engine.begin() as connection:
            assert assignment.claim(connection, changes, principal, free, self.now) <= free
        self.note(changes)

    @precondition(lambda self: self.given)
    @rule(
        data=st.data(),
        node=st.sampled_from(NODES),
        events=st.lists(
            st.sampled_from([RunEvent.START, RunEvent.SUCCEED, RunEvent.FAIL, RunEvent.REFUSE, RunEvent.STOP]),
            min_size=1,
            max_size=3,
        ),
    )
    def report(self, data: st.DataObject, node: str, events: list[RunEvent]) -> None:
        _owner, lease = data.draw(st.sampled_from(self.given))
        reports = [Report(lease, event, RESULT if event is RunEvent.SUCCEED else None) for event in events]
        with self.engine.begin() as connection:
            before = task_queries.read_task(connection, lease.run.rpartition("/runs/")[0])
            stale = assignment.apply_reports(connection, Changes(), node, reports, self.now)
            after = task_queries.read_task(connection, lease.run.rpartition("/runs/")[0])
        assert before is not None
        held = before.runs[0].node == node and before.runs[0].lease == lease
        assert bool(stale) != held
        if not held:
            assert after == before

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        node, lease = data.draw(st.sampled_from(self.given))
        with self.engine.begin() as connection:
            lifecycle.lose(connection, Changes(), node, [lease], self.now)

    @rule(node=st.sampled_from(NODES), data=st.data())
    def come_back(self, node: str, data: st.DataObject) -> None:
        own = [lease for owner, lease in self.given if owner == node]
        claimed = data.draw(st.lists(st.sampled_from(own), unique=True)) if own else []
        changes = Changes()
        with self.engine.begin() as connection:
            found = assignment.come_back(connection, changes, node, claimed, self.now)
        valid = {*found.kept, *(run.lease for run in found.resumed)}
        assert valid | set(found.revoked) == set(claimed)
        self.note(changes)

    @precondition(lambda self: self.tasks)
    @rule(data=st.data(), expire=st.booleans())
    def close(self, data: st.DataObject, expire: bool) -> None:
        name = data.draw(st.sampled_from(self.tasks))
        with self.engine.begin() as connection:
            if expire:
                task_queries.expire_tasks(connection, Changes(), [name], self.now)
            else:
                task_queries.cancel_task(connection, Changes(), name, self.now)

    @invariant()
    def nothing_comes_back_and_nothing_happens_twice(self) -> None:
        with self.engine.connect() as connection:
            for name in self.tasks:
                task = task_queries.read_task(connection, name)
                assert task is not None
                run = task.runs[0]
                if name in self.final:
                    assert run.state is self.final[name]
                elif run.state not in OPEN:
                    self.final[name] = run.state
                assert (task.state is TaskState.ACTIVE) == (run.state in OPEN)
                assert (run.result is not None) == (run.state is RunState.SUCCEEDED)
                assert run.attempt <= MAX_ATTEMPTS
                event = task_schema.event
                sequences = connection.execute(
                    select(event.c.sequence).where(event.c.task == name).order_by(event.c.sequence)
                ).scalars()
                assert list(sequences) == list(range(2, task.last_sequence + 1))


Lifecycle.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestLifecycle = Lifecycle.TestCase
