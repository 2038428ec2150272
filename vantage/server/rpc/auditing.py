"""Which calls the audit speaks of, and what it says of them.

(1) Calls that only read are recorded when they are refused; all others always. (2) An entry of a call that changes
something is written by the first unit of work that the call commits: neither is ever there without the other. (3) Calls
that prove who somebody is commit in several steps, of which the last decides: their entry is written after it and
before the answer, so that nobody holds a token without one. (4) Tasks have an entry each, written with the task: see
``creation``. (5) What strangers are refused is recorded up to a rate; how many were left out, the next entry says.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

from vantage.common.clock import Clock
from vantage.common.errors import PermissionDeniedError, Reason, UnauthenticatedError, VantageError
from vantage.server.domain.audit import Call, Verdict, current_call, note, set_call
from vantage.server.domain.principals import Principal
from vantage.server.rpc.context import request_id
from vantage.server.services.audit import Audit

log = logging.getLogger(__name__)

READS = ("Get", "List", "Watch", "Download", "Export", "Find", "Check")
STRANGERS_PER_SECOND = 20
_IDENTITY = "/vantage.api.identity."
_TASKS = frozenset(f"/vantage.api.task.v1.TaskService/{each}" for each in ("CreateTask", "RunTask", "RunTasks"))
_TARGETS = ("name", "collaboration", "organization")


class Auditor:
    """Keeps the entry of a call, from its admission to its answer.

    Args:
        audit: where entries go.
        clock: the time.
    """

    def __init__(self, audit: Audit, clock: Clock) -> None:
        self._audit = audit
        self._clock = clock
        self._second = datetime.min.replace(tzinfo=UTC)
        self._strangers = 0
        self._left_out = 0

    def begin(self, method: str, principal: Principal | None, request: Any, context: Any) -> None:
        """A call that changes something was admitted; ``request`` is None when a stream of them follows."""
        set_call(self._call(method, principal, context))
        if request is not None:
            note(_target(request))

    async def refused(self, method: str, principal: Principal | None, problem: VantageError, context: Any) -> None:
        """A call ended in an error; before its caller learns of it."""
        call = current_call()
        denied = (
            isinstance(problem, PermissionDeniedError | UnauthenticatedError) or problem.reason is Reason.LOCKED_OUT
        )
        if call is None:
            # Expired tokens are everyday life: clients refresh them.
            if not denied or problem.reason is Reason.TOKEN_EXPIRED:
                return
            call = self._call(method, principal, context)
        elif call.written:
            return
        if not call.principal and not self._may_record(call):
            return
        call.written = True
        verdict = Verdict.DENIED if denied else Verdict.FAILED
        await self._record(call, verdict, f"{problem.reason.name}: {problem.message[:300]}")

    async def done(self) -> None:
        """A call succeeded; before its answer is sent."""
        call = current_call()
        if call is not None and not call.written:
            call.written = True
            await self._audit.record(call.entry())

    async def _record(self, call: Call, verdict: Verdict, reason: str) -> None:
        try:
            await self._audit.record(call.entry(verdict, reason))
        except VantageError as problem:
            # The caller is refused anyway, and the database cannot hold what happened: the log does.
            log.error(
                "refusal not recorded",
                extra={"event": call.event, "principal": call.principal, "problem": problem.reason.name},
            )

    def _call(self, method: str, principal: Principal | None, context: Any) -> Call:
        service, _, name = method.rpartition("/")
        return Call(
            time=self._clock.now(),
            event=f"{service.rpartition('.')[2]}.{name}"[:120],
            principal="" if principal is None else principal.name,
            organization="" if principal is None else principal.organization or "",
            peer=str(context.peer())[:120],
            request_id=request_id(),
            with_change=not method.startswith(_IDENTITY) and method not in _TASKS,
        )

    def _may_record(self, call: Call) -> bool:
        if call.time - self._second >= timedelta(seconds=1):
            self._second, self._strangers = call.time, 0
        self._strangers += 1
        if self._strangers > STRANGERS_PER_SECOND:
            self._left_out += 1
            return False
        if self._left_out:
            call.details["left_out"] = str(self._left_out)
            self._left_out = 0
        return True


def is_read(method: str) -> bool:
    """Whether a call changes nothing."""
    return method.rpartition("/")[2].startswith(READS)


def _target(request: Any) -> str:
    """The resource that a request names: its own field, or the name of the resource that it holds."""
    fields = request.DESCRIPTOR.fields_by_name
    for field in _TARGETS:
        if field in fields:
            value = getattr(request, field)
            # In an update the field named after the resource holds the resource.
            return str(getattr(value, "name", "")) if hasattr(value, "DESCRIPTOR") else str(value)
    for field, descriptor in fields.items():
        if descriptor.message_type is not None and "name" in descriptor.message_type.fields_by_name:
            value = getattr(request, field)
            if isinstance(getattr(value, "name", None), str):
                return str(value.name)
    return ""
