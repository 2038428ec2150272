"""Leases: who holds which run until when, and whether a report about a run counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from vantage.server.domain.contents import Failure, Payload
from vantage.server.domain.runs import LEASED, Lease, Run, RunEvent, RunState, next_state


@dataclass(frozen=True, slots=True)
class Report:
    """What a node says about a run that it holds.

    Attributes:
        event: what happened, or None for a mere confirmation of the assignment.
        statement: what the node signed about it.
        retryable: for a failure: whether the node would run another attempt, which may mend it.
    """

    lease: Lease
    event: RunEvent | None
    result: Payload | None = None
    failure: Failure | None = None
    statement: bytes = b""
    retryable: bool = False

    @property
    def weight(self) -> int:
        """Bytes that it holds in memory, roughly."""
        inline = b"" if self.result is None else self.result.inline or b""
        return 512 + len(self.lease.run) + len(self.lease.lease_id) + len(inline) + len(self.statement)


class Verdict(Enum):
    """What a report is worth."""

    APPLY = "apply"
    REPEATED = "repeated"
    STALE = "stale"


def holds(run: Run, node: str, lease: Lease) -> bool:
    """Whether this is the run's latest attempt and was given to this node: fencing token and number must agree."""
    return run.node == node and run.lease_id == lease.lease_id and run.attempt == lease.attempt and run.attempt > 0


def judge(run: Run | None, node: str, report: Report) -> Verdict:
    """Decide whether a report changes a run.

    A report about another attempt than the latest, or by another node, is stale whatever it says. One that does not
    happen in the run's state says what is known already, or what came too late: it has no effect. So does one about an
    attempt whose failure sent the run back to the queue.
    """
    if run is not None and run.attempt and not run.lease_id and (run.node, run.attempt) == (node, report.lease.attempt):
        return Verdict.REPEATED
    if run is None or not holds(run, node, report.lease):
        return Verdict.STALE
    if report.event is None or next_state(run.state, report.event) is None:
        return Verdict.REPEATED
    return Verdict.APPLY


@dataclass(frozen=True)
class Reconciliation:
    """What becomes of a node's runs when it comes back.

    Attributes:
        kept: leases of the node that go on.
        resumed: runs that had gone back to the queue and that the node still has.
        revoked: leases that are no longer valid.
        resent: runs that the server gave to the node and the node does not know of.
    """

    kept: tuple[Lease, ...]
    resumed: tuple[Run, ...]
    revoked: tuple[Lease, ...]
    resent: tuple[Run, ...]


def reconcile(node: str, claimed: Iterable[Lease], known: Iterable[Run]) -> Reconciliation:
    """Compare what a node says it holds with what the server knows.

    Args:
        node: its name.
        claimed: leases in its first message.
        known: the runs of those leases, and all that are leased to the node.
    """
    runs = {run.name: run for run in known}
    kept, resumed, revoked, mentioned = [], [], [], set()
    for lease in claimed:
        run = runs.get(lease.run)
        if run is None or not holds(run, node, lease):
            revoked.append(lease)
        elif run.state is RunState.QUEUED:
            resumed.append(run)
        elif run.state in LEASED:
            kept.append(lease)
        else:
            revoked.append(lease)
            continue
        if run is not None and holds(run, node, lease):
            mentioned.add(run.name)
    resent = [run for run in runs.values() if run.state in LEASED and run.node == node and run.name not in mentioned]
    return Reconciliation(tuple(kept), tuple(resumed), tuple(revoked), tuple(resent))


class LeaseBook:
    """Which node holds what until when, in memory: renewing costs no commit. A restart gives everyone a full lease.

    Moments are those of ``Clock.monotonic``: setting the time of day ends no lease, and prolongs none.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, dict[str, tuple[Lease, float]]] = {}

    def grant(self, node: str, lease: Lease, expires: float) -> None:
        """Enter a lease, or set a new end."""
        self._nodes.setdefault(node, {})[lease.run] = (lease, expires)

    def renew(self, node: str, leases: Iterable[Lease], expires: float) -> list[Lease]:
        """Set a new end for the leases that are in the book and return those that are not."""
        held = self._nodes.get(node, {})
        unknown = []
        for lease in leases:
            if lease.run in held and held[lease.run][0] == lease:
                held[lease.run] = (lease, expires)
            else:
                unknown.append(lease)
        return unknown

    def drop(self, node: str, run: str) -> None:
        """Strike a run out; harmless when it is not there."""
        if (held := self._nodes.get(node)) is not None and held.pop(run, None) is not None and not held:
            del self._nodes[node]

    def has(self, node: str, lease: Lease) -> bool:
        """Whether the book has this very lease."""
        entry = self._nodes.get(node, {}).get(lease.run)
        return entry is not None and entry[0] == lease

    @property
    def holders(self) -> int:
        """How many nodes hold runs."""
        return len(self._nodes)

    def count(self, node: str) -> int:
        """How many runs a node holds."""
        return len(self._nodes.get(node, ()))

    def expired(self, node: str, now: float) -> list[Lease]:
        """Leases of a node whose end has passed."""
        return [lease for lease, expires in self._nodes.get(node, {}).values() if expires <= now]

    def next_expiry(self, node: str) -> float | None:
        """When the first lease of a node ends."""
        return min((expires for _lease, expires in self._nodes.get(node, {}).values()), default=None)
