"""RelayService over gRPC: bytes in, bytes out, nothing parsed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

import grpc

from vantage.api.relay.v1 import relay_service_pb2 as pb
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.heap import keep_freed_memory
from vantage.common.rpc import abort
from vantage.server.relay.pairs import Pairs
from vantage.server.relay.tickets import Side, Ticket, TicketVerifier

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE = pb.DESCRIPTOR.services_by_name["RelayService"]
_PACE = 1.0
"""Seconds between two messages of WatchLoad."""


class RelayServicer:
    """Admits sides by their tickets; what they send is not looked at.

    Args:
        pairs: what forwards.
        verifier: what admits.
        clock: the time.
    """

    def __init__(self, pairs: Pairs, verifier: TicketVerifier, clock: Clock) -> None:
        keep_freed_memory()
        self._pairs = pairs
        self._verifier = verifier
        self._clock = clock
        self._started = clock.now()

    def handlers(self) -> grpc.GenericRpcHandler:
        """What to add to a server."""
        return grpc.method_handlers_generic_handler(
            SERVICE.full_name,
            {
                # Without serializers: the bytes of a message are what is forwarded.
                "Open": grpc.stream_stream_rpc_method_handler(self._open),
                "WatchLoad": grpc.unary_stream_rpc_method_handler(
                    self._watch,
                    request_deserializer=pb.WatchLoadRequest.FromString,
                    response_serializer=pb.WatchLoadResponse.SerializeToString,
                ),
            },
        )

    async def _open(self, _requests: object, context: Context) -> AsyncGenerator[bytes, None]:
        async def read() -> bytes | None:
            # Called while the *other* side is served: this call may have ended by then.
            try:
                message = await context.read()
            except grpc.aio.BaseError:
                raise error(Reason.RELAY_PEER_LOST, "the other side is gone") from None
            return message if isinstance(message, bytes) else None

        async def paired() -> None:
            await context.send_initial_metadata(())

        try:
            ticket = self._admit(context)
            async for message in self._pairs.join(ticket, read, paired):
                yield message
        except VantageError as problem:
            await abort(context, problem)

    async def _watch(
        self, request: pb.WatchLoadRequest, context: Context
    ) -> AsyncGenerator[pb.WatchLoadResponse, None]:
        try:
            if self._admit(context).side is not Side.WATCHES:
                raise error(Reason.RELAY_TICKET_INVALID, "the ticket is not for watching")
        except VantageError as problem:
            await abort(context, problem)
        changed = asyncio.Event()
        self._pairs.watchers.add(changed)
        try:
            while True:
                changed.clear()
                yield load(self._pairs, self._started, self._clock)
                await changed.wait()
                # Not a message per pair: a thousand that come at once are told once.
                await asyncio.sleep(_PACE)
        finally:
            self._pairs.watchers.discard(changed)

    def _admit(self, context: Context) -> Ticket:
        metadata = dict(context.invocation_metadata() or ())
        scheme, _, text = str(metadata.get("authorization", "")).partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise error(Reason.RELAY_TICKET_INVALID, "show a ticket: authorization: Bearer TICKET")
        try:
            return self._verifier.admit(text)
        except VantageError:
            self._pairs.counters.total_refused += 1
            raise


def load(pairs: Pairs, started: datetime, clock: Clock) -> pb.WatchLoadResponse:
    """How loaded a relay is."""
    counters = pairs.counters
    response = pb.WatchLoadResponse(
        pairs=counters.pairs,
        waiting=counters.waiting,
        total_pairs=counters.total_pairs,
        total_bytes=counters.total_bytes,
        total_refused=counters.total_refused,
        draining=pairs.draining,
        max_pairs=pairs.limits.max_pairs,
    )
    response.uptime.FromTimedelta(clock.now() - started)
    return response
