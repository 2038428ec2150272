"""The tunnels of a node: links runs with the sessions, the relays and the policy."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from weakref import WeakValueDictionary

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.api.relay.v1 import relay_broker_service_pb2 as broker_pb
from vantage.api.types.v1 import types_pb2
from vantage.common import pki
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.node.config import NodeConfig
from vantage.node.door import RunContext
from vantage.node.identity import read_passphrase
from vantage.node.outside import NoOutside, Outside
from vantage.node.tunnels import rules
from vantage.node.tunnels.broker import Broker
from vantage.node.tunnels.keepers import KeeperSettings
from vantage.node.tunnels.link import Parties
from vantage.node.tunnels.peers import RunPeers
from vantage.node.tunnels.secure import SecureWire, tls_context
from vantage.node.tunnels.trust import PeerTrust
from vantage.node.tunnels.wire import Wire

log = logging.getLogger(__name__)

BEGIN_SECONDS = 12.0
"""How long an offer waits for its run to begin here; the broker waits a little longer."""
MAX_OFFERS = 512
"""Offers that are dealt with at a time."""

Answer = Callable[[node_pb.RelayAnswer], None]


@dataclass
class TunnelCounters:
    """What tunnels have done since the node started."""

    connections: int = 0
    refused: int = 0
    untrusted: int = 0
    tampered: int = 0


class Tunnels:
    """Keeps ``Connector`` for all runs.

    Args:
        config: policy, limits, identity.
        broker: asks the server.
        trust: which authorities vouch for whom.
        answer: says something on the session.
        clock: the time.
    """

    def __init__(
        self,
        config: NodeConfig,
        broker: Broker,
        trust: PeerTrust,
        answer: Answer,
        clock: Clock,
        settings: KeeperSettings | None = None,
    ) -> None:
        self.settings = settings or KeeperSettings()
        self.max_channels = config.limits.max_peer_channels
        self.counters = TunnelCounters()
        self._config = config
        self._broker = broker
        self._trust = trust
        self._answer = answer
        self._clock = clock
        self._runs: dict[str, RunPeers] = {}
        # Each as long as an offer waits for it.
        self._begun: WeakValueDictionary[str, asyncio.Future[RunPeers]] = WeakValueDictionary()
        self._offers: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def run(self, lease: node_pb.Lease, context: RunContext) -> AsyncIterator[Outside]:
        """The peers of a run while it lasts; everything is closed in the end."""
        if self._config.policy.peers is False:
            yield NoOutside()
            return
        peers = self._runs[lease.lease_id] = RunPeers(lease, context, self)
        if (waited_for := self._begun.pop(lease.lease_id, None)) is not None and not waited_for.done():
            waited_for.set_result(peers)
        in_order = False
        try:
            yield peers
            in_order = True
        finally:
            try:
                await peers.close(in_order=in_order)
            finally:
                # Not before: a peer may have to come back for what the run has said last.
                del self._runs[lease.lease_id]

    def offered(self, offer: node_pb.OpenRelay) -> None:
        """The server says that a run of another node wants to talk to one of this node's. Never waits."""
        if len(self._offers) >= MAX_OFFERS:
            self._refuse(offer, error(Reason.TOO_MANY_CHANNELS, "the node deals with too many connections at once"))
            return
        task = asyncio.create_task(self._deal_with(offer), name="peer offer")
        self._offers.add(task)
        task.add_done_callback(self._offers.discard)

    async def close(self) -> None:
        """Stop dealing with offers; runs end by themselves."""
        for task in list(self._offers):
            task.cancel()
        await asyncio.gather(*self._offers, return_exceptions=True)

    # Connector

    def refusal_of(self, organization: str) -> VantageError | None:
        """See ``Connector``."""
        return rules.refusal_of(self._config.policy, self._config.identity.name, organization)

    def watch(self, lease: node_pb.Lease) -> AsyncGenerator[broker_pb.WatchPeersResponse, None]:
        """See ``Connector``."""
        return self._broker.watch(lease)

    async def connect(self, lease: node_pb.Lease, parties: Parties, organization: str) -> Wire:
        """See ``Connector``."""
        roots = await self._trust.authorities(organization)
        opened = await self._broker.open_pair(lease, parties.peer_run, parties.pair)
        if (opened.peer_node, opened.job) != (parties.peer_node, parties.job):
            raise error(Reason.PEER_LOST, f"the run went from {parties.peer_node} to another node")
        relay = opened.relay
        wire = await self._broker.wire(relay.address, relay.certificates, relay.tls, opened.ticket)
        return await self._seal(wire, parties, roots, server_side=False)

    # Answering.

    async def _deal_with(self, offer: node_pb.OpenRelay) -> None:
        try:
            organization = offer.peer_node.partition("/nodes/")[0]
            if (refusal := self.refusal_of(organization)) is not None:
                raise refusal
            peers = await self._find(offer.lease.lease_id)
            if peers.lease != offer.lease:
                raise error(Reason.PEER_ENDED, "the attempt has ended")
            if (refusal := peers.stranger(organization)) is not None:
                raise refusal
            roots = await self._trust.authorities(organization)
            peers.check_offer(offer)
        except VantageError as problem:
            self._refuse(offer, problem)
            return
        self._answer(node_pb.RelayAnswer(offer=offer.offer))

        async def connect(parties: Parties) -> Wire:
            wire = await self._broker.wire(offer.relay_address, offer.relay_certificates, offer.relay_tls, offer.ticket)
            return await self._seal(wire, parties, roots, server_side=True)

        try:
            await peers.answer(offer, connect)
        except VantageError as problem:
            # The side that opened notices by itself, and tries again where that helps.
            log.warning(
                "connection of a peer failed",
                extra={"run": offer.lease.run, "peer": offer.peer_node, "reason": problem.reason.name},
            )

    async def _find(self, lease_id: str) -> RunPeers:
        """The run, which may be about to begin."""
        if (found := self._runs.get(lease_id)) is not None:
            return found
        begun = self._begun.setdefault(lease_id, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(BEGIN_SECONDS):
                return await asyncio.shield(begun)
        except TimeoutError:
            raise error(
                Reason.PEER_NOT_READY, f"the run at {self._config.identity.organization} has not begun"
            ) from None

    def _refuse(self, offer: node_pb.OpenRelay, problem: VantageError) -> None:
        self.counters.refused += 1
        log.warning(
            "connection of a peer refused",
            extra={"run": offer.lease.run, "peer": offer.peer_node, "reason": problem.reason.name},
        )
        failure = types_pb2.Failure(reason=problem.reason.name, message=problem.message)
        self._answer(node_pb.RelayAnswer(offer=offer.offer, refusal=failure))

    async def _seal(
        self, wire: Wire, parties: Parties, roots: Sequence[x509.Certificate], *, server_side: bool
    ) -> SecureWire:
        """TLS with the node that the server named, vouched for by its own organization and nobody else."""
        identity = self._config.identity

        def check(certificate: bytes) -> None:
            certified = pki.verify_chain([certificate], roots, self._clock.now())
            self._trust.check(certified)
            if certified.name != parties.peer_node:
                raise error(
                    Reason.CERTIFICATE_UNTRUSTED,
                    f"{certified.name} answers in place of {parties.peer_node}: the relay or the server pairs wrongly",
                )

        pem = "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in roots)
        try:
            context = tls_context(
                identity.certificate,
                identity.key,
                pem,
                server_side=server_side,
                passphrase=read_passphrase(identity),
            )
        except VantageError:
            await wire.close()
            raise
        try:
            made = await SecureWire.handshake(wire, context, check, server_side=server_side)
        except VantageError as problem:
            self.counters.untrusted += problem.reason is Reason.CERTIFICATE_UNTRUSTED
            self.counters.tampered += problem.reason is Reason.RELAY_TAMPERED
            log.warning(
                "no TLS with a peer",
                extra={"run": parties.run, "peer": parties.peer_node, "reason": problem.reason.name},
            )
            raise
        self.counters.connections += 1
        return made
