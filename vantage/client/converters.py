"""From messages of the contract to values of the client."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from vantage.api.access.v1 import access_pb2
from vantage.api.admin.v1 import (
    audit_service_pb2,
    collaboration_service_pb2,
    membership_service_pb2,
    node_service_pb2,
    organization_service_pb2,
    role_service_pb2,
    study_service_pb2,
    user_service_pb2,
)
from vantage.api.identity.v1 import credential_pb2
from vantage.api.node.v1 import node_session_service_pb2
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client import datasets, models

_TRANSPORTS: dict[int, str] = {
    node_session_service_pb2.TRANSPORT_STREAM: "stream",
    node_session_service_pb2.TRANSPORT_SYNC: "sync",
}


def moment(message: Timestamp) -> datetime | None:
    """A time; None when it is not set."""
    if not message.seconds and not message.nanos:
        return None
    return message.ToDatetime(UTC)


def task_state(number: int) -> models.TaskState:
    """A state; UNKNOWN for one of a newer server."""
    try:
        return models.TaskState(task_pb2.TaskState.Name(number).removeprefix("TASK_STATE_"))  # type: ignore[arg-type]
    except ValueError:
        return models.TaskState.UNKNOWN


def run_state(number: int) -> models.RunState:
    """A state; UNKNOWN for one of a newer server."""
    try:
        return models.RunState(task_pb2.RunState.Name(number).removeprefix("RUN_STATE_"))  # type: ignore[arg-type]
    except ValueError:
        return models.RunState.UNKNOWN


def task_state_to_proto(state: models.TaskState) -> task_pb2.TaskState.ValueType:
    """A state to ask for."""
    return task_pb2.TaskState.Value(f"TASK_STATE_{state.name}")


def failure(message: types_pb2.Failure) -> models.Failure:
    """Why something failed."""
    return models.Failure(message.reason, message.message, dict(message.metadata))


def content(message: types_pb2.Payload) -> models.Content:
    """An unopened payload."""
    stored = message.WhichOneof("content") == "reference"
    return models.Content(
        media_type=message.media_type,
        size=message.size_bytes,
        digest=message.digest,
        inline=None if stored else message.inline,
        reference=message.reference if stored else None,
        sealing=int(message.sealing),
    )


def run(message: task_pb2.Run) -> models.Run:
    """A run."""
    return models.Run(
        name=message.name,
        organization=message.organization,
        node=message.node,
        state=run_state(message.state),
        attempt=message.attempt,
        content=content(message.result) if message.HasField("result") else None,
        failure=failure(message.failure) if message.HasField("failure") else None,
        assign_time=moment(message.assign_time),
        start_time=moment(message.start_time),
        finish_time=moment(message.finish_time),
        node_online=message.node_online,
        progress=message.progress,
        statement=message.statement,
        last_failure=failure(message.last_failure) if message.HasField("last_failure") else None,
        retry_time=moment(message.retry_time),
        wait=_wait(message.wait) if message.HasField("wait") else None,
    )


def _wait(message: task_pb2.Wait) -> models.Wait:
    try:
        cause = models.WaitCause(task_pb2.WaitCause.Name(message.cause).removeprefix("WAIT_CAUSE_"))
    except ValueError:
        cause = models.WaitCause.UNKNOWN
    return models.Wait(cause, tuple(message.nodes), moment(message.last_seen_time))


def task(message: task_pb2.Task) -> models.Task:
    """A task."""
    spec = message.spec
    return models.Task(
        name=message.name,
        title=spec.title,
        collaboration=spec.collaboration,
        image=spec.image,
        function=spec.function,
        targets=tuple(
            models.Target(
                each.organization, each.node, None, {bound.parameter: bound.dataset for bound in each.datasets}
            )
            for each in spec.targets
        ),
        state=task_state(message.state),
        creator=message.creator,
        create_time=moment(message.create_time),
        deadline=moment(message.deadline),
        finish_time=moment(message.finish_time),
        runs=tuple(run(each) for each in message.runs),
        parent_run=spec.parent_run,
        last_sequence=message.last_sequence,
        study=spec.study,
        order=spec.order,
        quorum=spec.quorum,
        on_failure=_on_failure(spec.on_failure),
        max_runtime=spec.max_runtime.ToTimedelta() if spec.HasField("max_runtime") else None,
        max_attempts=spec.max_attempts,
        detached=spec.detached,
    )


def _on_failure(number: int) -> models.OnFailure:
    cancel_rest = number == task_pb2.ON_FAILURE_CANCEL_REST
    return models.OnFailure.CANCEL_REST if cancel_rest else models.OnFailure.CONTINUE


def event(message: task_pb2.TaskEvent) -> models.Event | None:
    """An event; None for a kind of a newer server."""
    sequence, time = message.sequence, moment(message.time)
    match message.WhichOneof("event"):
        case "snapshot":
            return models.TaskSnapshot(sequence, time, task(message.snapshot.task))
        case "run_changed":
            return models.RunChanged(sequence, time, run(message.run_changed.run))
        case "run_finished":
            return models.RunFinished(sequence, time, run(message.run_finished.run))
        case "task_finished":
            end = message.task_finished
            return models.TaskFinished(sequence, time, task_state(end.state), end.succeeded_runs, end.failed_runs)
        case "run_progress":
            step = message.run_progress
            return models.RunProgress(sequence, time, step.run, step.organization, step.fraction, step.message)
        case "run_waits":
            waits = message.run_waits
            return models.RunWaits(sequence, time, waits.run, waits.organization, _wait(waits.wait))
        case "run_log":
            log = message.run_log
            return models.RunLog(sequence, time, log.run, log.organization, tuple(log.lines), log.dropped_lines)
        case _:
            return None


def organization(message: organization_service_pb2.Organization) -> models.Organization:
    """An organization."""
    return models.Organization(
        message.name, message.display_name, tuple(message.ca_certificates), moment(message.create_time), message.etag
    )


def user(message: user_service_pb2.User) -> models.User:
    """A user."""
    return models.User(
        message.name,
        message.organization,
        tuple(message.roles),
        message.display_name,
        moment(message.create_time),
        message.etag,
        message.kind == user_service_pb2.USER_KIND_SERVICE_ACCOUNT,
    )


def login_session(message: credential_pb2.LoginSession) -> models.LoginSession:
    """A session of a user."""
    return models.LoginSession(
        message.id,
        credential_pb2.LoginMethod.Name(message.method).removeprefix("LOGIN_METHOD_").lower(),
        message.peer,
        moment(message.create_time),
        moment(message.refresh_time) if message.HasField("refresh_time") else None,
        moment(message.expire_time),
        message.current,
    )


def credentials(
    message: credential_pb2.Credentials, sessions: Iterable[credential_pb2.LoginSession]
) -> models.Credentials:
    """How a user can log in."""
    return models.Credentials(
        message.user,
        message.has_password,
        message.one_time_codes_enabled,
        message.recovery_codes_left,
        tuple(models.LinkedIdentity(each.issuer, each.subject, moment(each.link_time)) for each in message.identities),
        tuple(map(login_session, sessions)),
    )


def collaboration(message: collaboration_service_pb2.Collaboration) -> models.Collaboration:
    """A collaboration."""
    return models.Collaboration(
        message.name,
        message.display_name,
        tuple(message.organizations),
        moment(message.create_time),
        tuple(member(each) for each in message.members),
        message.etag,
    )


def member(message: collaboration_service_pb2.Member) -> models.Member:
    """An organization in a collaboration."""
    try:
        name = collaboration_service_pb2.MembershipState.Name(message.state)
        state = models.MembershipState(name.removeprefix("MEMBERSHIP_STATE_"))
    except ValueError:
        state = models.MembershipState.UNKNOWN
    return models.Member(message.organization, state, message.invited_by, moment(message.since))


def invitation(message: membership_service_pb2.Invitation) -> models.Invitation:
    """An open invitation."""
    return models.Invitation(
        message.organization,
        message.collaboration,
        message.display_name,
        tuple(member(each) for each in message.members),
        message.invited_by,
        moment(message.invite_time),
    )


def study(message: study_service_pb2.Study) -> models.Study:
    """A study."""
    return models.Study(
        message.name,
        message.display_name,
        tuple(message.organizations),
        moment(message.create_time),
        message.etag,
    )


def audit_entry(message: audit_service_pb2.AuditEntry) -> models.AuditEntry:
    """A decision of the server."""
    return models.AuditEntry(
        id=message.id,
        time=moment(message.time),
        event=message.event,
        decision=_word(audit_service_pb2.AuditDecision, message.decision, "AUDIT_DECISION_"),
        reason=message.reason,
        principal=message.principal,
        organization=message.organization,
        target=message.target,
        peer=message.peer,
        request_id=message.request_id,
        details=dict(message.details),
    )


def dataset(message: node_session_service_pb2.DatasetInfo) -> datasets.Dataset:
    """A dataset of a node."""
    return datasets.Dataset(
        message.name,
        message.format,
        message.description,
        message.access,
        tuple(
            datasets.DatasetTable(
                each.name,
                tuple((column.name, column.type) for column in each.columns),
                each.row_count if each.HasField("row_count") else None,
            )
            for each in message.tables
        ),
        tuple(
            datasets.DatasetQuery(each.name, each.description, tuple(_query_parameter(one) for one in each.parameters))
            for each in message.queries
        ),
    )


def _query_parameter(message: node_session_service_pb2.QueryParameter) -> datasets.QueryParameter:
    return datasets.QueryParameter(
        message.name,
        message.type,
        message.description,
        message.minimum,
        message.maximum,
        tuple(message.values),
        message.max_length,
        message.required,
    )


def node(message: node_service_pb2.Node) -> models.Node:
    """A node."""
    return models.Node(
        name=message.name,
        collaborations=tuple(message.collaborations),
        online=message.online,
        last_seen_time=moment(message.last_seen_time),
        datasets=tuple(dataset(each) for each in message.datasets),
        version=message.version,
        create_time=moment(message.create_time),
        active_collaborations=tuple(message.active_collaborations),
        etag=message.etag,
        transport=_TRANSPORTS.get(message.transport, ""),
        executor=message.executor,
    )


def role(message: role_service_pb2.Role) -> models.Role:
    """A role."""
    permissions = tuple(_permission(each) for each in message.permissions)
    return models.Role(message.name, message.description, permissions, message.builtin, message.etag)


def _permission(message: role_service_pb2.Permission) -> models.Permission:
    return models.Permission(
        _word(access_pb2.Resource, message.resource, "RESOURCE_"),
        _word(access_pb2.Operation, message.operation, "OPERATION_"),
        _word(role_service_pb2.Scope, message.scope, "SCOPE_"),
    )


def _word(wrapper: object, number: int, prefix: str) -> str:
    """The word of an enum's value; UNKNOWN for one of a newer server."""
    try:
        return str(wrapper.Name(number)).removeprefix(prefix)  # type: ignore[attr-defined]
    except ValueError:
        return "UNKNOWN"
