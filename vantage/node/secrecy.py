"""Orders, seals and statements of a node, put together."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from vantage.common.clock import Clock
from vantage.common.dsse import Certify
from vantage.common.errors import UnavailableError, VantageError
from vantage.common.seen_versions import SeenVersions
from vantage.node.attest import Attestor
from vantage.node.config import NodeConfig
from vantage.node.connection import Connection
from vantage.node.journal import Journal
from vantage.node.orders import OrderBook, OrderGate
from vantage.node.payloads import Payloads
from vantage.node.seal_keys import SealKeys
from vantage.node.sealed import Sealer
from vantage.node.subtask_orders import SubtaskOrders

log = logging.getLogger(__name__)

SEEN_FILE = "seen-keys.json"
"""In the data directory: a server cannot bring back an older list of keys after a restart."""


@dataclass(frozen=True)
class Secrecy:
    """What keeps the server from reading and from speaking as somebody else.

    Attributes:
        gate: decides about orders.
        sealer: opens arguments, seals results.
        attestor: signs how runs ended.
        subtasks: orders of this node's own.
        keys: this node's keys for sealed payloads.
    """

    gate: OrderGate
    sealer: Sealer
    attestor: Attestor
    subtasks: SubtaskOrders
    keys: SealKeys

    async def publish(self, connection: Connection, say: Callable[[str], None]) -> None:
        """Tell the server this node's keys, if it does not know them from this process yet.

        When it does not take them, that is said: nobody can seal to this node then.

        Raises:
            FatalError: the server does not admit the node.
            VantageError: the node cannot log in now.
        """
        await connection.metadata()  # what is wrong with the log-in is for the session to say
        try:
            await self.keys.publish(connection)
        except UnavailableError as problem:
            log.info("keys not published now", extra={"reason": problem.reason.name})  # again with the next session
        except VantageError as problem:
            log.warning("keys not published", extra={"problem": str(problem)})
            say(f"the server does not publish this node's keys, so nobody can seal arguments to it: {problem}")


async def build_secrecy(
    config: NodeConfig, connection: Connection, journal: Journal, payloads: Payloads, certify: Certify, clock: Clock
) -> Secrecy:
    """Put the parts together.

    Raises:
        VantageError: journal or keys are not usable.
    """
    keys = SealKeys(config.data_dir, clock)
    sealer = Sealer(lambda: keys.identities)
    book = await OrderBook.open(journal, config.data_dir / "journal.db", clock)
    gate = OrderGate(certify, book, clock, required=lambda: not config.policy.allow_unsigned)
    seen = SeenVersions(config.data_dir / SEEN_FILE)
    subtasks = SubtaskOrders(connection, certify, sealer, payloads, clock, seen)
    return Secrecy(gate, sealer, Attestor(lambda: connection.identity, journal), subtasks, keys)
