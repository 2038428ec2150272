"""Transport of KeyService."""

from __future__ import annotations

from typing import Any

from vantage.api.identity.v1 import key_service_pb2 as pb
from vantage.api.identity.v1 import key_service_pb2_grpc
from vantage.server.rpc.context import current_principal
from vantage.server.rpc.paging import fitting
from vantage.server.services.keys import Keys
from vantage.server.storage.key_store import PublishedKeys

Context = Any


class KeyServicer(key_service_pb2_grpc.KeyServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def PublishKeys(self, request: pb.PublishKeysRequest, context: Context) -> pb.PublishKeysResponse:
        made = await self._keys.publish(current_principal(), request.envelope)
        return pb.PublishKeysResponse(keys=_to_proto(made))

    async def GetKeys(self, request: pb.GetKeysRequest, context: Context) -> pb.GetKeysResponse:
        return pb.GetKeysResponse(keys=_to_proto(await self._keys.get(current_principal(), request.holder)))

    async def ListNodeKeys(self, request: pb.ListNodeKeysRequest, context: Context) -> pb.ListNodeKeysResponse:
        page = await self._keys.list_of_nodes(
            current_principal(), request.collaboration, request.organizations, request.page_size, request.page_token
        )
        keys, token = fitting(page, _to_proto)
        return pb.ListNodeKeysResponse(keys=keys, next_page_token=token)


def _to_proto(keys: PublishedKeys) -> pb.PublishedKeys:
    return pb.PublishedKeys(holder=keys.holder, version=keys.version, envelope=keys.envelope)
