"""Server and nodes as processes that somebody starts again whenever they end, with proxies in between."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Self

from vantage.server.config import ServerConfig
from vantage.testing.processes import Installation, Program
from vantage.testing.proxy import Proxy
from vantage.testing.station import REPOSITORY

ORGANIZATIONS = ("beatrix", "clara", "hilda")
LEASE_SECONDS = 5
_LONGEST_PAUSE = 1.5
"""Seconds that it takes somebody to start a process again, at most."""
_AS_ASKED = (0, -signal.SIGKILL, -signal.SIGTERM)
"""How processes end that are killed and stopped, also before they have said what SIGTERM means to them."""
_NOWHERE = "127.0.0.1:1"
"""Nobody listens here."""


class World:
    """Use ``running``.

    Attributes:
        installation: the network.
        links: proxies; of each node by its organization, of the clients as "clients".
        counts: what happened how often.
        killed: processes that have died by SIGKILL.
        problems: what should not have happened.
    """

    def __init__(self, installation: Installation, links: dict[str, Proxy], seed: str) -> None:
        self.installation = installation
        self.links = links
        self.counts: Counter[str] = Counter()
        self.killed: set[int] = set()
        self.problems: list[str] = []
        self._random = Random(f"{seed}/operator")  # noqa: S311  # decisions that can be repeated
        self._closing = False

    @classmethod
    @asynccontextmanager
    async def running(cls, directory: Path, seed: str) -> AsyncIterator[Self]:
        """Set up in an empty directory, keep everything running, stop it in order in the end."""
        config = ServerConfig(
            stop_grace_seconds=1,
            trial=True,
            heartbeat_seconds=1,
            lease_seconds=LEASE_SECONDS,
            max_inline_payload_bytes=16 * 1024,
        )
        settings = {"process": {"modules": {REPOSITORY: "vantage.testing.counted"}}, "slots": 4}
        async with AsyncExitStack() as stack:
            links: dict[str, Proxy] = {}

            async def way(name: str, address: str) -> str:
                links[name] = await stack.enter_async_context(Proxy.to(address))
                return links[name].address

            installation = await stack.enter_async_context(
                Installation.running(
                    directory, ORGANIZATIONS, tls=False, settings=settings, config=config, faulty=True, way=way
                )
            )
            await way("clients", installation.address)
            world = cls(installation, links, seed)
            async with asyncio.TaskGroup() as keepers:
                for name in ("server", *ORGANIZATIONS):
                    keepers.create_task(world._keep(name))
                try:
                    yield world
                finally:
                    await world._close()

    def program(self, name: str) -> Program:
        """The process of the server or of a node."""
        return self.installation.server if name == "server" else self.installation.nodes[name]

    def hide(self, link: str) -> None:
        """Nothing gets through a link any more."""
        self.links[link].lead_to(_NOWHERE)
        self.links[link].cut()

    def show(self, link: str) -> None:
        """A link works again."""
        self.links[link].lead_to(self.installation.address)

    async def _keep(self, name: str) -> None:
        while True:
            status = await self.program(name).wait()
            if status == -signal.SIGKILL:
                self.killed.add(self.program(name).pid)
                self.counts[f"{name} killed"] += 1
            elif status not in _AS_ASKED:
                self.problems.append(f"{name} ended by itself with status {status}")
            if self._closing:
                return
            await asyncio.sleep(self._random.uniform(0, _LONGEST_PAUSE))
            try:
                if name == "server":
                    await self.installation.start_server()
                else:
                    await self.program(name).start("ready: ")
            except AssertionError as problem:
                # It may have been killed or stopped while it started; the next turn starts it again.
                if self.program(name).status not in _AS_ASKED:
                    self.problems.append(f"{name} did not start: {problem}")

    async def _close(self) -> None:
        """Nodes first, so that they can say their last words."""
        self._closing = True
        for name in ORGANIZATIONS:
            self.program(name).ask_to_end()
        async with asyncio.timeout(60):
            await asyncio.gather(*(self.program(name).wait() for name in ORGANIZATIONS))
        self.program("server").ask_to_end()
        await self.program("server").wait()
