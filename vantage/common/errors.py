"""The one tree of errors, and the one table that maps a reason to a class and a gRPC status.

Services raise these; the server's interceptor turns them into a status with ``google.rpc.ErrorInfo``; the client turns
that back into the same class. A reason is public contract: it only gets added, never renamed.
"""

from __future__ import annotations

from enum import Enum, unique
from typing import NamedTuple

DOMAIN = "vantage"
"""``domain`` of every ``google.rpc.ErrorInfo`` that vantage sends."""


class VantageError(Exception):
    """Root of all errors that vantage raises on purpose.

    Args:
        reason: what went wrong, for programs.
        message: what went wrong and what to do next, for people. Never contains data, tokens or keys.
        metadata: the variable parts of the message.
    """

    def __init__(self, reason: Reason, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata

    def __str__(self) -> str:
        return f"{self.message} [{self.reason.name}]"


class InvalidArgumentError(VantageError):
    """The request itself is wrong: change it before sending it again."""


class UnauthenticatedError(VantageError):
    """Who is calling is not established: log in again."""


class PermissionDeniedError(VantageError):
    """The caller is known and may not do this."""


class NotFoundError(VantageError):
    """Does not exist, or the caller may not know that it does."""


class ConflictError(VantageError):
    """Contradicts what exists: already there, in use, or changed meanwhile."""


class LimitExceededError(VantageError):
    """A documented limit is reached."""


class UnavailableError(VantageError):
    """Something needed is not reachable now: the same call may succeed later."""


class RefusedError(VantageError):
    """A node's policy, or the trust in an image, does not allow a run."""


class TrustError(VantageError):
    """What arrived is not what somebody whom you trust has signed: do not use it."""


class RunError(VantageError):
    """A run ended without a result."""


class InternalError(VantageError):
    """A fault of vantage itself; the request id finds it in the server's log."""


class ConfigurationError(VantageError):
    """A configuration file, a flag or the environment of a program is wrong."""


class _Row(NamedTuple):
    error: type[VantageError]
    status: str


def _row(error: type[VantageError], status: str) -> _Row:
    return _Row(error, status)


@unique
class Reason(Enum):
    """Every reason there is. The value of each is unique; ``ROWS`` holds what it maps to."""

    # General.
    INVALID_ARGUMENT = 1
    NOT_FOUND = 2
    ALREADY_EXISTS = 3
    PERMISSION_DENIED = 4
    UNAUTHENTICATED = 5
    PAGE_TOKEN_INVALID = 6
    REQUEST_ID_REUSED = 7
    IN_USE = 8
    RATE_LIMITED = 9
    UNAVAILABLE = 10
    DEADLINE_EXCEEDED = 11
    INTERNAL = 12
    UNIMPLEMENTED = 13
    OUT_OF_RANGE = 14
    CONFIGURATION_INVALID = 15
    DATABASE_UNAVAILABLE = 16
    STORAGE_FULL = 17
    CANCELLED = 18
    ETAG_MISMATCH = 19
    AUDIT_LOG_DAMAGED = 20
    SANDBOX_NOT_HELD = 30
    # Identity.
    CREDENTIALS_INVALID = 100
    LOCKED_OUT = 101
    PASSWORD_TOO_WEAK = 102
    BOOTSTRAP_TOKEN_INVALID = 103
    TOKEN_INVALID = 104
    TOKEN_EXPIRED = 105
    TOKEN_REUSED = 106
    ASSERTION_INVALID = 107
    ASSERTION_REPLAYED = 108
    CLOCK_SKEWED = 109
    CERTIFICATE_INVALID = 110
    CERTIFICATE_UNTRUSTED = 111
    PRINCIPAL_UNKNOWN = 112
    ROLE_EXCEEDS_OWN = 113
    KEY_INVALID = 114
    SERVER_CERTIFICATE_MISMATCH = 115
    ONE_TIME_CODE_REQUIRED = 130
    ONE_TIME_CODE_INVALID = 131
    ENROLMENT_STATE = 132
    RESET_TOKEN_INVALID = 133
    IDENTITY_TOKEN_INVALID = 134
    IDENTITY_TOKEN_REPLAYED = 135
    IDENTITY_UNKNOWN = 136
    IDENTITY_PROVIDER_MISSING = 137
    IDENTITY_PROVIDER_UNAVAILABLE = 138
    CERTIFICATE_REVOKED = 116
    CERTIFICATE_SUPERSEDED = 117
    REVOCATION_LIST_INVALID = 118
    REVOCATION_LIST_OUTDATED = 119
    # Tasks.
    ORGANIZATION_NOT_MEMBER = 200
    IMAGE_NOT_BY_DIGEST = 201
    FUNCTION_UNKNOWN = 202
    ARGUMENTS_INVALID = 203
    PARENT_NOT_HELD = 204
    TASK_CANCELLED = 205
    TASK_EXPIRED = 206
    TOO_MANY_SUBTASKS = 207
    MEMBERSHIP_SUSPENDED = 208
    QUORUM_REACHED = 209
    QUORUM_MISSED = 210
    OTHER_RUN_FAILED = 211
    NODE_UNAVAILABLE = 212
    # Payloads.
    PAYLOAD_TOO_LARGE = 300
    PAYLOAD_DIGEST_MISMATCH = 301
    PAYLOAD_OFFSET_MISMATCH = 302
    PAYLOAD_QUOTA_EXCEEDED = 303
    PAYLOAD_STORE_UNAVAILABLE = 304
    ARGUMENTS_NOT_STAGED = 305
    # Sessions of nodes.
    SESSION_FENCED = 400
    SERVER_STOPPING = 401
    LEASE_INVALID = 402
    PROTOCOL_VIOLATION = 403
    SESSION_UNKNOWN = 404
    # A node refuses a run.
    POLICY_REFUSED = 500
    DATASET_UNKNOWN = 501
    COLLABORATION_NOT_SERVED = 502
    IMAGE_UNSIGNED = 503
    IMAGE_SIGNATURE_INVALID = 504
    IMAGE_NOT_ALLOWED = 505
    IMAGE_TAMPERED = 506
    IMAGE_NOT_FOUND = 507
    IMAGE_DECLARATION_INVALID = 508
    REGISTRY_UNAVAILABLE = 509
    IMAGE_TOO_LARGE = 510
    DATASET_ACCESS_REFUSED = 520
    DATASET_QUERY_INVALID = 521
    DATASET_UNSAFE = 522
    IMAGE_REVOKED = 530
    IMAGE_KEY_REVOKED = 531
    IMAGE_KEY_EXPIRED = 532
    IMAGE_SIGNATURES_TOO_FEW = 533
    IMAGE_SIGNED_ELSEWHERE = 534
    IMAGE_ATTESTATION_MISSING = 535
    ARGUMENTS_NOT_ALLOWED = 536
    # A run fails.
    ALGORITHM_FAILED = 600
    ALGORITHM_CRASHED = 601
    NO_RESULT = 602
    OUT_OF_MEMORY = 603
    RESULT_TOO_LARGE = 604
    RESULT_ALREADY_SUBMITTED = 605
    RESULT_NOT_SERIALIZABLE = 606
    NODE_STOPPING = 607
    SCRATCH_UNAVAILABLE = 608
    EXECUTOR_UNAVAILABLE = 609
    TOO_FEW_RECORDS = 610
    DATASET_UNREADABLE = 611
    NODE_LOST = 612
    RUNTIME_EXCEEDED = 613
    DISCLOSURE_REFUSED = 620
    APPROVAL_DENIED = 621
    DATASET_UNAVAILABLE = 630
    DATASET_NOT_REQUESTED = 631
    DATASET_TOO_LARGE = 632
    # Orders, sealing, signed results.
    ORDER_MISSING = 700
    ORDER_INVALID = 701
    ORDER_EXPIRED = 702
    ORDER_REPLAYED = 703
    ORDER_MISMATCH = 704
    ORDER_EXCEEDS_PARENT = 705
    SIGNER_UNTRUSTED = 706
    SEAL_INVALID = 707
    SEAL_MISSING = 708
    KEYS_INVALID = 709
    KEYS_STALE = 710
    RESULT_UNVERIFIED = 711
    # Peers.
    PEERS_REFUSED = 800
    PEER_NOT_READY = 801
    PEER_ENDED = 802
    PEER_LOST = 803
    TOO_MANY_CHANNELS = 804
    RELAY_UNAVAILABLE = 805
    RELAY_PEER_LOST = 806
    RELAY_TAMPERED = 807
    RELAY_TICKET_INVALID = 808
    RELAY_TICKET_EXPIRED = 809
    # Connections to datasets and hosts.
    EGRESS_REFUSED = 820
    HOST_UNREACHABLE = 821
    CONNECTION_LOST = 822


_GROUPS: dict[_Row, tuple[Reason, ...]] = {
    _row(InvalidArgumentError, "INVALID_ARGUMENT"): (
        Reason.INVALID_ARGUMENT,
        Reason.PAGE_TOKEN_INVALID,
        Reason.PASSWORD_TOO_WEAK,
        Reason.ONE_TIME_CODE_INVALID,
        Reason.CERTIFICATE_INVALID,
        Reason.REVOCATION_LIST_INVALID,
        Reason.IMAGE_NOT_BY_DIGEST,
        Reason.FUNCTION_UNKNOWN,
        Reason.ARGUMENTS_INVALID,
        Reason.PROTOCOL_VIOLATION,
        Reason.KEY_INVALID,
        Reason.RESULT_NOT_SERIALIZABLE,
    ),
    _row(InvalidArgumentError, "OUT_OF_RANGE"): (Reason.OUT_OF_RANGE,),
    _row(InvalidArgumentError, "FAILED_PRECONDITION"): (
        Reason.ORGANIZATION_NOT_MEMBER,
        Reason.MEMBERSHIP_SUSPENDED,
        Reason.IDENTITY_PROVIDER_MISSING,
        Reason.PAYLOAD_OFFSET_MISMATCH,
    ),
    _row(InvalidArgumentError, "DATA_LOSS"): (Reason.PAYLOAD_DIGEST_MISMATCH,),
    _row(TrustError, "DATA_LOSS"): (Reason.RESULT_UNVERIFIED,),
    _row(UnauthenticatedError, "UNAUTHENTICATED"): (
        Reason.UNAUTHENTICATED,
        Reason.CREDENTIALS_INVALID,
        Reason.ONE_TIME_CODE_REQUIRED,
        Reason.RESET_TOKEN_INVALID,
        Reason.IDENTITY_TOKEN_INVALID,
        Reason.IDENTITY_TOKEN_REPLAYED,
        Reason.BOOTSTRAP_TOKEN_INVALID,
        Reason.TOKEN_INVALID,
        Reason.TOKEN_EXPIRED,
        Reason.TOKEN_REUSED,
        Reason.ASSERTION_INVALID,
        Reason.ASSERTION_REPLAYED,
        Reason.CLOCK_SKEWED,
        Reason.SERVER_CERTIFICATE_MISMATCH,
        Reason.RELAY_TICKET_INVALID,
        Reason.RELAY_TICKET_EXPIRED,
    ),
    _row(PermissionDeniedError, "PERMISSION_DENIED"): (
        Reason.PERMISSION_DENIED,
        Reason.CERTIFICATE_UNTRUSTED,
        Reason.RELAY_TAMPERED,
        Reason.CERTIFICATE_REVOKED,
        Reason.CERTIFICATE_SUPERSEDED,
        Reason.PRINCIPAL_UNKNOWN,
        Reason.IDENTITY_UNKNOWN,
        Reason.ROLE_EXCEEDS_OWN,
        Reason.PARENT_NOT_HELD,
        Reason.DATASET_NOT_REQUESTED,
        Reason.EGRESS_REFUSED,
    ),
    _row(NotFoundError, "NOT_FOUND"): (
        Reason.NOT_FOUND,
        Reason.SESSION_UNKNOWN,
        Reason.ARGUMENTS_NOT_STAGED,
    ),
    _row(ConflictError, "ALREADY_EXISTS"): (
        Reason.ALREADY_EXISTS,
        Reason.REQUEST_ID_REUSED,
        Reason.RESULT_ALREADY_SUBMITTED,
    ),
    _row(ConflictError, "ABORTED"): (
        Reason.SESSION_FENCED,
        Reason.LEASE_INVALID,
        Reason.PEER_ENDED,
        Reason.ETAG_MISMATCH,
    ),
    _row(ConflictError, "FAILED_PRECONDITION"): (
        Reason.IN_USE,
        Reason.ENROLMENT_STATE,
        Reason.REVOCATION_LIST_OUTDATED,
    ),
    _row(LimitExceededError, "RESOURCE_EXHAUSTED"): (
        Reason.RATE_LIMITED,
        Reason.LOCKED_OUT,
        Reason.PAYLOAD_TOO_LARGE,
        Reason.TOO_MANY_SUBTASKS,
        Reason.RESULT_TOO_LARGE,
        Reason.STORAGE_FULL,
        Reason.PAYLOAD_QUOTA_EXCEEDED,
        Reason.TOO_MANY_CHANNELS,
        Reason.DATASET_TOO_LARGE,
    ),
    _row(UnavailableError, "UNAVAILABLE"): (
        Reason.UNAVAILABLE,
        Reason.DATABASE_UNAVAILABLE,
        Reason.PAYLOAD_STORE_UNAVAILABLE,
        Reason.REGISTRY_UNAVAILABLE,
        Reason.IDENTITY_PROVIDER_UNAVAILABLE,
        Reason.SERVER_STOPPING,
        Reason.EXECUTOR_UNAVAILABLE,
        Reason.PEER_NOT_READY,
        Reason.PEER_LOST,
        Reason.RELAY_UNAVAILABLE,
        Reason.RELAY_PEER_LOST,
        Reason.DATASET_UNAVAILABLE,
        Reason.HOST_UNREACHABLE,
        Reason.CONNECTION_LOST,
    ),
    _row(UnavailableError, "DEADLINE_EXCEEDED"): (Reason.DEADLINE_EXCEEDED,),
    _row(RefusedError, "FAILED_PRECONDITION"): (
        Reason.POLICY_REFUSED,
        Reason.DATASET_UNKNOWN,
        Reason.COLLABORATION_NOT_SERVED,
        Reason.IMAGE_UNSIGNED,
        Reason.IMAGE_SIGNATURE_INVALID,
        Reason.IMAGE_NOT_ALLOWED,
        Reason.IMAGE_TAMPERED,
        Reason.IMAGE_NOT_FOUND,
        Reason.IMAGE_DECLARATION_INVALID,
        Reason.IMAGE_TOO_LARGE,
        Reason.IMAGE_REVOKED,
        Reason.IMAGE_KEY_REVOKED,
        Reason.IMAGE_KEY_EXPIRED,
        Reason.IMAGE_SIGNATURES_TOO_FEW,
        Reason.IMAGE_SIGNED_ELSEWHERE,
        Reason.IMAGE_ATTESTATION_MISSING,
        Reason.ARGUMENTS_NOT_ALLOWED,
        Reason.ORDER_MISSING,
        Reason.ORDER_INVALID,
        Reason.ORDER_EXPIRED,
        Reason.ORDER_REPLAYED,
        Reason.ORDER_MISMATCH,
        Reason.ORDER_EXCEEDS_PARENT,
        Reason.SIGNER_UNTRUSTED,
        Reason.SEAL_INVALID,
        Reason.SEAL_MISSING,
        Reason.KEYS_INVALID,
        Reason.KEYS_STALE,
        Reason.PEERS_REFUSED,
        Reason.DISCLOSURE_REFUSED,
        Reason.APPROVAL_DENIED,
        Reason.DATASET_ACCESS_REFUSED,
        Reason.DATASET_QUERY_INVALID,
        Reason.DATASET_UNSAFE,
    ),
    _row(RunError, "ABORTED"): (
        Reason.TASK_CANCELLED,
        Reason.TASK_EXPIRED,
        Reason.QUORUM_REACHED,
        Reason.QUORUM_MISSED,
        Reason.OTHER_RUN_FAILED,
        Reason.NODE_UNAVAILABLE,
        Reason.RUNTIME_EXCEEDED,
        Reason.ALGORITHM_FAILED,
        Reason.ALGORITHM_CRASHED,
        Reason.NO_RESULT,
        Reason.OUT_OF_MEMORY,
        Reason.NODE_STOPPING,
        Reason.SCRATCH_UNAVAILABLE,
        Reason.TOO_FEW_RECORDS,
        Reason.DATASET_UNREADABLE,
        Reason.NODE_LOST,
    ),
    _row(InternalError, "INTERNAL"): (Reason.INTERNAL,),
    _row(InternalError, "UNIMPLEMENTED"): (Reason.UNIMPLEMENTED,),
    _row(InternalError, "CANCELLED"): (Reason.CANCELLED,),
    _row(ConfigurationError, "FAILED_PRECONDITION"): (
        Reason.AUDIT_LOG_DAMAGED,
        Reason.CONFIGURATION_INVALID,
        Reason.SANDBOX_NOT_HELD,
    ),
}

ROWS: dict[Reason, _Row] = {reason: row for row, reasons in _GROUPS.items() for reason in reasons}
"""Reason -> (class, name of the gRPC status code). Complete: a test compares it with the enum."""

AUTHOR_REASONS = frozenset(
    {
        Reason.ALGORITHM_FAILED,
        Reason.TOO_FEW_RECORDS,
        Reason.DATASET_UNREADABLE,
        Reason.ARGUMENTS_INVALID,
        Reason.RESULT_NOT_SERIALIZABLE,
        Reason.FUNCTION_UNKNOWN,
        Reason.SCRATCH_UNAVAILABLE,
    }
)
"""Reasons that an algorithm may give, and a node accepts. Any other would let it speak in the name of the node."""


def error(reason: Reason, message: str, **metadata: str) -> VantageError:
    """Build the error of the class that belongs to ``reason``."""
    return ROWS[reason].error(reason, message, **metadata)


def from_wire(reason: str, message: str, metadata: dict[str, str]) -> VantageError:
    """Build an error from its parts as received; a reason of a newer peer becomes INTERNAL with the text kept."""
    try:
        known = Reason[reason]
    except KeyError:
        return InternalError(Reason.INTERNAL, f"{message} (unknown reason {reason}: update vantage)", **metadata)
    return error(known, message, **metadata)
