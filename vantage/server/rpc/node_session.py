"""NodeSessionService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2_grpc
from vantage.server.domain.session import NodeMessage
from vantage.server.rpc.context import current_node
from vantage.server.rpc.node_converters import node_message_from_proto, server_message_to_proto
from vantage.server.services.sessions import Sessions


class NodeSessionServicer(node_session_service_pb2_grpc.NodeSessionServiceServicer):
    """Parses what a node says, writes what the server says; the rest is ``Sessions``."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._limit = sessions.settings.max_inline_bytes

    async def Connect(
        self,
        request_iterator: AsyncIterator[pb.ConnectRequest],
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> AsyncGenerator[pb.ConnectResponse, None]:
        incoming = self._incoming(request_iterator)
        async with aclosing(self._sessions.serve(current_node(), incoming)) as messages:
            async for ack, message in messages:
                yield server_message_to_proto(ack, message)

    async def _incoming(self, requests: AsyncIterator[pb.ConnectRequest]) -> AsyncGenerator[NodeMessage, None]:
        async for request in requests:
            yield node_message_from_proto(request, self._limit)
