"""What happens to every call before and after its servicer: one pass, in this order.

(1) context: a request id, the caller's if the call carries one, into the logs and the audit; (2) errors: a
``VantageError`` becomes a status with its reason, anything else INTERNAL with the request id and nothing more;
(3) authentication: token to principal; (4) authorization: the access option of the RPC, no option means no; (5) limits:
calls at a time per principal; (6) audit: what was decided, durable before the caller learns of it.
One interceptor rather than five: each would cost every call a wrapped handler.

A call that changes who may do what runs to its end although its caller is gone: what follows the commit, such as
forgetting whom the server remembers and the entry of the audit, must not depend on whoever asked for it. A stream asks
again who its caller is when that may have changed: it may be open much longer than the log-in lasts.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor

from vantage.api.access.v1 import access_pb2
from vantage.common.errors import Reason, VantageError, error
from vantage.common.rpc import abort
from vantage.server.domain.audit import set_call
from vantage.server.domain.permissions import Operation, Resource, reach
from vantage.server.domain.principals import Principal, UserPrincipal
from vantage.server.mutual import check_holder
from vantage.server.rpc.auditing import Auditor, is_read
from vantage.server.rpc.context import known_principal, request_id, set_principal, set_request_id
from vantage.server.services.directory import Directory

log = logging.getLogger(__name__)

MAX_CALLS = 1_000
"""Calls at a time per principal, streams included."""
PUBLIC_SERVICES = ("grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection")
"""Services of others, without our option, that anyone may call."""
_TO_THE_END = ("/vantage.api.admin.", "/vantage.api.identity.")
_OWN_STREAMS = ("/vantage.api.node.v1.NodeSessionService/",)
"""Streams that whoever ends log-ins ends, with a farewell."""
_OK = "OK"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class AccessRule:
    """The access option of an RPC."""

    callers: frozenset[int]
    resource: Resource | None
    operation: Operation | None


def rules_of(services: Iterable[ServiceDescriptor]) -> dict[str, AccessRule]:
    """Access rules by method path, of the methods that have one."""
    rules = {}
    for service in services:
        for method in service.methods:
            options = method.GetOptions()
            if options.HasExtension(access_pb2.access):
                access = options.Extensions[access_pb2.access]
                rules[f"/{service.full_name}/{method.name}"] = AccessRule(
                    frozenset(access.callers),
                    Resource(access.resource) if access.resource else None,
                    Operation(access.operation) if access.operation else None,
                )
    return rules


Handled = Callable[[str, str, float | None], None]


def _nobody(_method: str, _reason: str, _seconds: float | None) -> None:
    """Nobody wants to know."""


class Gate(grpc.aio.ServerInterceptor):
    """Lets calls in, or not.

    Args:
        rules: see ``rules_of``.
        directory: who is behind a token.
        auditor: writes down what was decided.
        mutual: whether there is a port on which callers show certificates.
        handled: is told of each call that has ended: method, ``OK`` or the reason, and for one answer the seconds.
    """

    def __init__(
        self,
        rules: dict[str, AccessRule],
        directory: Directory,
        auditor: Auditor,
        *,
        mutual: bool = False,
        handled: Handled | None = None,
    ) -> None:
        self._handled = handled or _nobody
        self._mutual = mutual
        self._rules = rules
        self._directory = directory
        self._auditor = auditor
        self._calls: dict[str, int] = {}
        self._wrapped: dict[str, Any] = {}
        self._under_way: set[asyncio.Task[Any]] = set()

    async def settle(self) -> None:
        """Wait for calls whose callers are gone; when no new ones come any more."""
        if self._under_way:
            await asyncio.wait(set(self._under_way))

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        method = str(details.method)
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler: Any = await continuation(details)
            if handler is None or method[1:].rpartition("/")[0] in PUBLIC_SERVICES:
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: Any) -> Any:
        rule = self._rules.get(method)
        audited = not is_read(method)

        def one(behaviour: Any) -> Any:
            async def serve(request: Any, context: Any) -> Any:
                try:
                    principal = await self._admit(rule, context)
                    if audited:
                        self._auditor.begin(method, principal, None if handler.request_streaming else request, context)
                    caller = self._enter(principal, context)
                    try:
                        answer = await behaviour(request, context)
                    finally:
                        self._leave(caller)
                    if audited:
                        await self._auditor.done()
                    return answer
                except VantageError as problem:
                    refusal = problem
                except Exception as problem:  # noqa: BLE001  # whatever it is, the caller learns the request id only
                    refusal = _unknown(method, problem)
                await self._auditor.refused(method, known_principal(), refusal, context)
                return refusal

            to_the_end = audited and method.startswith(_TO_THE_END)

            @functools.wraps(behaviour)
            async def call(request: Any, context: Any) -> Any:
                began = time.monotonic()
                outcome = Reason.CANCELLED.name
                try:
                    serving = serve(request, context)
                    answer = await (self._to_the_end(serving) if to_the_end else serving)
                    outcome = answer.reason.name if isinstance(answer, VantageError) else _OK
                finally:
                    self._handled(method, outcome, time.monotonic() - began)
                if isinstance(answer, VantageError):
                    await abort(context, answer)
                return answer

            return call

        def many(behaviour: Any) -> Any:
            @functools.wraps(behaviour)
            async def call(request: Any, context: Any) -> AsyncIterator[Any]:
                outcome = Reason.CANCELLED.name
                try:
                    version = self._directory.version
                    principal = await self._admit(rule, context)
                    if audited:
                        self._auditor.begin(method, principal, None if handler.request_streaming else request, context)
                    if principal is None or method.startswith(_OWN_STREAMS):
                        standing = None
                    else:
                        standing = _Standing(self._directory, principal, version)
                        if handler.request_streaming:
                            request = standing.over(request)
                    caller = self._enter(principal, context)
                    try:
                        async for response in behaviour(request, context):
                            if standing is not None:
                                await standing.check()
                            yield response
                    finally:
                        self._leave(caller)
                    if audited:
                        await self._auditor.done()
                    outcome = _OK
                except VantageError as problem:
                    outcome = problem.reason.name
                    await self._refuse(method, problem, context)
                except Exception as problem:  # noqa: BLE001  # as above
                    outcome = Reason.INTERNAL.name
                    await self._refuse(method, _unknown(method, problem), context)
                finally:
                    self._handled(method, outcome, None)

            return call

        make, behaviour, wrap = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary, one),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream, many),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary, one),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream, many),
        }[handler.request_streaming, handler.response_streaming]
        return make(wrap(behaviour), handler.request_deserializer, handler.response_serializer)

    async def _to_the_end(self, serving: Coroutine[Any, Any, Any]) -> Any:
        task = asyncio.create_task(serving)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        # What comes of it when the caller is gone is in the audit, and in the log when it is a fault.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return await asyncio.shield(task)

    async def _refuse(self, method: str, problem: VantageError, context: Any) -> None:
        await self._auditor.refused(method, known_principal(), problem, context)
        await abort(context, problem)

    async def _admit(self, rule: AccessRule | None, context: Any) -> Principal | None:
        metadata = dict(context.invocation_metadata() or ())
        given = metadata.get("x-request-id", "")
        # Not sent back: whoever wants to know it gives one, and trailing metadata would cost each call a tenth more.
        set_request_id(given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else os.urandom(16).hex())
        set_principal(None)
        set_call(None)
        if rule is None:
            raise error(Reason.PERMISSION_DENIED, "this call has no access rule and is closed to everybody")
        if access_pb2.CALLER_ANYONE in rule.callers:
            return None
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise error(Reason.UNAUTHENTICATED, "log in first: the call carries no access token")
        principal = await self._directory.authenticate(token)
        set_principal(principal)  # before it is refused: the audit says who it was
        if self._mutual:
            check_holder(principal, context)
        _authorize(rule, principal)
        return principal

    def _enter(self, principal: Principal | None, context: Any) -> str:
        """A call begins; returns what to ``_leave`` with when it ends."""
        # Strangers by address without port, so that new connections do not help them.
        key = principal.name if principal is not None else str(context.peer()).rpartition(":")[0]
        if self._calls.get(key, 0) >= MAX_CALLS:
            raise error(
                Reason.RATE_LIMITED,
                f"more than {MAX_CALLS} calls at a time: wait for some to end",
                retry_after_seconds="1",
            )
        self._calls[key] = self._calls.get(key, 0) + 1
        return key

    def _leave(self, key: str) -> None:
        left = self._calls[key] - 1
        if left:
            self._calls[key] = left
        else:
            del self._calls[key]


class _Standing:
    """Whether the caller of a stream is still who was admitted; looked at when something has changed, so that it costs
    a comparison per message.

    Args:
        version: of the directory, from before the caller was looked up.
    """

    def __init__(self, directory: Directory, principal: Principal, version: int) -> None:
        self._directory = directory
        self._principal = principal
        self._version = version

    async def check(self) -> None:
        """Ask again if need be.

        Raises:
            VantageError: the log-in has ended; UNAVAILABLE when the caller may do more or less than before.
        """
        version = self._directory.version
        if version == self._version:
            return
        if await self._directory.reaffirm(self._principal) != self._principal:
            raise error(Reason.UNAVAILABLE, "what you may do has changed: call again")
        self._version = version

    async def over(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """The requests, each taken from a caller in good standing."""
        async for request in requests:
            await self.check()
            yield request


def _authorize(rule: AccessRule, principal: Principal) -> None:
    user = isinstance(principal, UserPrincipal)
    if (access_pb2.CALLER_USER if user else access_pb2.CALLER_NODE) not in rule.callers:
        raise error(Reason.PERMISSION_DENIED, f"{'users' if user else 'nodes'} may not make this call")
    if rule.resource is None or rule.operation is None:
        return
    if reach(principal, rule.resource, rule.operation).empty:
        what = f"{rule.operation.name.lower()} {rule.resource.name.lower()}s"
        raise error(Reason.PERMISSION_DENIED, f"none of your roles permits to {what}: ask an admin")


def _unknown(method: str, problem: Exception) -> VantageError:
    if isinstance(problem, grpc.aio.AbortError):
        raise problem
    log.error("call failed", extra={"method": method, "request_id": request_id()}, exc_info=problem)
    return error(
        Reason.INTERNAL,
        f"the server failed; its log has the cause under request id {request_id()}",
        request_id=request_id(),
    )
