"""What the admin services share: times, update masks, permissions as messages."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from google.protobuf import field_mask_pb2, timestamp_pb2
from google.protobuf.message import Message

from vantage.api.admin.v1 import role_service_pb2 as role_pb
from vantage.common.errors import Reason, error
from vantage.server.domain.permissions import Operation, Permission, Resource, Scope

MAX_PERMISSIONS = 500


def time_to_proto(value: datetime) -> timestamp_pb2.Timestamp:
    """A time to send."""
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(value)
    return message


def changed_fields(mask: field_mask_pb2.FieldMask, message: Message, allowed: Sequence[str]) -> frozenset[str]:
    """Which fields of a message an update changes: those of the mask, or without one those that are set.

    Raises:
        InvalidArgumentError: the mask names another field.
    """
    if not mask.paths:
        return frozenset(field for field in allowed if getattr(message, field))
    for path in mask.paths:
        if path not in allowed:
            raise error(
                Reason.INVALID_ARGUMENT,
                f"update_mask: {path[:80]!r} cannot be changed, only {', '.join(allowed)}",
                field="update_mask",
            )
    return frozenset(mask.paths)


def permissions_from_proto(messages: Iterable[role_pb.Permission]) -> frozenset[Permission]:
    """Permissions as received.

    Raises:
        InvalidArgumentError: one is not whole, or they are too many.
    """
    permissions = set()
    for index, each in enumerate(messages):
        if index >= MAX_PERMISSIONS:
            raise error(
                Reason.INVALID_ARGUMENT, f"a role has at most {MAX_PERMISSIONS} permissions", field="permissions"
            )
        try:
            permissions.add(Permission(Resource(each.resource), Operation(each.operation), Scope(each.scope)))
        except ValueError:
            raise error(
                Reason.INVALID_ARGUMENT,
                f"permissions[{index}] must have a known resource, operation and scope",
                field="permissions",
            ) from None
    return frozenset(permissions)


def permissions_to_proto(permissions: Iterable[Permission]) -> list[role_pb.Permission]:
    """Permissions to send, in a fixed order."""
    return [
        role_pb.Permission(
            resource=each.resource.value,  # type: ignore[arg-type]  # the numbers are the contract's
            operation=each.operation.value,  # type: ignore[arg-type]
            scope=each.scope.value,  # type: ignore[arg-type]
        )
        for each in sorted(permissions, key=lambda p: (p.resource.value, p.operation.value, p.scope))
    ]
