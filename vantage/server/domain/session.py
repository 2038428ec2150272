"""The protocol of a node's session: a function from (state, message) to (state, effects). No transport, no storage."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum

from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.jobs import RelayAnswer
from vantage.server.domain.leases import Report
from vantage.server.domain.runs import Lease

MAX_SLOTS = 1_000
MAX_LEASES = 10_000
MAX_DATASETS = 1_000


class Transport(Enum):
    """How the messages of a session travel."""

    UNKNOWN = 0
    STREAM = 1
    SYNC = 2


@dataclass(frozen=True, slots=True)
class Hello:
    """First message of a node. Datasets are (name, format); the catalogue is what it shares beyond that, as JSON."""

    version: str
    instance_id: str
    datasets: tuple[tuple[str, str], ...]
    leases: tuple[Lease, ...]
    slots: int
    transport: Transport = Transport.UNKNOWN
    catalogue: str = ""
    executor: str = ""
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sign of life, with the leases to renew; a node that is being stopped takes on nothing but subtasks."""

    leases: tuple[Lease, ...]
    stopping: bool = False


@dataclass(frozen=True, slots=True)
class Reported:
    """A report with its position in the node's journal."""

    sequence: int
    report: Report


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a run is; may be lost."""

    lease: Lease
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Logged:
    """Lines that a run printed; may be lost."""

    lease: Lease
    lines: tuple[str, ...]
    dropped: int


NodeMessage = Hello | Heartbeat | Reported | Progressed | Logged | RelayAnswer


@dataclass(frozen=True, slots=True)
class Open:
    """Effect: the session begins; an older one of the node ends, and what the node holds is compared."""

    hello: Hello


@dataclass(frozen=True, slots=True)
class Renew:
    """Effect: renew these leases and answer which are no longer valid."""

    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """Effect: let a report take effect once, then acknowledge its sequence."""

    sequence: int
    report: Report


@dataclass(frozen=True, slots=True)
class Tell:
    """Effect: tell those who watch, if the node holds the run; nothing is kept."""

    about: Progressed | Logged


Effect = Open | Renew | Apply | Tell | RelayAnswer


@dataclass(frozen=True, slots=True)
class SessionState:
    """Where a session is.

    Attributes:
        greeted: whether Hello was received.
        sequence: highest sequence received.
        slots: how many runs the node takes at once.
        stopping: whether it takes on nothing but subtasks.
    """

    greeted: bool = False
    sequence: int = 0
    slots: int = 0
    stopping: bool = False


def step(state: SessionState, message: NodeMessage) -> tuple[SessionState, Effect]:
    """What a message of the node leads to.

    A report that is sent again has its old sequence; it is applied again, which has no effect, and acknowledged again.

    Raises:
        InvalidArgumentError: PROTOCOL_VIOLATION; the session is over.
    """
    match message:
        case Hello():
            if state.greeted:
                raise _violation("Hello is sent once, as the first message")
            if not 1 <= message.slots <= MAX_SLOTS:
                raise _violation(f"slots must be 1 to {MAX_SLOTS}")
            if len(message.leases) > MAX_LEASES or len(message.datasets) > MAX_DATASETS:
                raise _violation(f"Hello names at most {MAX_LEASES} leases and {MAX_DATASETS} datasets")
            return replace(state, greeted=True, slots=message.slots, stopping=message.stopping), Open(message)
        case _ if not state.greeted:
            raise _violation("the first message must be Hello")
        case Heartbeat(leases, stopping):
            if len(leases) > MAX_LEASES:
                raise _violation(f"a heartbeat names at most {MAX_LEASES} leases")
            return replace(state, stopping=stopping), Renew(leases)
        case Reported(sequence, report):
            if sequence < 1:
                raise _violation("Accepted, Refused, Started and Completed carry a sequence above 0")
            return replace(state, sequence=max(state.sequence, sequence)), Apply(sequence, report)
        case Progressed() | Logged():
            return state, Tell(message)
        case RelayAnswer():
            return state, message


def _violation(text: str) -> VantageError:
    return error(Reason.PROTOCOL_VIOLATION, f"{text}: update the node if it is older than the server")


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How often a node gives a sign of life, how long a lease lasts without one, and how much travels inline."""

    heartbeat_seconds: float = 10.0
    lease_seconds: float = 30.0
    max_inline_bytes: int = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Welcome:
    """Answer to Hello; with the instance of the session that this one ended, if any."""

    settings: SessionSettings
    revoked: tuple[Lease, ...]
    collaborations: tuple[str, ...]
    trust_version: int = 0
    fenced: str = ""
    spread_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class HeartbeatReply:
    """Answer to Heartbeat."""

    revoked: tuple[Lease, ...]
    server_time: datetime
    trust_version: int = 0


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Stop a run."""

    lease: Lease
    reason: str


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The session is over."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Nothing but an acknowledgement."""
