"""Leases: what counts, what is revoked, what comes again."""

from __future__ import annotations

from datetime import UTC, datetime

from vantage.server.domain.leases import LeaseBook, Report, Verdict, judge, reconcile
from vantage.server.domain.runs import Lease, Run, RunEvent, RunState, assigned, lost, moved

NOW = datetime(2026, 11, 1, tzinfo=UTC)
NODE = "organizations/alpha/nodes/one"


def run(name: str = "tasks/t/runs/a") -> Run:
    return Run(name, "tasks/t", 0, "organizations/alpha", "")


def test_only_the_latest_lease_of_the_right_node_counts() -> None:
    first = assigned(run(), NODE, "lease-1", NOW)
    second = assigned(lost(first, NOW), NODE, "lease-2", NOW)
    report = Report(second.lease, RunEvent.SUCCEED)
    assert judge(second, NODE, report) is Verdict.APPLY
    assert judge(second, NODE, Report(first.lease, RunEvent.SUCCEED)) is Verdict.STALE
    assert judge(second, "organizations/alpha/nodes/two", report) is Verdict.STALE
    assert judge(second, NODE, Report(Lease(second.name, "lease-2", 1), RunEvent.SUCCEED)) is Verdict.STALE
    assert judge(None, NODE, report) is Verdict.STALE
    assert judge(run(), NODE, Report(Lease(second.name, "", 0), RunEvent.SUCCEED)) is Verdict.STALE
    assert judge(moved(second, RunEvent.SUCCEED, NOW), NODE, report) is Verdict.REPEATED
    assert judge(second, NODE, Report(second.lease, None)) is Verdict.REPEATED


def test_the_outcome_of_an_attempt_that_was_given_up_is_believed_until_somebody_else_has_the_run() -> None:
    first = assigned(run(), NODE, "lease-1", NOW)
    queued = lost(first, NOW)
    assert queued.state is RunState.QUEUED
    assert judge(queued, NODE, Report(first.lease, RunEvent.SUCCEED)) is Verdict.APPLY
    taken = assigned(queued, "organizations/alpha/nodes/two", "lease-2", NOW)
    assert judge(taken, NODE, Report(first.lease, RunEvent.SUCCEED)) is Verdict.STALE


def test_reconcile_sorts_what_a_node_says_and_what_it_does_not_say() -> None:
    kept = assigned(run("tasks/t/runs/kept"), NODE, "1", NOW)
    lost_run = lost(assigned(run("tasks/t/runs/lost"), NODE, "2", NOW), NOW)
    ended = moved(assigned(run("tasks/t/runs/ended"), NODE, "3", NOW), RunEvent.CANCEL, NOW)
    unknown_to_node = assigned(run("tasks/t/runs/new"), NODE, "4", NOW)
    again = assigned(lost(assigned(run("tasks/t/runs/again"), NODE, "5", NOW), NOW), NODE, "6", NOW)
    foreign = Lease("tasks/t/runs/foreign", "7", 1)
    older = Lease(again.name, "5", 1)
    claimed = [kept.lease, lost_run.lease, ended.lease, foreign, older]
    found = reconcile(NODE, claimed, [kept, lost_run, ended, unknown_to_node, again])
    assert found.kept == (kept.lease,)
    assert found.resumed == (lost_run,)
    assert set(found.revoked) == {ended.lease, foreign, older}
    assert {each.name for each in found.resent} == {unknown_to_node.name, again.name}


def test_the_book_knows_until_when() -> None:
    book, lease = LeaseBook(), Lease("tasks/t/runs/a", "1", 1)
    book.grant(NODE, lease, 0.0)
    assert book.expired(NODE, 0.0) == [lease]
    assert book.renew(NODE, [lease], 30.0) == []
    assert book.expired(NODE, 0.0) == []
    assert book.next_expiry(NODE) == 30.0
    forged = Lease("tasks/t/runs/a", "2", 1)
    assert book.renew(NODE, [forged], 0.0) == [forged]
    assert book.has(NODE, lease)
    assert not book.has(NODE, forged)
    book.drop(NODE, lease.run)
    book.drop(NODE, lease.run)
    assert (book.count(NODE), book.next_expiry(NODE)) == (0, None)
