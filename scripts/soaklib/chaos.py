"""What goes wrong, at random moments, decided by the seed."""

from __future__ import annotations

import asyncio
from random import Random

from scripts.soaklib.world import ORGANIZATIONS, World
from vantage.testing.fault_points import arm

PAUSE = 2.0
"""Seconds between two faults, on average."""
_LONGEST_BLACKOUT = 8.0
"""Seconds; longer than a lease lasts."""

SERVER_POINTS = [
    f"server.{what}.{moment}"
    for what in ("create", "claim", "start", "succeed", "cancel", "come_back")
    for moment in ("before_commit", "committed")
]
NODE_POINTS = [
    *(
        f"node.{step}.{moment}"
        for step in ("accept", "finish", "acknowledge")
        for moment in ("before_commit", "committed")
    ),
    "node.mark_started.committed",
    "node.run.before",
    "node.run.started",
    "node.result.stored",
    "node.ack.before",
    "node.ack.after",
]
ACTIONS = {
    "kill a node": 3,
    "kill the server": 2,
    "stop a node": 1,
    "stop the server": 1,
    "kill a node at a point": 4,
    "kill the server at a point": 2,
    "cut a link": 5,
    "black out a link": 3,
}
"""How often, in relation to one another."""


class Chaos:
    """Harms a world until it is cancelled, and lets it heal then.

    Args:
        world: the victim.
        seed: decides.
    """

    def __init__(self, world: World, seed: str) -> None:
        self._world = world
        self._random = Random(f"{seed}/chaos")  # noqa: S311  # decisions that can be repeated
        self._dark: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """See above."""
        try:
            while True:
                await asyncio.sleep(self._random.expovariate(1 / PAUSE))
                (action,) = self._random.choices(list(ACTIONS), list(ACTIONS.values()))
                node = self._random.choice(ORGANIZATIONS)
                link = self._random.choice(sorted(self._world.links))
                self._world.counts[action] += 1
                await self._do(action, node, link)
        finally:
            for task in self._dark:
                task.cancel()
            await asyncio.gather(*self._dark, return_exceptions=True)
            for name in ("server", *ORGANIZATIONS):
                self._world.installation.faults(name).unlink(missing_ok=True)

    async def _do(self, action: str, node: str, link: str) -> None:
        world = self._world
        match action:
            case "kill a node":
                await world.program(node).stop(kill=True)
            case "kill the server":
                await world.program("server").stop(kill=True)
            case "stop a node":
                world.program(node).ask_to_end()
            case "stop the server":
                world.program("server").ask_to_end()
            case "kill a node at a point":
                arm(world.installation.faults(node), self._random.choice(NODE_POINTS))
            case "kill the server at a point":
                arm(world.installation.faults("server"), self._random.choice(SERVER_POINTS))
            case "cut a link":
                world.links[link].cut()
            case "black out a link":
                task = asyncio.create_task(self._black_out(link, self._random.uniform(0.2, _LONGEST_BLACKOUT)))
                self._dark.add(task)
                task.add_done_callback(self._dark.discard)

    async def _black_out(self, link: str, seconds: float) -> None:
        self._world.hide(link)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._world.show(link)
