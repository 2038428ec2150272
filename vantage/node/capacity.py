"""Which runs begin when: room by number, processors, memory and GPUs, shared fairly between those who ask.

The rules, in this order:

1. Whoever has the fewest runs going on comes first; among equals, who has waited longest.
2. What does not fit may be overtaken by what does, at most ``MAX_OVERTAKEN`` times; then nothing begins before it, so
   that the room that it needs becomes free. Subtasks may always pass: somewhere a central function holds room and waits
   for them, perhaps the very room that is waited for.
3. A central function, which waits for others, leaves room for one more run: else those that it asks here would wait for
   it, and it for them. Where there is room for one run only, it gets it all the same.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace

from vantage.node.config import NodeConfig
from vantage.node.release.approvals import MAX_WAITING

MAX_OVERTAKEN = 8
MAX_PLACES = 1_000
"""What the server takes of a node."""


@dataclass(frozen=True)
class Need:
    """What a run takes while it goes on.

    Attributes:
        cpus: processors.
        memory: bytes.
        gpus: graphics processors.
        central: whether it asks others and waits for them.
        subtask: whether a central function waits for it.
    """

    cpus: float = 0.0
    memory: int = 0
    gpus: int = 0
    central: bool = False
    subtask: bool = False


@dataclass
class _Waiting:
    requester: str
    need: Need
    granted: asyncio.Future[None]
    overtaken: int = 0


@dataclass(frozen=True)
class Figures:
    """How much there is, or how much of it is taken; ``cpus`` and ``memory`` are 0 where they are not counted."""

    slots: int
    cpus: float
    memory: int
    gpus: int


@dataclass
class Capacity:
    """Room for runs. Call from one event loop.

    Attributes:
        total: what there is; what a run needs beyond that counts as all of it, so that it runs alone.
    """

    total: Figures
    _running: list[tuple[str, Need]] = field(default_factory=list)
    _waiting: list[_Waiting] = field(default_factory=list)

    @property
    def taken(self) -> Figures:
        """What the runs that go on have taken."""
        needs = [need for _requester, need in self._running]
        return Figures(
            len(needs),
            sum(each.cpus for each in needs),
            sum(each.memory for each in needs),
            sum(each.gpus for each in needs),
        )

    @property
    def waiting(self) -> int:
        """How many runs wait."""
        return len(self._waiting)

    @asynccontextmanager
    async def room(self, requester: str, need: Need) -> AsyncGenerator[None, None]:
        """Wait for room and hold it."""
        waiting = _Waiting(requester, self._bounded(need), asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._dispatch()
        try:
            await waiting.granted
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._dispatch()  # it may have been what the others waited behind
            else:
                self._release(waiting.requester, waiting.need)
            raise
        try:
            yield
        finally:
            self._release(waiting.requester, waiting.need)

    @contextmanager
    def held(self, requester: str, need: Need) -> Iterator[None]:
        """Room that a run has already, whether there is any or not: it was begun by a former process."""
        need = self._bounded(need)
        self._running.append((requester, need))
        try:
            yield
        finally:
            self._release(requester, need)

    def _bounded(self, need: Need) -> Need:
        total = self.total
        return replace(
            need,
            cpus=min(need.cpus, total.cpus),
            memory=min(need.memory, total.memory),
            gpus=min(need.gpus, total.gpus),
        )

    def _release(self, requester: str, need: Need) -> None:
        self._running.remove((requester, need))
        self._dispatch()

    def _dispatch(self) -> None:
        while (chosen := self._next()) is not None:
            self._waiting.remove(chosen)
            self._running.append((chosen.requester, chosen.need))
            if not chosen.granted.done():
                chosen.granted.set_result(None)

    def _next(self) -> _Waiting | None:
        going_on = Counter(requester for requester, _need in self._running)
        passed: list[_Waiting] = []
        held_back = False
        for each in sorted(self._waiting, key=lambda waiting: going_on[waiting.requester]):  # 1
            if held_back and not each.need.subtask:  # 2
                continue
            if self._fits(each.need):
                for other in passed:
                    other.overtaken += not each.need.subtask
                return each
            passed.append(each)
            held_back |= each.overtaken >= MAX_OVERTAKEN
        return None

    def _fits(self, need: Need) -> bool:
        taken, total = self.taken, self.total
        times = 2 if need.central and self._running else 1  # 3
        return (
            taken.slots + times <= total.slots
            and taken.cpus + times * need.cpus <= total.cpus + 1e-9
            and taken.memory + times * need.memory <= total.memory
            and taken.gpus + need.gpus <= total.gpus
        )


def capacity_of(config: NodeConfig) -> Capacity:
    """The capacity of a node: what its admin says, else that of the machine."""
    said = config.capacity
    if config.executor != "docker":
        return Capacity(Figures(config.slots, 0.0, 0, 0))  # limits are not kept there
    cpus = said.cpus if said.cpus is not None else float(os.cpu_count() or 1)
    memory = said.memory if said.memory is not None else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Capacity(Figures(config.slots, cpus, memory, len(config.docker.gpus)))


def places_of(config: NodeConfig) -> int:
    """How many runs a node takes on at a time: those that have room, that wait for it, or for a person."""
    return min(config.slots + config.queue + (MAX_WAITING if config.policy.asks_people else 0), MAX_PLACES)
