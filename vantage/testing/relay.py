"""A stand-alone relay in this process, and what speaks to it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from vantage.common import pki
from vantage.common.clock import Clock, SystemClock
from vantage.common.rpc import ServerTrust, bearer, open_channel
from vantage.server import certificate
from vantage.server.relay.limits import RelayLimits
from vantage.server.relay.program import Relay, RelayConfig, initialize
from vantage.server.relay.tickets import Side, TicketIssuer

JOB = "tasks/0193b5a0-0000-7000-8000-000000000001"
NODE = "organizations/clara/nodes/clara-1"
METHOD = "/vantage.api.relay.v1.RelayService/Open"

RawCall = grpc.aio.StreamStreamCall[bytes, bytes]


class RunningRelay:
    """A relay that listens, with the key that its tickets are signed with."""

    def __init__(self, relay: Relay, issuer: TicketIssuer, trust: ServerTrust | None) -> None:
        self.relay = relay
        self.issuer = issuer
        self.trust = trust
        self._channels: list[grpc.aio.Channel] = []

    def channel(self) -> grpc.aio.Channel:
        """A connection of its own."""
        channel = open_channel(self.relay.address, self.trust, options=[("grpc.use_local_subchannel_pool", 1)])
        self._channels.append(channel)
        return channel

    def ticket(self, pair: str, side: Side, *, job: str = JOB, relay: str | None = None) -> str:
        """A ticket of the server."""
        return self.issuer.issue(relay or self.relay.config.name, pair, side, job, NODE)

    def open(self, ticket: str) -> RawCall:
        """One side, as raw bytes."""
        call: RawCall = self.channel().stream_stream(METHOD)(metadata=(bearer(ticket),))
        return call

    async def pair(self, job: str = JOB) -> tuple[RawCall, RawCall]:
        """Two sides that have met."""
        pair = str(uuid.uuid4())
        sides = [self.open(self.ticket(pair, side, job=job)) for side in (Side.OPENS, Side.ANSWERS)]
        for side in sides:
            await side.initial_metadata()
        return sides[0], sides[1]

    async def close(self) -> None:
        """Close what ``channel`` opened."""
        for channel in self._channels:
            await channel.close()


@asynccontextmanager
async def running_relay(
    directory: Path,
    *,
    name: str = "relay-1",
    limits: RelayLimits | None = None,
    tls: bool = False,
    clock: Clock | None = None,
    issuer: TicketIssuer | None = None,
    metrics_listen: str | None = None,
) -> AsyncIterator[RunningRelay]:
    """Start a relay in a new directory, and stop it in the end."""
    issuer = issuer or TicketIssuer(pki.create_key(), SystemClock())
    bounds = limits or RelayLimits(drain_seconds=0.1)
    initialize(directory, RelayConfig(name=name, limits=bounds, metrics_listen=metrics_listen), issuer.key_set(), ())
    relay = Relay(directory, listen="127.0.0.1:0", tls=tls, clock=clock)
    await relay.start()
    trust = ServerTrust.from_pem((directory / certificate.CERTIFICATE_FILE).read_bytes()) if tls else None
    running = RunningRelay(relay, issuer, trust)
    try:
        yield running
    finally:
        await running.close()
        await relay.stop()
