"""Transport of AuditService."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from vantage.api.admin.v1 import audit_service_pb2 as pb
from vantage.api.admin.v1 import audit_service_pb2_grpc
from vantage.common.errors import Reason, error
from vantage.server.domain.audit import Entry, Verdict
from vantage.server.rpc.admin.common import time_to_proto
from vantage.server.rpc.context import current_user
from vantage.server.rpc.paging import fitting
from vantage.server.services.audit import Audit
from vantage.server.storage.audit_store import Listing

Context = Any


class AuditServicer(audit_service_pb2_grpc.AuditServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def ListAuditEntries(
        self, request: pb.ListAuditEntriesRequest, context: Context
    ) -> pb.ListAuditEntriesResponse:
        page = await self._audit.list_page(
            current_user(), _listing(request.filter), request.page_size, request.page_token
        )
        entries, token = fitting(page, entry_to_proto)
        return pb.ListAuditEntriesResponse(entries=entries, next_page_token=token)

    async def ExportAudit(
        self, request: pb.ExportAuditRequest, context: Context
    ) -> AsyncGenerator[pb.ExportAuditResponse, None]:
        async for chunk in self._audit.export(current_user()):
            yield pb.ExportAuditResponse(chunk=chunk)

    async def GetAuditLog(self, request: pb.GetAuditLogRequest, context: Context) -> pb.GetAuditLogResponse:
        state = await self._audit.state(current_user())
        return pb.GetAuditLogResponse(head=state.head, lines=state.lines, public_key=state.public_key)


def entry_to_proto(each: Entry) -> pb.AuditEntry:
    """An entry to send."""
    return pb.AuditEntry(
        id=each.id,
        time=time_to_proto(each.time),
        event=each.event,
        decision=each.verdict.value,  # type: ignore[arg-type]  # the number is the contract's
        reason=each.reason,
        principal=each.principal,
        organization=each.organization,
        target=each.target,
        peer=each.peer,
        request_id=each.request_id,
        details=each.details,
    )


def _listing(message: pb.AuditFilter) -> Listing:
    try:
        verdict = Verdict(message.decision) if message.decision else None
    except ValueError:
        raise error(Reason.INVALID_ARGUMENT, "filter.decision is not a known one", field="filter.decision") from None
    return Listing(
        message.principal,
        message.organization,
        message.event,
        message.target,
        verdict,
        _time(message, "after"),
        _time(message, "before"),
    )


def _time(message: pb.AuditFilter, field: str) -> datetime | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # one of two literals
        return None
    stamp: Timestamp = getattr(message, field)
    try:
        return stamp.ToDatetime(UTC)
    except ValueError:
        raise error(Reason.INVALID_ARGUMENT, f"filter.{field} is no time", field=f"filter.{field}") from None
