"""The relays that a server may choose from: their health and load, told by themselves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
from pydantic import BaseModel, ConfigDict, Field

from vantage.api.relay.v1 import relay_service_pb2 as pb
from vantage.api.relay.v1 import relay_service_pb2_grpc
from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, error
from vantage.common.rpc import ServerTrust, bearer, open_channel
from vantage.server.domain.jobs import RelayEndpoint
from vantage.server.relay.pairs import Pairs
from vantage.server.relay.tickets import TicketIssuer

log = logging.getLogger(__name__)

EMBEDDED = "embedded"


class RelayEntry(BaseModel):
    """A stand-alone relay, in the server's configuration."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,38}[a-z0-9]$")
    address: str
    certificate: Path | None = None
    """What to trust, in PEM; without it the authorities of the system."""
    tls: bool = True


@dataclass
class _Known:
    endpoint: RelayEndpoint
    load: pb.WatchLoadResponse | None = None
    chosen: int = 0
    """Pairs that were sent there since it last told its load."""

    @property
    def pairs(self) -> int:
        """How loaded it probably is."""
        return 0 if self.load is None else self.load.pairs + self.load.waiting + self.chosen

    @property
    def available(self) -> bool:
        """Whether it takes a pair."""
        return self.load is not None and not self.load.draining and self.pairs < self.load.max_pairs


class RelayDirectory:
    """Knows the relays. ``start``, then ``stop`` once.

    Args:
        entries: stand-alone relays.
        embedded: the one inside this server, if it has one. It is chosen when no other is available, since it shares
            a process with everything else that the server does.
        issuer: signs the tickets for watching.
        base: directory from which relative paths count.
    """

    def __init__(self, entries: Sequence[RelayEntry], embedded: Pairs | None, issuer: TicketIssuer, base: Path) -> None:
        self._embedded = embedded
        self._issuer = issuer
        self._known = [_Known(_endpoint(each, base)) for each in entries]
        self._watchers: list[asyncio.Task[None]] = []
        self.changed = asyncio.Event()

    async def start(self) -> None:
        """Begin to watch."""
        self._watchers = [asyncio.create_task(self._watch(known), name="relay watcher") for known in self._known]

    async def stop(self) -> None:
        """Stop watching."""
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)

    def choose(self) -> RelayEndpoint:
        """The relay with the fewest pairs.

        Raises:
            UnavailableError: RELAY_UNAVAILABLE.
        """
        available = [known for known in self._known if known.available]
        if available:
            best = min(available, key=lambda known: known.pairs)
            best.chosen += 1
            return best.endpoint
        if self._embedded is not None and not self._embedded.draining:
            return RelayEndpoint(EMBEDDED)
        raise error(
            Reason.RELAY_UNAVAILABLE, "no relay is available now: ask the server's operator", retry_after_seconds="2"
        )

    @property
    def healthy(self) -> tuple[str, ...]:
        """Names of the stand-alone relays that are there."""
        return tuple(known.endpoint.name for known in self._known if known.available)

    async def _watch(self, known: _Known) -> None:
        endpoint = known.endpoint
        trust = None
        if endpoint.tls:
            trust = ServerTrust.from_pem(endpoint.certificates) if endpoint.certificates else ServerTrust.system()
        backoff = Backoff()
        async with open_channel(endpoint.address, trust) as channel:
            stub = relay_service_pb2_grpc.RelayServiceStub(channel)
            while True:
                try:
                    metadata = (bearer(self._issuer.watch(endpoint.name)),)
                    async for load in stub.WatchLoad(pb.WatchLoadRequest(), metadata=metadata):
                        if known.load is None:
                            log.info("relay is there", extra={"relay": endpoint.name})
                        known.load, known.chosen = load, 0
                        backoff.reset()
                        self.changed.set()
                except grpc.aio.AioRpcError as problem:
                    log.warning(
                        "relay is not there", extra={"relay": endpoint.name, "problem": problem.details() or ""}
                    )
                known.load = None
                self.changed.set()
                await asyncio.sleep(backoff.next_delay())


def _endpoint(entry: RelayEntry, base: Path) -> RelayEndpoint:
    certificates = ""
    if entry.tls and entry.certificate is not None:
        try:
            certificates = (base / entry.certificate).read_text("ascii")
        except (OSError, UnicodeDecodeError) as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"relays: the certificate of {entry.name} cannot be read from {entry.certificate}",
            ) from problem
    return RelayEndpoint(entry.name, entry.address, certificates, entry.tls)
