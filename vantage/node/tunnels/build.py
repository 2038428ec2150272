"""Puts the tunnels of a node together."""

from __future__ import annotations

from vantage.common.clock import Clock
from vantage.node.config import NodeConfig
from vantage.node.connection import Connection
from vantage.node.reporting import News
from vantage.node.tunnels.broker import Broker
from vantage.node.tunnels.trust import PinnedTrust
from vantage.node.tunnels.tunnels import Tunnels


def build_tunnels(config: NodeConfig, connection: Connection, news: News, clock: Clock) -> Tunnels:
    """The tunnels that a configuration asks for."""
    pins = config.data_dir / "peers" if config.policy.pin_peer_authorities else None
    trust = PinnedTrust(config.policy.peer_authorities, pins, connection)
    return Tunnels(config, Broker(connection), trust, news.relay_answer, clock)
