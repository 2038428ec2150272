"""Relaying, put together: the key of the tickets, the embedded relay, the stand-alone ones, the broker."""

from __future__ import annotations

from pathlib import Path

import grpc

from vantage.api.relay.v1 import relay_broker_service_pb2_grpc
from vantage.common import pki
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError
from vantage.server.config import ServerConfig
from vantage.server.relay.directory import EMBEDDED, RelayDirectory
from vantage.server.relay.pairs import Pairs
from vantage.server.relay.servicer import RelayServicer
from vantage.server.relay.tickets import TicketIssuer, TicketVerifier, thumbprint
from vantage.server.rpc.relay_broker import RelayBrokerServicer
from vantage.server.services.commits import Commits
from vantage.server.services.relay_broker import RelayBroker
from vantage.server.services.sessions import Sessions

KEY_FILE = "relay.key"


def ticket_issuer(data: Path, clock: Clock) -> TicketIssuer:
    """The issuer of a data directory; its key is made when there is none."""
    path = data / KEY_FILE
    if not path.exists():
        try:
            pki.write_key(path, pki.create_key())
        except VantageError as problem:
            if problem.reason is not Reason.ALREADY_EXISTS:  # made by another command in this moment
                raise
    return TicketIssuer(pki.read_key(path), clock)


class Relaying:
    """Everything about relays in one server. ``start``, then ``stop`` once.

    Attributes:
        pairs: the embedded relay, if there is one.
    """

    def __init__(self, data: Path, config: ServerConfig, clock: Clock, commits: Commits, sessions: Sessions) -> None:
        self._clock = clock
        issuer = ticket_issuer(data, clock)
        self.pairs = Pairs(config.relay_limits) if config.embedded_relay else None
        self.directory = RelayDirectory(config.relays, self.pairs, issuer, data)
        self.broker = RelayBroker(commits, sessions, self.directory, issuer)
        sessions.on_relay_answer = self.broker.answered
        sessions.on_end = self.broker.gone
        key = pki.read_key(data / KEY_FILE).public_key()
        self._verifier = TicketVerifier(EMBEDDED, {thumbprint(key): key}, clock)

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register the services."""
        relay_broker_service_pb2_grpc.add_RelayBrokerServiceServicer_to_server(RelayBrokerServicer(self.broker), server)
        if self.pairs is not None:
            servicer = RelayServicer(self.pairs, self._verifier, self._clock)
            server.add_generic_rpc_handlers((servicer.handlers(),))

    async def start(self) -> None:
        """Look after the stand-alone relays."""
        await self.directory.start()

    async def stop(self) -> None:
        """Break off what the embedded relay forwards: the server ends, nodes continue elsewhere or later."""
        self.broker.close()
        await self.directory.stop()
        if self.pairs is not None:
            await self.pairs.drain()
