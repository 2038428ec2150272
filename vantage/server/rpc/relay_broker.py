"""RelayBrokerService, and the broker's messages on the streams of nodes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc

from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.api.relay.v1 import relay_broker_service_pb2 as pb
from vantage.api.relay.v1 import relay_broker_service_pb2_grpc
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.jobs import OpenRelay, RelayAnswer, RelayEndpoint
from vantage.server.domain.runs import Lease
from vantage.server.relay.tickets import LIFETIME
from vantage.server.rpc.context import current_node
from vantage.server.services.relay_broker import RelayBroker

Context = grpc.aio.ServicerContext[Any, Any]

_REFUSALS = {
    reason.name: reason
    for reason in (
        Reason.PEERS_REFUSED,
        Reason.PEER_NOT_READY,
        Reason.PEER_ENDED,
        Reason.TOO_MANY_CHANNELS,
        Reason.RELAY_UNAVAILABLE,
        Reason.CERTIFICATE_UNTRUSTED,
    )
}
"""Reasons that a node may give; any other becomes PEER_LOST."""
MAX_REFUSAL = 500


class RelayBrokerServicer(relay_broker_service_pb2_grpc.RelayBrokerServiceServicer):
    """Parses, asks ``RelayBroker``, shapes the reply."""

    def __init__(self, broker: RelayBroker) -> None:
        self._broker = broker

    async def OpenPair(self, request: pb.OpenPairRequest, context: Context) -> pb.OpenPairResponse:
        opened = await self._broker.open_pair(current_node(), _lease(request.lease), request.peer_run, request.pair)
        response = pb.OpenPairResponse(
            relay=_endpoint_to_proto(opened.relay),
            ticket=opened.ticket,
            peer_node=opened.peer_node,
            job=opened.job,
        )
        response.ticket_lifetime.FromTimedelta(LIFETIME)
        return response

    async def WatchPeers(
        self, request: pb.WatchPeersRequest, context: Context
    ) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        async with aclosing(self._broker.watch(current_node(), _lease(request.lease))) as snapshots:
            async for root, peers in snapshots:
                yield pb.WatchPeersResponse(
                    job=root,
                    peers=[
                        pb.Peer(
                            run=each.run,
                            organization=each.organization,
                            node=each.node,
                            state=pb.PeerState.ValueType(int(each.state)),
                        )
                        for each in peers
                    ],
                )


def open_relay_to_proto(message: OpenRelay) -> node_pb.OpenRelay:
    """An offer."""
    lease = message.lease
    return node_pb.OpenRelay(
        pair=message.pair,
        lease=node_pb.Lease(run=lease.run, lease_id=lease.lease_id, attempt=lease.attempt),
        relay_address=message.relay.address,
        relay_certificates=message.relay.certificates,
        relay_tls=message.relay.tls,
        ticket=message.ticket,
        peer_run=message.peer_run,
        peer_node=message.peer_node,
        job=message.job,
        offer=message.offer,
    )


def relay_answer_from_proto(message: node_pb.RelayAnswer) -> RelayAnswer:
    """What a node answers to an offer."""
    if not message.HasField("refusal"):
        return RelayAnswer(message.offer, None)
    text = message.refusal.message[:MAX_REFUSAL] or "the other node does not come"
    refusal: VantageError = error(_REFUSALS.get(message.refusal.reason, Reason.PEER_LOST), text)
    return RelayAnswer(message.offer, refusal)


def _lease(message: node_pb.Lease) -> Lease:
    return Lease(message.run, message.lease_id, message.attempt)


def _endpoint_to_proto(endpoint: RelayEndpoint) -> pb.RelayEndpoint:
    return pb.RelayEndpoint(
        name=endpoint.name, address=endpoint.address, certificates=endpoint.certificates, tls=endpoint.tls
    )
