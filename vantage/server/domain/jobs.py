"""Jobs: a task with all that descends from it, and who of it may talk to whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.leases import holds
from vantage.server.domain.runs import LEASED, OPEN, Lease, Run, RunState

MAX_RUNS = 1_000
"""Runs of a job that are listed."""


class PeerState(IntEnum):
    """Where a run is, for its peers; the numbers are those of the contract."""

    WAITING = 1
    ACTIVE = 2
    ENDED = 3


@dataclass(frozen=True, slots=True)
class Peer:
    """A run of a job; the node is empty while it waits."""

    run: str
    organization: str
    node: str
    state: PeerState


@dataclass(frozen=True)
class Job:
    """All runs of a job, those of the asking run's task first.

    Attributes:
        root: ``tasks/{task}`` that everything descends from.
    """

    root: str
    runs: Sequence[Run]

    def run(self, name: str) -> Run | None:
        """A run of the job."""
        return next((each for each in self.runs if each.name == name), None)

    @property
    def tasks(self) -> frozenset[str]:
        """Tasks of the job."""
        return frozenset(each.task for each in self.runs)

    @property
    def peers(self) -> tuple[Peer, ...]:
        """The runs as peers see them."""
        return tuple(
            Peer(each.name, each.organization, each.node if _state(each) is not PeerState.WAITING else "", _state(each))
            for each in self.runs
        )


def _state(run: Run) -> PeerState:
    if run.state in LEASED:
        return PeerState.ACTIVE
    return PeerState.WAITING if run.state is RunState.QUEUED else PeerState.ENDED


@dataclass(frozen=True, slots=True)
class OpenRelay:
    """What a node is told: somebody wants to talk to one of its runs."""

    offer: str
    pair: str
    lease: Lease
    relay: RelayEndpoint
    ticket: str
    peer_run: str
    peer_node: str
    job: str


@dataclass(frozen=True, slots=True)
class RelayEndpoint:
    """How nodes reach a relay; without an address it is the one inside the server."""

    name: str
    address: str = ""
    certificates: str = ""
    tls: bool = False


@dataclass(frozen=True, slots=True)
class RelayAnswer:
    """What a node answers: it comes, or why not."""

    offer: str
    refusal: VantageError | None


def held(job: Job | None, node: str, lease: Lease) -> Run:
    """The run in whose name a node asks.

    Raises:
        ConflictError: LEASE_INVALID, it does not hold it, or not any more.
    """
    run = job.run(lease.run) if job is not None else None
    if run is None or run.state not in LEASED or not holds(run, node, lease):
        raise error(Reason.LEASE_INVALID, "the node does not hold the run in whose name it asks")
    return run


def reachable(job: Job, asking: Run, name: str) -> Run:
    """The run that another one of its job wants to talk to.

    Raises:
        VantageError: NOT_FOUND, also for a run of another job; PEER_NOT_READY, PEER_ENDED, INVALID_ARGUMENT.
    """
    peer = job.run(name)
    if peer is None:
        raise error(Reason.NOT_FOUND, f"{name} is not a run of this job")
    if peer.name == asking.name:
        raise error(Reason.INVALID_ARGUMENT, "a run cannot connect to itself", field="peer_run")
    if peer.state not in OPEN:
        raise error(Reason.PEER_ENDED, f"the run at {peer.organization} has ended: {peer.state.name}")
    if peer.state not in LEASED:
        raise error(Reason.PEER_NOT_READY, f"the run at {peer.organization} has not begun: no node has taken it yet")
    return peer
