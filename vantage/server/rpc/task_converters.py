"""Tasks, runs and events between the contract and the domain."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol, assert_never

from google.protobuf.timestamp_pb2 import Timestamp

from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.contents import Failure, Payload, inline_payload, referenced_payload
from vantage.server.domain.runs import DEFAULT_ATTEMPTS, OPEN, Run
from vantage.server.domain.task_events import Event, RunLogged, RunMoved, RunProgressed, RunWaits, TaskEnded
from vantage.server.domain.tasks import OnFailure, Target, Task, TaskSpec
from vantage.server.domain.waits import Wait
from vantage.server.services.tasks import Item, Snapshot

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)
_MAX_TIMEOUT_SECONDS = 10**9
"""Beyond what a timedelta holds the field is as wrong as beyond 30 days; the rule of the domain says so."""


class Liveness(Protocol):
    """What is known of runs beyond the database."""

    def can_take(self, run: Run) -> bool:
        """Whether a node that can take the run, or has it, is connected."""
        ...

    def progress(self, run: str) -> float:
        """Latest progress of a run, 0 to 1."""
        ...


def time_to_proto(moment: datetime) -> Timestamp:
    """A time."""
    passed = moment - _EPOCH
    return Timestamp(seconds=passed.days * 86_400 + passed.seconds, nanos=passed.microseconds * 1_000)


def payload_from_proto(message: types_pb2.Payload, limit: int, where: str) -> Payload:
    """A payload as received.

    Raises:
        LimitExceededError: PAYLOAD_TOO_LARGE, inline beyond the limit.
        InvalidArgumentError: a part is missing or wrong.
    """
    if message.sealing not in (types_pb2.SEALING_NONE, types_pb2.SEALING_AGE_V1):
        raise error(Reason.INVALID_ARGUMENT, f"{where}.sealing must be set", field=f"{where}.sealing")
    match message.WhichOneof("content"):
        case "inline":
            return inline_payload(message.inline, message.media_type, message.sealing, limit, where)
        case "reference":
            return referenced_payload(message.reference, message.media_type, message.sealing, where)
        case _:
            raise error(Reason.INVALID_ARGUMENT, f"{where} must be inline or a reference", field=where)


def payload_to_proto(payload: Payload) -> types_pb2.Payload:
    """A payload to send."""
    message = types_pb2.Payload(
        media_type=payload.media_type,
        sealing=payload.sealing,  # type: ignore[arg-type]  # the number is the contract's
        size_bytes=payload.size,
        digest=payload.digest,
    )
    if payload.reference is not None:
        message.reference = payload.reference
    else:
        message.inline = payload.inline or b""
    return message


def failure_to_proto(failure: Failure) -> types_pb2.Failure:
    """A failure to send."""
    return types_pb2.Failure(reason=failure.reason, message=failure.message, metadata=failure.metadata)


def error_to_proto(problem: VantageError) -> types_pb2.Failure:
    """An error as part of a stream."""
    return types_pb2.Failure(reason=problem.reason.name, message=problem.message, metadata=problem.metadata)


def hash_of(message: task_pb2.TaskSpec) -> bytes:
    """Digest of all that is asked."""
    return hashlib.sha256(message.SerializeToString(deterministic=True)).digest()


def spec_from_proto(message: task_pb2.TaskSpec, limit: int) -> TaskSpec:
    """What is asked, not yet validated but for its payloads.

    Raises:
        VantageError: see ``payload_from_proto``.
    """
    return TaskSpec(
        message.collaboration,
        message.title,
        message.image,
        message.function,
        tuple(
            Target(
                target.organization,
                target.node,
                payload_from_proto(target.arguments, limit, "spec.targets.arguments")
                if target.HasField("arguments")
                else None,
                tuple((binding.parameter, binding.dataset) for binding in target.datasets),
                tuple((each.holder, each.version) for each in target.key_versions),
            )
            for target in message.targets
        ),
        _limit(message, "timeout"),
        message.parent_run,
        message.order,
        study=message.study,
        quorum=message.quorum,
        on_failure=_on_failure(message.on_failure),
        max_runtime=_limit(message, "max_runtime"),
        max_attempts=message.max_attempts or DEFAULT_ATTEMPTS,
        detached=message.detached,
    )


def _limit(message: task_pb2.TaskSpec, field: Literal["timeout", "max_runtime"]) -> timedelta:
    """A time limit; zero when there is none."""
    if not message.HasField(field):
        return timedelta(0)
    value = message.timeout if field == "timeout" else message.max_runtime
    seconds = min(max(value.seconds, -1), _MAX_TIMEOUT_SECONDS)
    limit = timedelta(seconds=seconds, microseconds=value.nanos // 1_000)
    if limit <= timedelta(0):
        raise error(Reason.INVALID_ARGUMENT, f"spec.{field} must be above zero, or absent", field=f"spec.{field}")
    return limit


def _on_failure(number: int) -> OnFailure:
    try:
        return OnFailure(number or OnFailure.CONTINUE)
    except ValueError:
        raise error(
            Reason.INVALID_ARGUMENT, "spec.on_failure is not one that this server knows", field="spec.on_failure"
        ) from None


def spec_to_proto(spec: TaskSpec, *, arguments: bool) -> task_pb2.TaskSpec:
    """What was asked, with or without arguments."""
    message = task_pb2.TaskSpec(
        collaboration=spec.collaboration,
        title=spec.title,
        image=spec.image,
        function=spec.function,
        parent_run=spec.parent_run,
        order=spec.order,
        parent_orders=spec.parent_orders,
        study=spec.study,
        quorum=spec.quorum,
        on_failure=int(spec.on_failure),  # type: ignore[arg-type]  # the number is the contract's
        max_attempts=spec.max_attempts,
        detached=spec.detached,
    )
    if spec.max_runtime:
        message.max_runtime.FromTimedelta(spec.max_runtime)
    if spec.timeout:
        message.timeout.FromTimedelta(spec.timeout)
    for target in spec.targets:
        added = message.targets.add(organization=target.organization, node=target.node)
        if arguments and target.arguments is not None:
            added.arguments.CopyFrom(payload_to_proto(target.arguments))
        for parameter, dataset in target.datasets:
            added.datasets.add(parameter=parameter, dataset=dataset)
    return message


def wait_to_proto(wait: Wait) -> task_pb2.Wait:
    """What a run waits for."""
    message = task_pb2.Wait(
        cause=int(wait.cause),  # type: ignore[arg-type]  # the number is the contract's
        nodes=wait.nodes,
    )
    if wait.last_seen is not None:
        message.last_seen_time.CopyFrom(time_to_proto(wait.last_seen))
    return message


def run_to_proto(run: Run, liveness: Liveness, waits: Mapping[str, Wait]) -> task_pb2.Run:
    """A run."""
    message = task_pb2.Run(
        name=run.name,
        organization=run.organization,
        node=run.node,
        state=int(run.state),  # type: ignore[arg-type]  # the number is the contract's
        attempt=run.attempt,
        node_online=liveness.can_take(run),
        statement=run.statement,
    )
    if run.result is not None:
        message.result.CopyFrom(payload_to_proto(run.result))
    if run.failure is not None:
        told = message.last_failure if run.state in OPEN else message.failure
        told.CopyFrom(failure_to_proto(run.failure))
    if run.retry_time is not None:
        message.retry_time.CopyFrom(time_to_proto(run.retry_time))
    if (wait := waits.get(run.name)) is not None:
        message.wait.CopyFrom(wait_to_proto(wait))
    if run.assign_time is not None:
        message.assign_time.CopyFrom(time_to_proto(run.assign_time))
    if run.start_time is not None:
        message.start_time.CopyFrom(time_to_proto(run.start_time))
        message.progress = liveness.progress(run.name)
    if run.finish_time is not None:
        message.finish_time.CopyFrom(time_to_proto(run.finish_time))
    return message


def task_to_proto(task: Task, liveness: Liveness, waits: Mapping[str, Wait]) -> task_pb2.Task:
    """A task with its runs; arguments are left out."""
    message = task_pb2.Task(
        name=task.name,
        spec=spec_to_proto(task.spec, arguments=False),
        state=int(task.state),  # type: ignore[arg-type]  # the number is the contract's
        creator=task.creator,
        create_time=time_to_proto(task.created),
        deadline=time_to_proto(task.deadline),
        runs=[run_to_proto(run, liveness, waits) for run in task.runs],
        last_sequence=task.last_sequence,
    )
    if task.finished is not None:
        message.finish_time.CopyFrom(time_to_proto(task.finished))
    return message


def item_to_proto(item: Item, liveness: Liveness, waits: Mapping[str, Wait]) -> task_pb2.TaskEvent:
    """A snapshot or an event of a stream."""
    if isinstance(item, Snapshot):
        return task_pb2.TaskEvent(
            sequence=item.task.last_sequence,
            time=time_to_proto(item.time),
            snapshot=task_pb2.TaskSnapshot(task=task_to_proto(item.task, liveness, waits)),
        )
    return _event_to_proto(item, liveness, waits)


def _event_to_proto(event: Event, liveness: Liveness, waits: Mapping[str, Wait]) -> task_pb2.TaskEvent:
    message = task_pb2.TaskEvent(sequence=event.sequence, time=time_to_proto(event.time))
    match event.body:
        case RunMoved(run) as moved:
            part = message.run_finished if moved.ended else message.run_changed
            part.run.CopyFrom(run_to_proto(run, liveness, waits))
        case TaskEnded(state, succeeded, unsuccessful):
            message.task_finished.state = int(state)  # type: ignore[assignment]  # the number is the contract's
            message.task_finished.succeeded_runs = succeeded
            message.task_finished.failed_runs = unsuccessful
        case RunProgressed(name, organization, fraction, text):
            message.run_progress.run = name
            message.run_progress.organization = organization
            message.run_progress.fraction = fraction
            message.run_progress.message = text
        case RunLogged(name, organization, lines, dropped):
            message.run_log.run = name
            message.run_log.organization = organization
            message.run_log.lines.extend(lines)
            message.run_log.dropped_lines = dropped
        case RunWaits(run):
            message.run_waits.run = run.name
            message.run_waits.organization = run.organization
            if (wait := waits.get(run.name)) is not None:
                message.run_waits.wait.CopyFrom(wait_to_proto(wait))
        case _:
            assert_never(event.body)
    return message
