"""Transport of NodeService."""

from __future__ import annotations

from typing import Any

from vantage.api.admin.v1 import node_service_pb2 as pb
from vantage.api.admin.v1 import node_service_pb2_grpc
from vantage.api.node.v1 import node_session_service_pb2 as session_pb
from vantage.server.domain.session import Transport
from vantage.server.rpc.admin.common import changed_fields, time_to_proto
from vantage.server.rpc.catalogue import datasets_to_proto
from vantage.server.rpc.context import current_principal, current_user
from vantage.server.rpc.paging import fitting
from vantage.server.services.nodes import Known, Nodes

Context = Any

_TRANSPORTS = {
    Transport.UNKNOWN: session_pb.TRANSPORT_UNSPECIFIED,
    Transport.STREAM: session_pb.TRANSPORT_STREAM,
    Transport.SYNC: session_pb.TRANSPORT_SYNC,
}


class NodeServicer(node_service_pb2_grpc.NodeServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def CreateNode(self, request: pb.CreateNodeRequest, context: Context) -> pb.CreateNodeResponse:
        made = await self._nodes.create(current_user(), request.organization, request.node_id, request.collaborations)
        return pb.CreateNodeResponse(node=node_to_proto(made))

    async def GetNode(self, request: pb.GetNodeRequest, context: Context) -> pb.GetNodeResponse:
        return pb.GetNodeResponse(node=node_to_proto(await self._nodes.get(current_principal(), request.name)))

    async def ListNodes(self, request: pb.ListNodesRequest, context: Context) -> pb.ListNodesResponse:
        page = await self._nodes.list_page(
            current_user(), request.page_size, request.page_token, request.organization, request.collaboration
        )
        nodes, token = fitting(page, node_to_proto)
        return pb.ListNodesResponse(nodes=nodes, next_page_token=token)

    async def UpdateNode(self, request: pb.UpdateNodeRequest, context: Context) -> pb.UpdateNodeResponse:
        wanted = request.node
        fields = changed_fields(request.update_mask, wanted, ("collaborations",))
        changed = await self._nodes.update(
            current_user(), wanted.name, tuple(wanted.collaborations) if fields else None, wanted.etag
        )
        return pb.UpdateNodeResponse(node=node_to_proto(changed))

    async def DeleteNode(self, request: pb.DeleteNodeRequest, context: Context) -> pb.DeleteNodeResponse:
        await self._nodes.delete(current_user(), request.name)
        return pb.DeleteNodeResponse()


def node_to_proto(known: Known) -> pb.Node:
    """A node to send."""
    node, presence = known
    return pb.Node(
        name=node.name,
        collaborations=node.collaborations,
        online=presence.online,
        last_seen_time=None if presence.last_seen is None else time_to_proto(presence.last_seen),
        datasets=datasets_to_proto(presence.datasets, presence.catalogue),
        version=presence.version,
        create_time=time_to_proto(node.created),
        active_collaborations=node.active,
        etag=node.etag,
        transport=_TRANSPORTS[presence.transport],
        executor=presence.executor,
    )
