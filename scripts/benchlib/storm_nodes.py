"""Many nodes in one process: the connection, session and back-off of real nodes, and nothing that would run anything.

A program of its own, driven by ``storm``: it prints ``READY MOMENT MEDIAN`` whenever all of its nodes are connected,
with the seconds of the clock at which the last and the median node were welcomed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import uvloop

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common import pki
from vantage.common.backoff import Backoff
from vantage.common.clock import SystemClock
from vantage.common.names import new_id
from vantage.node.config import ServerSection
from vantage.node.connection import Connection
from vantage.node.identity import Identity
from vantage.node.journal import Journal
from vantage.node.keeper import SessionKeeper
from vantage.node.reporting import News
from vantage.node.session import Session, Settings
from vantage.node.transport import Transport
from vantage.node.transport_choice import TransportChoice

READY = "all are connected: "


class Fleet:
    """Counts who is connected."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._moments: dict[str, float] = {}

    def came(self, node: str) -> None:
        self._moments[node] = time.time()
        if len(self._moments) == self._size:
            print(READY, max(self._moments.values()), statistics.median(self._moments.values()), flush=True)

    def left(self, node: str) -> None:
        self._moments.pop(node, None)


class Connected(asyncio.Event):
    """Tells the fleet."""

    def __init__(self, fleet: Fleet, node: str) -> None:
        super().__init__()
        self._fleet, self._node = fleet, node

    def set(self) -> None:
        super().set()
        self._fleet.came(self._node)

    def clear(self) -> None:
        super().clear()
        self._fleet.left(self._node)


class NoJournal:
    """Nothing to say."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def leases(self) -> list[pb.Lease]:
        return []

    def unsent(self, _after: int) -> Iterator[pb.ConnectRequest]:
        return iter(())


class NoWork:
    """Nothing to do."""

    def __init__(self, connected: Connected) -> None:
        self._connected = connected

    def welcomed(self, _settings: Settings) -> None:
        self._connected.set()

    def stopping(self) -> bool:
        return False

    def free_slots(self) -> int:
        return 1

    def trust_version(self, _version: int) -> None:
        pass

    def revoke(self, _lease: pb.Lease) -> None:
        pass


async def node(name: str, server: ServerSection, identity: Identity, fleet: Fleet) -> None:
    """Stay connected."""
    connection = Connection(server, identity, SystemClock())
    connected = Connected(fleet, name)
    instance = new_id()

    def session(transport: Transport) -> Session:
        hello = pb.Hello(version="1.0.0", instance_id=instance, slots=1, transport=transport.kind)
        # What is not there is never asked for without work.
        return Session(
            connection, transport, cast(Journal, NoJournal()), News(0), cast(Any, NoWork(connected)), lambda: hello
        )

    async def nothing() -> None:
        pass

    try:
        await SessionKeeper(
            connection, TransportChoice("auto"), Backoff(), session, nothing, lambda _text: None, connected
        ).run()
    finally:
        await connection.close()


async def main(address: str, fingerprint: str, authority: Path, size: int) -> None:
    """Run until the standard input ends."""
    issuer = pki.CertificateAuthority.load(authority)
    key = pki.create_key()  # one for all: only certificates must differ
    server = ServerSection(address=address, fingerprint=fingerprint)
    fleet = Fleet(size)
    nodes = []
    for number in range(size):
        name = f"{issuer.organization}/nodes/storm-{number}"
        identity = Identity(name, issuer.organization, (issuer.issue(name, key.public_key()),), key)
        nodes.append(asyncio.create_task(node(name, server, identity, fleet)))
    waiting = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    done, _ = await asyncio.wait({waiting, *nodes}, return_when=asyncio.FIRST_COMPLETED)
    for each in done - {waiting}:
        each.result()  # a node that ends is lost
    for each in nodes:
        each.cancel()
    await asyncio.gather(*nodes, return_exceptions=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("fingerprint")
    parser.add_argument("authority", type=Path)
    parser.add_argument("size", type=int)
    options = parser.parse_args()
    uvloop.run(main(options.address, options.fingerprint, options.authority, options.size))
