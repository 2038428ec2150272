"""Transport of RegistryService."""

from __future__ import annotations

from typing import Any

from vantage.api.node.v1 import registry_service_pb2 as pb
from vantage.api.node.v1 import registry_service_pb2_grpc
from vantage.server.domain.pull_tokens import LIFETIME
from vantage.server.rpc.context import current_node
from vantage.server.services.registries import Registries

Context = Any


class RegistryServicer(registry_service_pb2_grpc.RegistryServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    async def GetPullToken(self, request: pb.GetPullTokenRequest, context: Context) -> pb.GetPullTokenResponse:
        token = self._registries.pull_token(current_node(), request.registry, request.repository)
        answer = pb.GetPullTokenResponse(token=token)
        answer.lifetime.FromTimedelta(LIFETIME)
        return answer
