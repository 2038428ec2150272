"""Messages of a node's stream between the contract and the domain."""

from __future__ import annotations

from typing import assert_never

from google.protobuf.duration_pb2 import Duration

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.contents import Failure, bounded_failure
from vantage.server.domain.jobs import OpenRelay
from vantage.server.domain.leases import Report
from vantage.server.domain.runs import Lease, RunEvent
from vantage.server.domain.session import (
    Acknowledge,
    CancelRun,
    Goodbye,
    Heartbeat,
    HeartbeatReply,
    Hello,
    Logged,
    NodeMessage,
    Progressed,
    Reported,
    Transport,
    Welcome,
)
from vantage.server.domain.tasks import Work
from vantage.server.rpc.catalogue import catalogue_text
from vantage.server.rpc.relay_broker import open_relay_to_proto, relay_answer_from_proto
from vantage.server.rpc.task_converters import payload_from_proto, spec_to_proto, time_to_proto
from vantage.server.services.outbox import ServerMessage

MAX_LINES = 1_000
MAX_LINE = 2_000
MAX_PROGRESS_TEXT = 200
MAX_STATEMENT_BYTES = 64 * 1024
_TRANSPORTS = {pb.TRANSPORT_STREAM: Transport.STREAM, pb.TRANSPORT_SYNC: Transport.SYNC}


def lease_from_proto(message: pb.Lease) -> Lease:
    """A lease."""
    return Lease(message.run, message.lease_id, message.attempt)


def lease_to_proto(lease: Lease) -> pb.Lease:
    """A lease."""
    return pb.Lease(run=lease.run, lease_id=lease.lease_id, attempt=lease.attempt)


def node_message_from_proto(message: pb.ConnectRequest, limit: int) -> NodeMessage:
    """What a node says.

    Raises:
        InvalidArgumentError: PROTOCOL_VIOLATION: nothing that this server knows.
    """
    match message.WhichOneof("message"):
        case "hello":
            hello = message.hello
            return Hello(
                hello.version,
                hello.instance_id[:80],
                tuple((dataset.name[:100], dataset.format[:40]) for dataset in hello.datasets),
                tuple(lease_from_proto(lease) for lease in hello.leases),
                hello.slots,
                _TRANSPORTS.get(hello.transport, Transport.UNKNOWN),
                catalogue_text(hello.datasets),
                hello.executor[:40],
                hello.stopping,
            )
        case "heartbeat":
            leases = tuple(lease_from_proto(lease) for lease in message.heartbeat.leases)
            return Heartbeat(leases, message.heartbeat.stopping)
        case "accepted":
            return Reported(message.sequence, Report(lease_from_proto(message.accepted.lease), None))
        case "refused":
            failure = _failure(message.refused.failure)
            lease = lease_from_proto(message.refused.lease)
            statement = _statement(message.refused.statement)
            retryable = message.refused.retryable
            return Reported(
                message.sequence,
                Report(lease, RunEvent.REFUSE, failure=failure, statement=statement, retryable=retryable),
            )
        case "started":
            return Reported(message.sequence, Report(lease_from_proto(message.started.lease), RunEvent.START))
        case "completed":
            return Reported(message.sequence, _completed(message.completed, limit))
        case "progress":
            progress = message.progress
            fraction = min(max(progress.fraction, 0.0), 1.0) if progress.fraction == progress.fraction else 0.0
            return Progressed(lease_from_proto(progress.lease), fraction, progress.message[:MAX_PROGRESS_TEXT])
        case "log_lines":
            lines = message.log_lines
            cut = max(len(lines.lines) - MAX_LINES, 0)
            return Logged(
                lease_from_proto(lines.lease),
                tuple(line[:MAX_LINE] for line in lines.lines[cut:]),
                lines.dropped_lines + cut,
            )
        case "relay_answer":
            return relay_answer_from_proto(message.relay_answer)
        case _:
            raise error(Reason.PROTOCOL_VIOLATION, "a message of the node has no content that this server knows")


def _completed(message: pb.Completed, limit: int) -> Report:
    lease = lease_from_proto(message.lease)
    match message.WhichOneof("outcome"):
        case "result":
            try:
                result = payload_from_proto(message.result, limit, "result")
                return Report(lease, RunEvent.SUCCEED, result, statement=_statement(message.statement))
            except VantageError as problem:
                # The answer cannot be kept. The run ends with the reason; an error would make the node send it again.
                reason = Reason.RESULT_TOO_LARGE if problem.reason is Reason.PAYLOAD_TOO_LARGE else Reason.NO_RESULT
                return Report(lease, RunEvent.FAIL, failure=Failure(reason.name, problem.message))
        case "failure":
            failure = _failure(message.failure)
            statement = _statement(message.statement)
            return Report(lease, RunEvent.FAIL, failure=failure, statement=statement, retryable=message.retryable)
        case "cancelled":
            failure = bounded_failure(
                message.cancelled.reason or Reason.NODE_STOPPING.name, "the node stopped the run", {}
            )
            return Report(lease, RunEvent.STOP, failure=failure)
        case _:
            failure = Failure(Reason.NO_RESULT.name, "the node said that the run ended, but not how")
            return Report(lease, RunEvent.FAIL, failure=failure)


def _statement(envelope: bytes) -> bytes:
    # One that is too large cannot be one: the client says that the outcome is not signed.
    return envelope if len(envelope) <= MAX_STATEMENT_BYTES else b""


def _failure(message: types_pb2.Failure) -> Failure:
    return bounded_failure(message.reason, message.message, dict(message.metadata))


def server_message_to_proto(ack: int, message: ServerMessage) -> pb.ConnectResponse:
    """What the server says, with its acknowledgement."""
    response = pb.ConnectResponse(ack=ack)
    match message:
        case Work():
            response.assign.CopyFrom(assign_to_proto(message))
        case HeartbeatReply(revoked, server_time, trust_version):
            response.heartbeat_reply.trust_version = trust_version
            response.heartbeat_reply.revoked.extend(lease_to_proto(lease) for lease in revoked)
            response.heartbeat_reply.server_time.CopyFrom(time_to_proto(server_time))
        case Acknowledge():
            pass
        case Welcome(settings, revoked, collaborations, trust_version, fenced, spread):
            welcome = response.welcome
            welcome.trust_version = trust_version
            welcome.fenced_instance_id = fenced
            welcome.reconnect_spread.CopyFrom(_seconds(spread))
            welcome.heartbeat_interval.CopyFrom(_seconds(settings.heartbeat_seconds))
            welcome.lease_duration.CopyFrom(_seconds(settings.lease_seconds))
            welcome.revoked.extend(lease_to_proto(lease) for lease in revoked)
            welcome.collaborations.extend(collaborations)
            welcome.max_inline_payload_bytes = settings.max_inline_bytes
        case CancelRun(lease, reason):
            response.cancel_run.lease.CopyFrom(lease_to_proto(lease))
            response.cancel_run.reason = reason
        case OpenRelay():
            response.open_relay.CopyFrom(open_relay_to_proto(message))
        case Goodbye(why, text):
            response.goodbye.reason = why.name
            response.goodbye.message = text
        case _:
            assert_never(message)
    return response


def assign_to_proto(work: Work) -> pb.Assign:
    """A run for a node."""
    return pb.Assign(
        lease=lease_to_proto(work.lease),
        spec=spec_to_proto(work.spec, arguments=True),
        creator=work.creator,
        creator_organization=work.creator_organization,
        deadline=time_to_proto(work.deadline),
        organizations=work.organizations,
    )


def _seconds(value: float) -> Duration:
    duration = Duration()
    duration.FromMicroseconds(round(value * 1_000_000))
    return duration
