"""What the server tells, as values: frozen, complete, without a trace of the transport."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from vantage.client.datasets import Dataset
from vantage.common.errors import VantageError, from_wire


class TaskState(StrEnum):
    """Life of a task."""

    ACTIVE = "ACTIVE"
    """At least one run has not ended."""
    SUCCEEDED = "SUCCEEDED"
    """All runs succeeded, or as many as the quorum asks for."""
    FAILED = "FAILED"
    """All runs ended, and fewer succeeded than had to."""
    CANCELLED = "CANCELLED"
    """Cancelled before all runs ended."""
    EXPIRED = "EXPIRED"
    """The time limit passed before all runs ended."""
    UNKNOWN = "UNKNOWN"
    """A state of a newer server."""

    @property
    def ended(self) -> bool:
        """Whether nothing can happen any more."""
        return self not in (TaskState.ACTIVE, TaskState.UNKNOWN)


class RunState(StrEnum):
    """Life of a run."""

    QUEUED = "QUEUED"
    """Waits for a node."""
    ASSIGNED = "ASSIGNED"
    """Given to a node that has not started it."""
    RUNNING = "RUNNING"
    """The node runs it."""
    SUCCEEDED = "SUCCEEDED"
    """Ended with a result."""
    FAILED = "FAILED"
    """Ended without a result."""
    REFUSED = "REFUSED"
    """The node's policy did not allow it."""
    CANCELLED = "CANCELLED"
    """Ended by a cancel."""
    EXPIRED = "EXPIRED"
    """Ended by the time limit."""
    UNKNOWN = "UNKNOWN"
    """A state of a newer server."""

    @property
    def ended(self) -> bool:
        """Whether nothing can happen any more."""
        return self not in (RunState.QUEUED, RunState.ASSIGNED, RunState.RUNNING, RunState.UNKNOWN)


class OnFailure(StrEnum):
    """What becomes of the other runs when one ends without a result."""

    CONTINUE = "CONTINUE"
    CANCEL_REST = "CANCEL_REST"


@dataclass(frozen=True)
class Failure:
    """Why there is no result.

    Attributes:
        reason: for programs, e.g. ``TOO_FEW_RECORDS``.
        message: for people: what happened and what to do next.
        metadata: the variable parts of the message.
    """

    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)

    def error(self) -> VantageError:
        """The failure as an error of the class that belongs to its reason."""
        return from_wire(self.reason, self.message, dict(self.metadata))


@dataclass(frozen=True)
class Content:
    """A result that has not been opened.

    Attributes:
        media_type: of the opened bytes.
        size: in bytes, as transported.
        digest: ``sha256:`` and 64 hexadecimal digits, of the bytes as transported.
        inline: the bytes as transported, or None when they lie at the server as ``reference``.
        reference: what to download, payloads/{payload} or the run whose result it is; or None.
        sealing: how the bytes are protected, by the contract's number.
    """

    media_type: str
    size: int
    digest: str
    inline: bytes | None = field(default=None, repr=False)
    reference: str | None = None
    sealing: int = 1


class WaitCause(StrEnum):
    """Why a queued run waits."""

    NODE_OFFLINE = "NODE_OFFLINE"
    """No node that may take it is connected."""
    NODE_BUSY = "NODE_BUSY"
    """A node that may take it is connected, and takes it as soon as it has room."""
    NO_NODE = "NO_NODE"
    """No node of the organization serves the collaboration, not the one that was named, or it takes no part for now."""
    RETRY = "RETRY"
    """The attempt before failed; the next one may begin at the run's ``retry_time``."""
    UNKNOWN = "UNKNOWN"
    """A cause of a newer server."""


@dataclass(frozen=True)
class Wait:
    """What a queued run waits for.

    Attributes:
        cause: why.
        nodes: organizations/{organization}/nodes/{node}: those that may take it, the one that was seen last first.
        last_seen_time: when the first of them was seen last; None when it never was, and for nodes that are connected.
    """

    cause: WaitCause
    nodes: tuple[str, ...] = ()
    last_seen_time: datetime | None = None


@dataclass(frozen=True)
class Run:
    """One task at one organization.

    Attributes:
        name: tasks/{task}/runs/{run}.
        organization: organizations/{organization}.
        node: that has or had it, or empty.
        state: where it is in its life.
        attempt: how many times it was given to a node.
        last_failure: why the attempt before failed or was lost, while it has not ended.
        retry_time: when it is tried again, while it waits for that.
        content: the unopened result, when there is one and you may read it.
        failure: why there is no result.
        assign_time: when it was first given to a node.
        start_time: when it began to run.
        finish_time: when it ended.
        node_online: whether a node that can take it, or has it, is connected.
        wait: what it waits for while it is queued, as it was when the server told of it; not in lists.
        progress: latest, 0 to 1.
        statement: what its node has signed about the end; ``results`` verifies it.
    """

    name: str
    organization: str
    node: str = ""
    state: RunState = RunState.QUEUED
    attempt: int = 0
    content: Content | None = None
    failure: Failure | None = None
    assign_time: datetime | None = None
    start_time: datetime | None = None
    finish_time: datetime | None = None
    node_online: bool = False
    progress: float = 0.0
    statement: bytes = field(default=b"", repr=False)
    last_failure: Failure | None = None
    retry_time: datetime | None = None
    wait: Wait | None = None


@dataclass(frozen=True)
class Target:
    """One organization that is asked.

    Attributes:
        organization: organizations/{organization}, or its last part.
        node: organizations/{organization}/nodes/{node} or its last part; empty for any node of the organization.
        arguments: for this organization in place of the task's: a dictionary, or a file with a JSON object.
        datasets: for this organization in place of the task's: data parameter of the function -> dataset of the node,
            as in ``run``.
        files: for this organization in place of the task's: data parameter of the function -> file or table of yours.
    """

    organization: str
    node: str = ""
    arguments: Mapping[str, Any] | Path | None = None
    datasets: Mapping[str, str] | None = None
    files: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Task:
    """A question to organizations, as it was when the server told of it.

    Attributes:
        name: tasks/{task}.
        title: for people.
        collaboration: collaborations/{collaboration}.
        image: by digest.
        function: what was called.
        targets: who was asked, without arguments.
        state: where it is in its life.
        creator: users/{user}, or a node.
        create_time: when it was accepted.
        deadline: when it ends at the latest.
        finish_time: when it ended.
        runs: one per target, in their order.
        parent_run: the run that asked, for a subtask.
        last_sequence: of its latest event.
        study: collaborations/{collaboration}/studies/{study}, or empty.
        order: what the asker has signed; empty for a task without.
        quorum: how many answers suffice; 0 for all.
        on_failure: what becomes of the other runs when one ends without a result.
        max_runtime: of the algorithm in one run; None for as long as the nodes allow.
        max_attempts: how often a run is given to a node.
        detached: whether a subtask goes on when the run that asked for it ends.
    """

    name: str
    title: str
    collaboration: str
    image: str
    function: str
    targets: tuple[Target, ...]
    state: TaskState
    creator: str
    create_time: datetime | None
    deadline: datetime | None
    finish_time: datetime | None
    runs: tuple[Run, ...]
    parent_run: str = ""
    last_sequence: int = 0
    study: str = ""
    order: bytes = field(default=b"", repr=False)
    quorum: int = 0
    on_failure: OnFailure = OnFailure.CONTINUE
    max_runtime: timedelta | None = None
    max_attempts: int = 0
    detached: bool = False


@dataclass(frozen=True)
class Result:
    """What one organization answered.

    Attributes:
        organization: organizations/{organization}.
        run: tasks/{task}/runs/{run}.
        state: how the run ended.
        value: the answer: JSON values, a pyarrow.Table or bytes, by its media type; None without one.
        failure: why there is no answer; None when there is one.
        node: that ran it, or empty.
        media_type: of the answer.
        verified: whether value or failure are what the node has signed for this question; False for the server's word.
    """

    organization: str
    run: str
    state: RunState
    value: Any = field(default=None, repr=False)
    failure: Failure | None = None
    node: str = ""
    media_type: str = ""
    verified: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.failure is None

    def get(self) -> Any:
        """The answer.

        Raises:
            VantageError: of the class that belongs to the failure's reason; its message names the organization.
        """
        if self.failure is None:
            return self.value
        failure = self.failure
        metadata = {**failure.metadata, "organization": self.organization, "run": self.run}
        raise from_wire(failure.reason, f"{self.organization}: {failure.message}", metadata)


@dataclass(frozen=True)
class Delegate:
    """What the algorithm may ask of others in the asker's name.

    Attributes:
        organizations: whom; all of the collaboration or study when empty.
        functions: which functions of the image; all when None.
        datasets: which datasets; all when None.
        max_tasks: how many subtasks, all together.
        max_depth: how deep they may nest, 1 to 4.
    """

    organizations: tuple[str, ...] = ()
    functions: tuple[str, ...] | None = None
    datasets: tuple[str, ...] | None = None
    max_tasks: int = 1_000
    max_depth: int = 4


@dataclass(frozen=True)
class Question:
    """One task for ``run_many``; the fields are the arguments of ``run``."""

    image: str
    function: str
    collaboration: str
    arguments: Mapping[str, Any] | Path | None = None
    organizations: tuple[str, ...] = ()
    targets: tuple[Target, ...] = ()
    datasets: Mapping[str, str] = field(default_factory=dict)
    title: str = ""
    timeout: timedelta | None = None
    request_id: str | None = None
    study: str = ""
    delegate: Delegate | bool = True
    files: Mapping[str, Any] = field(default_factory=dict)
    quorum: int = 0
    on_failure: OnFailure = OnFailure.CONTINUE
    max_runtime: timedelta | None = None
    max_attempts: int | None = None


@dataclass(frozen=True)
class Answer:
    """What became of one question of ``run_many``.

    Attributes:
        question: as it was asked.
        task: tasks/{task}; empty when the server did not take the question.
        results: one per organization; empty when the server did not take the question.
        failure: why the server did not take it.
    """

    question: Question
    task: str = ""
    results: tuple[Result, ...] = ()
    failure: Failure | None = None

    def get(self) -> list[Any]:
        """The answers of all organizations.

        Raises:
            VantageError: the question was not taken, or an organization has no answer.
        """
        if self.failure is not None:
            raise self.failure.error()
        return [each.get() for each in self.results]


@dataclass(frozen=True)
class Event:
    """Something that happened to a task.

    Attributes:
        sequence: position among the task's events, from 1; 0 for events that are not kept (progress, log lines).
        time: when.
    """

    sequence: int
    time: datetime | None


@dataclass(frozen=True)
class TaskSnapshot(Event):
    """The task as it was when the watching began: first event."""

    task: Task


@dataclass(frozen=True)
class RunChanged(Event):
    """A run went on without ending."""

    run: Run


@dataclass(frozen=True)
class RunFinished(Event):
    """A run ended, with result or failure."""

    run: Run


@dataclass(frozen=True)
class TaskFinished(Event):
    """The task ended: last event.

    Attributes:
        state: how.
        succeeded_runs: how many runs have a result.
        failed_runs: how many have none.
    """

    state: TaskState
    succeeded_runs: int
    failed_runs: int


@dataclass(frozen=True)
class RunProgress(Event):
    """How far a run is; not kept.

    Attributes:
        run: tasks/{task}/runs/{run}.
        organization: organizations/{organization}.
        fraction: 0 to 1.
        message: for people.
    """

    run: str
    organization: str
    fraction: float
    message: str


@dataclass(frozen=True)
class RunWaits(Event):
    """A node that a queued run waits for has come or gone; not kept.

    Attributes:
        run: tasks/{task}/runs/{run}.
        organization: organizations/{organization}.
        wait: what it waits for now.
    """

    run: str
    organization: str
    wait: Wait


@dataclass(frozen=True)
class RunLog(Event):
    """Lines that the algorithm printed, when the node lets them out; not kept.

    Attributes:
        run: tasks/{task}/runs/{run}.
        organization: organizations/{organization}.
        lines: without line ends.
        dropped_lines: how many were left out before these.
    """

    run: str
    organization: str
    lines: tuple[str, ...]
    dropped_lines: int


@dataclass(frozen=True)
class Organization:
    """An organization.

    Attributes:
        name: organizations/{organization}.
        display_name: for people.
        ca_certificates: of its certificate authority, PEM.
        create_time: when it was created.
        etag: version, for updates.
    """

    name: str
    display_name: str
    ca_certificates: tuple[str, ...]
    create_time: datetime | None
    etag: str = ""


@dataclass(frozen=True)
class AuthoritiesChanged:
    """What changing an organization's authorities came to.

    Attributes:
        ca_certificates: all that it has now, PEM.
        ended_sessions: sessions of nodes that ended.
    """

    ca_certificates: tuple[str, ...]
    ended_sessions: int


@dataclass(frozen=True)
class RevocationsChanged:
    """What a revocation list came to.

    Attributes:
        number: its number.
        revoked_certificates: how many certificates it revokes.
        next_update: when the next list is due.
        ended_sessions: sessions of nodes that ended.
    """

    number: int
    revoked_certificates: int
    next_update: datetime
    ended_sessions: int


@dataclass(frozen=True)
class OrganizationTrust:
    """What the server says of an organization's certificates.

    Attributes:
        organization: organizations/{organization}.
        ca_certificates: of its authority, PEM.
        revocation_list: DER; empty for none.
    """

    organization: str
    ca_certificates: tuple[str, ...]
    revocation_list: bytes


@dataclass(frozen=True)
class User:
    """A person or a service account.

    Attributes:
        name: users/{user}.
        organization: organizations/{organization}, or empty for a user of the server itself.
        roles: roles/{role}.
        display_name: for people.
        create_time: when it was created.
        etag: version, for updates.
        service_account: whether it is a program, which logs in with a certified key.
    """

    name: str
    organization: str
    roles: tuple[str, ...]
    display_name: str
    create_time: datetime | None
    etag: str = ""
    service_account: bool = False


@dataclass(frozen=True)
class InvitedUser:
    """A person who has no password yet.

    Attributes:
        user: who it is.
        reset_token: with which they set a password, once, within three days.
    """

    user: User
    reset_token: str = field(repr=False)


@dataclass(frozen=True)
class Study:
    """A named subset of a collaboration's members.

    Attributes:
        name: collaborations/{collaboration}/studies/{study}.
        display_name: for people.
        organizations: that are part of it.
        create_time: when it was created.
        etag: version, for updates.
    """

    name: str
    display_name: str
    organizations: tuple[str, ...]
    create_time: datetime | None
    etag: str = ""


@dataclass(frozen=True)
class AuditEntry:
    """One decision of the server.

    Attributes:
        id: position; grows.
        time: when.
        event: what was asked or happened.
        decision: ``ALLOWED``, ``DENIED`` or ``FAILED``.
        reason: why not; empty when it was allowed.
        principal: who; empty for somebody unknown.
        organization: theirs.
        target: what it was about.
        peer: where the call came from.
        request_id: of the call, in the server's log as well.
        details: images, digests and sizes, names of what changed.
    """

    id: int
    time: datetime | None
    event: str
    decision: str
    reason: str
    principal: str
    organization: str
    target: str
    peer: str
    request_id: str
    details: Mapping[str, str]


@dataclass(frozen=True)
class AuditLog:
    """Head, length and key (PEM) of the server's hash-chained log."""

    head: str
    lines: int
    public_key: str


class MembershipState(StrEnum):
    """Where an organization stands in a collaboration."""

    INVITED = "INVITED"
    """Has not answered: no member."""
    ACTIVE = "ACTIVE"
    """Takes part."""
    SUSPENDED = "SUSPENDED"
    """Takes no part for a while."""
    UNKNOWN = "UNKNOWN"
    """A state of a newer server."""


@dataclass(frozen=True)
class Member:
    """An organization in a collaboration.

    Attributes:
        organization: organizations/{organization}.
        state: where it stands.
        invited_by: who invited it.
        since: since when it stands there.
    """

    organization: str
    state: MembershipState
    invited_by: str
    since: datetime | None


@dataclass(frozen=True)
class Collaboration:
    """Organizations that agreed to compute together.

    Attributes:
        name: collaborations/{collaboration}.
        display_name: for people.
        organizations: its members that take part.
        create_time: when it was created.
        members: all that were invited, and where they stand.
        etag: version, for updates.
    """

    name: str
    display_name: str
    organizations: tuple[str, ...]
    create_time: datetime | None
    members: tuple[Member, ...] = ()
    etag: str = ""


@dataclass(frozen=True)
class Invitation:
    """An open invitation to a collaboration.

    Attributes:
        organization: organizations/{organization} that is asked.
        collaboration: collaborations/{collaboration}.
        display_name: its name for people.
        members: who else is in it or invited.
        invited_by: who invited.
        invite_time: when.
    """

    organization: str
    collaboration: str
    display_name: str
    members: tuple[Member, ...]
    invited_by: str
    invite_time: datetime | None


@dataclass(frozen=True)
class Node:
    """A node.

    Attributes:
        name: organizations/{organization}/nodes/{node}.
        collaborations: that it serves.
        online: whether it is connected now.
        last_seen_time: when it was last heard of.
        datasets: what it offers.
        version: of its software.
        create_time: when it was created.
        active_collaborations: those whose membership its organization has not suspended.
        etag: version, for updates.
        transport: how it is connected now: ``stream``, or ``sync`` (unary calls: something on its way lets no streams
            through); empty when it is not.
        executor: what runs algorithms there: ``docker``, or ``process``, which has no sandbox; empty when it is not
            connected.
    """

    name: str
    collaborations: tuple[str, ...]
    online: bool
    last_seen_time: datetime | None
    datasets: tuple[Dataset, ...]
    version: str
    create_time: datetime | None
    active_collaborations: tuple[str, ...] = ()
    etag: str = ""
    transport: str = ""
    executor: str = ""


@dataclass(frozen=True)
class Permission:
    """What may be done: resource x operation x scope, e.g. ``TASK``, ``CREATE``, ``COLLABORATION``."""

    resource: str
    operation: str
    scope: str


@dataclass(frozen=True)
class Role:
    """A named set of permissions.

    Attributes:
        name: roles/{role}, or organizations/{organization}/roles/{role}.
        description: for people.
        permissions: what it permits.
        builtin: whether it comes with the server and cannot be changed.
        etag: version, for updates.
    """

    name: str
    description: str
    permissions: tuple[Permission, ...]
    builtin: bool = False
    etag: str = ""


@dataclass(frozen=True)
class Principal:
    """Who is logged in.

    Attributes:
        name: users/{user}.
        organization: organizations/{organization}, or empty.
        roles: roles/{role}.
        collaborations: that the organization is a member of.
    """

    name: str
    organization: str
    roles: tuple[str, ...]
    collaborations: tuple[str, ...]


@dataclass(frozen=True)
class IdentityProvider:
    """An OpenID Connect provider at which users may log in.

    Attributes:
        issuer: its issuer identifier.
        client_id: what clients call themselves there.
        scopes: what they ask for.
    """

    issuer: str
    client_id: str
    scopes: tuple[str, ...] = ("openid",)


@dataclass(frozen=True)
class DeviceCode:
    """What a user needs to log in at an identity provider on any device.

    Attributes:
        address: page to open.
        code: what to type there.
        complete_address: page that knows the code already; empty when the provider has none.
        expires_in: seconds that the code works.
    """

    address: str
    code: str
    complete_address: str
    expires_in: float


@dataclass(frozen=True)
class Enrolment:
    """What an app needs to show one-time codes.

    Attributes:
        secret: in base32, to type.
        uri: otpauth:// address, for a QR code.
    """

    secret: str
    uri: str

    def __repr__(self) -> str:
        return "Enrolment(…)"


@dataclass(frozen=True)
class LoginSession:
    """A log-in that has not ended.

    Attributes:
        id: of the session.
        method: how it began: password, identity, key or bootstrap.
        peer: address that it came from.
        created: when it began.
        refreshed: when its tokens were last renewed; None before that.
        expires: when it ends unless it is renewed.
        current: whether this client's calls belong to it.
    """

    id: str
    method: str
    peer: str
    created: datetime | None
    refreshed: datetime | None
    expires: datetime | None
    current: bool


@dataclass(frozen=True)
class LinkedIdentity:
    """Somebody at an identity provider who may log in as a user.

    Attributes:
        issuer: of the provider.
        subject: their id there.
        linked: since when.
    """

    issuer: str
    subject: str
    linked: datetime | None


@dataclass(frozen=True)
class Credentials:
    """How a user can log in.

    Attributes:
        user: users/{user}.
        has_password: whether there is a password.
        one_time_codes: whether a code is asked for after the password.
        recovery_codes_left: how many are not used up.
        identities: at the server's identity provider.
        sessions: that have not ended, the latest first; at most 500.
    """

    user: str
    has_password: bool
    one_time_codes: bool
    recovery_codes_left: int
    identities: tuple[LinkedIdentity, ...]
    sessions: tuple[LoginSession, ...]


@dataclass(frozen=True)
class ServerInfo:
    """What a server tells everybody.

    Attributes:
        version: of its software.
        audience: that assertions must carry.
        max_inline_payload_bytes: largest payload inside a message.
        max_payload_bytes: largest payload.
        server_time: its clock.
        bootstrap_pending: whether it waits for its first user.
        identity_provider: where users may log in instead of with a password; None when it has none.
    """

    version: str
    audience: str
    max_inline_payload_bytes: int
    max_payload_bytes: int
    server_time: datetime | None
    bootstrap_pending: bool
    identity_provider: IdentityProvider | None = None
