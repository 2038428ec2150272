"""NodeSessionService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

import grpc

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2_grpc
from vantage.server.domain.audit import set_call
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.session import NodeMessage
from vantage.server.rpc.context import current_node
from vantage.server.rpc.node_converters import node_message_from_proto, server_message_to_proto
from vantage.server.rpc.sync_sessions import SyncSessions
from vantage.server.services.sessions import Sessions

Context = grpc.aio.ServicerContext[Any, Any]


class NodeSessionServicer(node_session_service_pb2_grpc.NodeSessionServiceServicer):
    """Parses what a node says, writes what the server says; the rest is ``Sessions``."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._limit = sessions.settings.max_inline_bytes
        self._sync = SyncSessions()

    async def stop(self) -> None:
        """When no calls come any more."""
        await self._sync.stop()

    async def Connect(
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> AsyncGenerator[pb.ConnectResponse, None]:
        async with aclosing(self._serve(current_node(), request_iterator)) as responses:
            async for response in responses:
                yield response

    async def Sync(self, request: pb.SyncRequest, context: Context) -> pb.SyncResponse:
        node = current_node()
        if not self._sync.begins(node.name, request):
            set_call(None)  # the audit has an entry of each session, not of each call
        return await self._sync.exchange(node.name, request, partial(self._serve, node))

    async def _serve(
        self, node: NodePrincipal, requests: AsyncIterator[pb.ConnectRequest]
    ) -> AsyncGenerator[pb.ConnectResponse, None]:
        async with aclosing(self._sessions.serve(node, self._incoming(requests))) as messages:
            async for ack, message in messages:
                yield server_message_to_proto(ack, message)

    async def _incoming(self, requests: AsyncIterator[pb.ConnectRequest]) -> AsyncGenerator[NodeMessage, None]:
        async for request in requests:
            yield node_message_from_proto(request, self._limit)
