"""Units of work of a node's session: claim runs, take reports, come back, be lost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row

from vantage.common import names
from vantage.common.errors import Reason
from vantage.server.domain import audit
from vantage.server.domain.contents import Failure, Payload
from vantage.server.domain.fairness import choose, is_settled
from vantage.server.domain.leases import Reconciliation, Report, Verdict, judge, reconcile
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.retries import is_retried, wait_before
from vantage.server.domain.runs import OPEN, Lease, Run, RunEvent, assigned, moved, retried
from vantage.server.domain.tasks import Target, TaskSpec, Work
from vantage.server.storage import audit_store, claim_store, payload_store, run_store, study_store, task_store
from vantage.server.storage.lifecycle import Changes, advance

_MICROSECOND = timedelta(microseconds=1)
_DEEPER = 4
"""How many times as many runs of each owner are looked at when the oldest of each do not decide who is next."""


def claim(
    connection: Connection, changes: Changes, node: NodePrincipal, free: int, now: datetime, subtasks: bool = False
) -> int:
    """Lease queued runs to a node, at most as many as it has room for, and say how many.

    The oldest first; when more may wait than there is room for, fairly between those in whose names they were asked.

    Args:
        subtasks: whether those of subtasks alone.
    """
    rows = claim_store.oldest_of_subtasks(connection, node, free) if subtasks else _claimable(connection, node, free)
    steps, taken = [], []
    for row in rows:
        before = run_store.build_run(row)
        after = assigned(before, node.name, names.new_id(), now)
        steps.append((before, after))
        taken.append((row, after))
    advance(connection, changes, steps, now)
    # Of a run and one that an attempt of it had asked before, the latter has ended with that attempt: nobody is told.
    leases = {run.lease for _row, run in taken}
    ended = {lease for _node, lease, _reason in changes.revoked if lease in leases}
    changes.revoked = [each for each in changes.revoked if each[1] not in ended]
    work = _work(connection, [(row, run) for row, run in taken if run.lease not in ended])
    changes.granted += [(node.name, each.lease) for each in work]
    changes.assigned += [(node.name, each) for each in work]
    return len(work)


def _claimable(connection: Connection, node: NodePrincipal, free: int) -> Sequence[Row[Any]]:
    rows = claim_store.oldest(connection, node, free)
    if not rows or len(rows) < free:
        return rows  # all that wait
    held = claim_store.leased_by_owner(connection, node)
    # Also those of the oldest: of all others who wait, perhaps none asks for what this node may take.
    also = [row.name for row in rows]
    depth = 1
    while True:
        waiting = claim_store.waiting(connection, node, also, depth)
        chosen = choose(waiting, held, free)
        if depth >= free or is_settled(waiting, held, chosen, free, depth):
            break
        depth *= _DEEPER
    found = {row.name: row for row in claim_store.some(connection, node, chosen)}
    return [found[name] for name in chosen if name in found]


def apply_reports(
    connection: Connection, changes: Changes, node: str, reports: Sequence[Report], now: datetime
) -> list[Lease]:
    """Let the reports of a node take effect, each once, and return the leases that are no longer valid."""
    stale: list[Lease] = []
    runs = run_store.get_runs(connection, {report.lease.run for report in reports})
    uploaded = _uploaded(connection, node, reports)
    first: dict[str, Run] = {}
    for report in reports:
        run = runs.get(report.lease.run)
        match judge(run, node, report):
            case Verdict.STALE:
                stale.append(report.lease)
            case Verdict.APPLY:
                assert run is not None  # noqa: S101  # judge says STALE otherwise
                assert report.event is not None  # noqa: S101  # judge says REPEATED otherwise
                # A run that starts and ends within one commit is seen to end only: nobody could have seen it run.
                first.setdefault(run.name, run)
                runs[run.name] = _moved(run, report.event, report, uploaded, now)
            case Verdict.REPEATED:
                pass
    steps = [(before, runs[name]) for name, before in first.items()]
    advance(connection, changes, steps, now)
    entries = [_outcome(node, after, now) for _before, after in steps if after.state not in OPEN or after.retry_time]
    audit_store.append(connection, [*entries, *(_ignored(node, lease, now) for lease in stale)])
    return stale


def _outcome(node: str, run: Run, now: datetime) -> audit.Entry:
    """What the audit says of a run that a node ended: what left, by digest and size."""
    details = {"attempt": str(run.attempt)}
    if run.result is not None:
        details |= {"result_digest": run.result.digest, "result_bytes": str(run.result.size)}
    reason = "" if run.failure is None else run.failure.reason
    what = "retried" if run.retry_time else run.state.name.lower()
    return _entry(f"run.{what}", audit.Verdict.ALLOWED, reason, node, run.name, now, details)


def _ignored(node: str, lease: Lease, now: datetime) -> audit.Entry:
    return _entry(
        "run.report", audit.Verdict.DENIED, "LEASE_INVALID", node, lease.run, now, {"attempt": str(lease.attempt)}
    )


def _entry(
    event: str, verdict: audit.Verdict, reason: str, node: str, run: str, now: datetime, details: dict[str, str]
) -> audit.Entry:
    organization = node.rpartition("/nodes/")[0]
    return audit.Entry(now, event, verdict, reason, node, organization, run[:200], "", "", details)


def _uploaded(connection: Connection, node: str, reports: Iterable[Report]) -> dict[str, tuple[int, str]]:
    wanted = {
        report.result.reference
        for report in reports
        if report.result is not None and report.result.reference is not None
    }
    return payload_store.complete_of(connection, node, wanted) if wanted else {}


def _moved(run: Run, event: RunEvent, report: Report, uploaded: dict[str, tuple[int, str]], now: datetime) -> Run:
    result = report.result
    if is_retried(run, report) and report.failure is not None:
        return retried(run, report.failure, now + wait_before(run.attempt))
    if result is None or result.reference is None:
        return moved(run, event, now, result=result, failure=report.failure, statement=report.statement)
    if result.reference not in uploaded:
        failure = Failure(
            Reason.NO_RESULT.name,
            "the node referred to a payload that it has not uploaded: ask its admin to look at its log",
        )
        return moved(run, RunEvent.FAIL, now, failure=failure)
    size, digest = uploaded[result.reference]
    stored = Payload(result.media_type, result.sealing, None, result.reference, size, digest)
    return moved(run, event, now, result=stored, statement=report.statement)


def come_back(
    connection: Connection, changes: Changes, node: str, claimed: Sequence[Lease], now: datetime
) -> Reconciliation:
    """Compare what a node says it holds with what is known, resume what can be, and hand it again what it must get."""
    known = {run.name: run for run in run_store.leased_to(connection, node)}
    missing = [lease.run for lease in claimed if lease.run not in known]
    if missing:
        known |= run_store.get_runs(connection, missing)
    found = reconcile(node, claimed, known.values())
    advance(connection, changes, [(run, moved(run, RunEvent.RESUME, now)) for run in found.resumed], now)
    held = [*found.kept, *(run.lease for run in (*found.resumed, *found.resent))]
    changes.granted += [(node, lease) for lease in held]
    if found.resent:
        by_name = {run.name: run for run in found.resent}
        again = _work(connection, [(row, by_name[row.name]) for row in run_store.work_of(connection, by_name)])
        changes.assigned += [(node, work) for work in again]
    return found


def check_leases(
    connection: Connection, changes: Changes, node: str, leases: Sequence[Lease], now: datetime
) -> list[Lease]:
    """Look leases up that a heartbeat mentions and the book does not know; returns those that are no longer valid."""
    known = run_store.get_runs(connection, [lease.run for lease in leases])
    found = reconcile(node, leases, known.values())
    advance(connection, changes, [(run, moved(run, RunEvent.RESUME, now)) for run in found.resumed], now)
    changes.granted += [(node, lease) for lease in (*found.kept, *(run.lease for run in found.resumed))]
    return list(found.revoked)


def _work(connection: Connection, taken: Sequence[tuple[Row[tuple[object, ...]], Run]]) -> list[Work]:
    members = {key: _visible(connection, *key) for key in {(row.collaboration, row.study) for row, _run in taken}}
    work = []
    for row, run in taken:
        arguments = None if row.media_type is None else run_store.build_payload(row)
        target = Target(run.organization, run.wanted_node, arguments, run.datasets)
        spec = TaskSpec(
            row.collaboration,
            row.title,
            row.image,
            row.function,
            (target,),
            row.timeout * _MICROSECOND,
            row.parent_run,
            row.signed_order,
            task_store.unpack(row.parent_orders),
            row.study,
            max_runtime=row.max_runtime * _MICROSECOND,
        )
        work.append(
            Work(
                run.lease,
                spec,
                row.creator,
                row.creator_organization,
                row.deadline,
                members[row.collaboration, row.study],
            )
        )
    return work


def _visible(connection: Connection, collaboration: str, study: str) -> tuple[str, ...]:
    """Organizations that a node and its algorithm learn of: those of the study, if the task is one of a study."""
    joined = set(task_store.members(connection, collaboration))
    return tuple(sorted(joined & study_store.organizations(connection, study) if study else joined))
