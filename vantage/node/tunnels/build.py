"""Puts the tunnels of a node together."""

from __future__ import annotations

from vantage.common.clock import Clock
from vantage.common.trust import TrustStore
from vantage.node.config import NodeConfig
from vantage.node.connection import Connection
from vantage.node.reporting import News
from vantage.node.tunnels.broker import Broker
from vantage.node.tunnels.trust import PinnedTrust
from vantage.node.tunnels.tunnels import Tunnels


def build_tunnels(config: NodeConfig, connection: Connection, news: News, store: TrustStore, clock: Clock) -> Tunnels:
    """The tunnels that a configuration asks for."""
    first_use = config.policy.pin_peer_authorities or config.trust.first_use
    trust = PinnedTrust(
        store, config.policy.peer_authorities, config.data_dir / "peers" if first_use else None, connection
    )
    return Tunnels(config, Broker(connection), trust, news.relay_answer, clock)
