"""The node's questions to the broker at the server."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import grpc

from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.api.relay.v1 import relay_broker_service_pb2 as pb
from vantage.api.relay.v1 import relay_broker_service_pb2_grpc
from vantage.common.errors import Reason, UnauthenticatedError, VantageError, error
from vantage.common.rpc import ServerTrust, error_from_rpc
from vantage.node.connection import Connection, FatalError
from vantage.node.tunnels.wire import RelayWire

_OPEN_SECONDS = 25.0


class Broker:
    """Asks the broker.

    Args:
        connection: the way to the server.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def open_pair(self, lease: node_pb.Lease, peer_run: str, pair: str) -> pb.OpenPairResponse:
        """Ask for a connection of a run with a peer.

        Raises:
            VantageError: as RelayBrokerService.OpenPair.
        """
        request = pb.OpenPairRequest(lease=lease, peer_run=peer_run, pair=pair)
        try:
            stub = relay_broker_service_pb2_grpc.RelayBrokerServiceStub(await self._connection.channel())
            return await stub.OpenPair(request, metadata=await self._connection.metadata(), timeout=_OPEN_SECONDS)
        except (grpc.aio.AioRpcError, FatalError) as problem:
            raise self._translate(problem) from None

    async def watch(self, lease: node_pb.Lease) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        """The runs of a run's job, until the run has ended.

        Raises:
            VantageError: as RelayBrokerService.WatchPeers.
        """
        try:
            stub = relay_broker_service_pb2_grpc.RelayBrokerServiceStub(await self._connection.channel())
            call = stub.WatchPeers(pb.WatchPeersRequest(lease=lease), metadata=await self._connection.metadata())
            async for snapshot in call:
                yield snapshot
        except (grpc.aio.AioRpcError, FatalError) as problem:
            raise self._translate(problem) from None

    async def wire(self, address: str, certificates: str, tls: bool, ticket: str) -> RelayWire:
        """Open a relay.

        Raises:
            VantageError: as RelayService.Open.
        """
        if not address:
            return await RelayWire.open(self._connection.address, await self._connection.trust(), ticket)
        trust = None
        if tls:
            trust = ServerTrust.from_pem(certificates) if certificates else ServerTrust.system()
        return await RelayWire.open(address, trust, ticket)

    def _translate(self, problem: grpc.aio.AioRpcError | FatalError) -> VantageError:
        if isinstance(problem, FatalError):
            return error(Reason.UNAVAILABLE, f"the node lost its server: {problem}")
        cause = error_from_rpc(problem)
        if isinstance(cause, UnauthenticatedError):
            self._connection.token_refused()
            return error(Reason.UNAVAILABLE, "the server wants a new token")
        return cause
