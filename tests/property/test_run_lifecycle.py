"""Runs, leases and tasks under any order of events, in the real store and by the real rules, against a small model."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import Connection, insert, select

from tests.property.lifecycle_model import Model, ModelRun, ModelTask
from vantage.common import names
from vantage.common.clock import ManualClock
from vantage.common.retries import MENDABLE
from vantage.server.domain.contents import Failure, inline_payload
from vantage.server.domain.leases import Report
from vantage.server.domain.permissions import Reach
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.runs import LEASED, Lease, Run, RunEvent, RunState
from vantage.server.domain.tasks import OnFailure, Target, Task, TaskSpec, TaskState
from vantage.server.events.bus import Bus
from vantage.server.services.commits import Commits
from vantage.server.services.sessions import Sessions
from vantage.server.storage import assignment, lifecycle, run_store, schema, task_queries, task_schema
from vantage.server.storage.creation import Asker, Request, create_tasks
from vantage.server.storage.database import sqlite_engine
from vantage.server.storage.lifecycle import Changes

COLLABORATION = "collaborations/c1"
ORGANIZATIONS = ("organizations/alpha", "organizations/beta", "organizations/gamma")
NODES = {
    f"{organization}/nodes/{name}": organization
    for organization, name in (
        ("organizations/alpha", "one"),
        ("organizations/alpha", "two"),
        ("organizations/beta", "one"),
        ("organizations/gamma", "one"),
    )
}
IMAGE = "r/i@sha256:" + "00" * 32
RESULT = inline_payload(b"1", "application/json", 1, 10, "result")
MAX_TASKS = 8
LEASED_NAMES = tuple(each.name for each in LEASED)
OPEN_NAMES = ("QUEUED", *LEASED_NAMES)
REPORTS = (RunEvent.START, RunEvent.SUCCEED, RunEvent.FAIL, RunEvent.REFUSE, RunEvent.STOP)
REASONS = ["ALGORITHM_FAILED", *sorted(each.name for each in MENDABLE)[:2]]


@dataclass(frozen=True)
class Given:
    """A lease that a node has got."""

    node: str
    lease: Lease
    run: ModelRun = field(compare=False, hash=False)


class Lifecycle(RuleBasedStateMachine):
    """Drives the units of work as the services do, with every lease that was ever given; compares with the model."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.engine = sqlite_engine(Path(self.directory.name) / "model.db")
        schema.metadata.create_all(self.engine)
        self.clock = ManualClock(datetime(2026, 11, 1, tzinfo=UTC))
        now = self.clock.now()
        with self.engine.begin() as connection:
            for name in ORGANIZATIONS:
                connection.execute(insert(schema.organization).values(name=name, display_name="", created=now))
            connection.execute(
                insert(schema.collaboration).values(name=COLLABORATION, display_name="", creator="", created=now)
            )
            for name in ORGANIZATIONS:
                connection.execute(insert(schema.member).values(collaboration=COLLABORATION, organization=name))
        self.sessions = self.new_sessions()
        self.model = Model()
        self.given: list[Given] = []
        self.final: dict[str, str] = {}

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.dispose()
            self.directory.cleanup()

    def new_sessions(self) -> Sessions:
        """Sessions as a process that has just started has them: no node is connected, each lease lasts in full."""
        sessions = Sessions(Commits(None), self.clock, Bus())  # type: ignore[arg-type]  # nothing is committed by them
        with self.engine.begin() as connection:
            for node in run_store.nodes_with_leases(connection):
                for run in run_store.leased_to(connection, node):
                    sessions.book.grant(node, run.lease, self.clock.monotonic() + 30)
        return sessions

    def commit(self, unit: Callable[..., Any], *arguments: Any) -> Any:
        """Run a unit of work, and tell the sessions what it changed."""
        changes = Changes()
        with self.engine.begin() as connection:
            answer = unit(connection, changes, *arguments)
        self.sessions._on_changes(changes)
        for node, work in changes.assigned:
            run = self.run_of(work.lease.run)
            if run.lease:
                run.lease = work.lease.lease_id
            if not any(each.lease == work.lease for each in self.given):
                self.given.append(Given(node, work.lease, run))
        # Whoever is told to stop has had the run.
        assert all(lease.lease_id and node for node, lease, _reason in changes.revoked)
        return answer

    def run_of(self, name: str) -> ModelRun:
        return next(run for run in self.model.runs if run.name == name)

    def spec(self, asked: int, quorum: int, cancel_rest: bool, attempts: int, parent: str, detached: bool) -> TaskSpec:
        return TaskSpec(
            COLLABORATION,
            "",
            IMAGE,
            "f",
            tuple(Target(name, "", None, ()) for name in ORGANIZATIONS[:asked]),
            timedelta(0),
            parent,
            b"",
            quorum=min(quorum, asked),
            on_failure=OnFailure.CANCEL_REST if cancel_rest else OnFailure.CONTINUE,
            max_attempts=attempts,
            detached=detached,
        )

    def create(self, asker: Asker, spec: TaskSpec, parent: ModelRun | None) -> None:
        request = Request(asker, names.new_id(), b"", spec, f"tasks/{names.new_id()}")
        outcome, again = self.commit(create_tasks, [request, request], self.clock.now())
        assert isinstance(outcome, Task)
        assert not isinstance(again, Task)
        task = ModelTask(
            outcome.name,
            spec.quorum,
            spec.on_failure is OnFailure.CANCEL_REST,
            spec.max_attempts if parent is None else min(spec.max_attempts, parent.task.max_attempts),
            parent,
            spec.detached,
        )
        task.runs = [ModelRun(run.name, task, run.organization) for run in outcome.runs]
        self.model.tasks.append(task)

    @precondition(lambda self: len(self.model.tasks) < MAX_TASKS)
    @rule(asked=st.integers(1, 3), quorum=st.integers(0, 3), cancel_rest=st.booleans(), attempts=st.integers(1, 3))
    def ask(self, asked: int, quorum: int, cancel_rest: bool, attempts: int) -> None:
        asker = Asker("users/rosa", ORGANIZATIONS[0], Reach(everything=True))
        self.create(asker, self.spec(asked, quorum, cancel_rest, attempts, "", False), None)

    @precondition(
        lambda self: len(self.model.tasks) < MAX_TASKS and any(run.state in LEASED_NAMES for run in self.model.runs)
    )
    @rule(data=st.data(), asked=st.integers(1, 3), quorum=st.integers(0, 3), detached=st.booleans())
    def ask_as_a_run(self, data: st.DataObject, asked: int, quorum: int, detached: bool) -> None:
        parent = data.draw(st.sampled_from([run for run in self.model.runs if run.state in LEASED_NAMES]))
        depth, above = 0, parent
        while above.task.parent is not None:
            depth, above = depth + 1, above.task.parent
        if depth < 4:
            asker = Asker(parent.node, parent.organization, None)
            self.create(asker, self.spec(asked, quorum, False, 3, parent.name, detached), parent)

    @rule(node=st.sampled_from(sorted(NODES)), free=st.integers(1, 4))
    def claim(self, node: str, free: int) -> None:
        expected = self.model.claim(node, NODES[node], free)
        principal = NodePrincipal(node, NODES[node], frozenset({COLLABORATION}))
        before = len(self.given)
        self.commit(assignment.claim, principal, free, self.clock.now())
        assert [each.lease.run for each in self.given[before:]] == [run.name for run in expected]

    @precondition(lambda self: self.given)
    @rule(
        data=st.data(),
        other=st.sampled_from([None, *sorted(NODES)]),
        events=st.lists(st.sampled_from(REPORTS), min_size=1, max_size=3),
        reason=st.sampled_from(REASONS),
        retryable=st.booleans(),
    )
    def report(
        self, data: st.DataObject, other: str | None, events: list[RunEvent], reason: str, retryable: bool
    ) -> None:
        """Of any attempt there ever was, by its node or by another one, everything perhaps twice."""
        given = data.draw(st.sampled_from(self.given))
        node = other or given.node
        reports = []
        for event in events:
            failed = Failure(reason, "") if event in (RunEvent.FAIL, RunEvent.REFUSE, RunEvent.STOP) else None
            result = RESULT if event is RunEvent.SUCCEED else None
            reports.append(Report(given.lease, event, result, failed, retryable=retryable))
        again = retryable and reason != "ALGORITHM_FAILED"
        for event in events:
            self.model.report(given.run, node, given.lease.lease_id, event.value, reason, again)
        self.commit(assignment.apply_reports, node, reports, self.clock.now())

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        given = data.draw(st.sampled_from(self.given))
        self.model.lose(given.run, given.node, given.lease.lease_id)
        self.commit(lifecycle.lose, given.node, [given.lease], self.clock.now())

    @rule(node=st.sampled_from(sorted(NODES)), data=st.data())
    def come_back(self, node: str, data: st.DataObject) -> None:
        own = [each for each in self.given if each.node == node]
        claimed = data.draw(st.lists(st.sampled_from(own), unique=True)) if own else []
        valid = [each.lease for each in claimed if self.model.claims(each.run, node, each.lease.lease_id)]
        found = self.commit(assignment.come_back, node, [each.lease for each in claimed], self.clock.now())
        assert {*found.kept, *(run.lease for run in found.resumed)} == set(valid)
        assert set(found.revoked) == {each.lease for each in claimed} - set(valid)
        assert {run.name for run in found.resent} == {
            run.name
            for run in self.model.runs
            if run.state in LEASED_NAMES and run.node == node and run.name not in {lease.run for lease in valid}
        }

    @rule(node=st.sampled_from(sorted(NODES)), data=st.data(), after=st.integers(0, 25))
    def heartbeat(self, node: str, data: st.DataObject, after: int) -> None:
        """What the book knows costs no look at the database; the rest is looked up."""
        self.clock.advance(timedelta(seconds=after))
        own = [each for each in self.given if each.node == node]
        named = data.draw(st.lists(st.sampled_from(own), unique=True)) if own else []
        leases = [each.lease for each in named]
        unknown = self.sessions.book.renew(node, leases, self.clock.monotonic() + 30)
        valid = [each.lease for each in named if self.model.claims(each.run, node, each.lease.lease_id)]
        assert set(leases) - set(unknown) <= set(valid)
        revoked = self.commit(assignment.check_leases, node, unknown, self.clock.now())
        assert set(revoked) == set(leases) - set(valid)

    @rule(days=st.sampled_from([-1, 1]))
    def set_the_clock(self, days: int) -> None:
        before = {node: self.sessions.book.next_expiry(node) for node in NODES}
        self.clock.jump(timedelta(days=days))
        assert {node: self.sessions.book.next_expiry(node) for node in NODES} == before

    @precondition(lambda self: any(run.waits for run in self.model.runs))
    @rule(data=st.data())
    def try_again(self, data: st.DataObject) -> None:
        runs = data.draw(st.lists(st.sampled_from(self.model.runs), unique_by=lambda run: run.name, min_size=1))
        for run in runs:
            self.model.release(run)
        self.commit(lifecycle.release, [run.name for run in runs])

    @precondition(lambda self: self.model.tasks)
    @rule(data=st.data(), expire=st.booleans())
    def close(self, data: st.DataObject, expire: bool) -> None:
        task = data.draw(st.sampled_from(self.model.tasks))
        if expire:
            self.model.expire(task)
            self.commit(task_queries.expire_tasks, [task.name], self.clock.now())
        else:
            self.model.cancel(task)
            self.commit(task_queries.cancel_task, task.name, self.clock.now())

    @rule()
    def restart(self) -> None:
        self.engine.dispose()
        self.engine = sqlite_engine(Path(self.directory.name) / "model.db")
        self.sessions = self.new_sessions()

    @invariant()
    def the_store_is_as_the_model_says(self) -> None:
        if not hasattr(self, "engine"):
            return
        with self.engine.connect() as connection:
            held: dict[str, set[Lease]] = {}
            for wanted in self.model.tasks:
                task = task_queries.read_task(connection, wanted.name)
                assert task is not None
                assert task.state.name == wanted.state
                for run, model in zip(task.runs, wanted.runs, strict=True):
                    self.compare(run, model)
                    if run.state in LEASED:
                        held.setdefault(run.node, set()).add(run.lease)
                self.check_events(connection, task)
        for node in NODES:
            assert self.in_book(node) == held.get(node, set())

    def compare(self, run: Run, model: ModelRun) -> None:
        assert (run.name, run.state.name, run.attempt, run.node) == (model.name, model.state, model.attempt, model.node)
        assert run.attempt <= model.task.max_attempts
        assert (run.retry_time is not None) == model.waits
        assert (run.result is not None) == (run.state is RunState.SUCCEEDED)
        if run.state.name not in OPEN_NAMES:
            assert (run.failure.reason if run.failure is not None else "") == model.reason
            # No way back from an end.
            assert self.final.setdefault(run.name, run.state.name) == run.state.name

    def in_book(self, node: str) -> set[Lease]:
        return {each.lease for each in self.given if self.sessions.book.has(node, each.lease)}

    def check_events(self, connection: Connection, task: Task) -> None:
        event = task_schema.event
        rows = connection.execute(
            select(event.c.sequence, event.c.run).where(event.c.task == task.name).order_by(event.c.sequence)
        ).all()
        assert [row.sequence for row in rows] == list(range(2, task.last_sequence + 1))
        ends = [row.sequence for row in rows if not row.run]
        assert ends == ([] if task.state is TaskState.ACTIVE else [task.last_sequence])


Lifecycle.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLifecycle = Lifecycle.TestCase
