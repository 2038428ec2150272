"""Who begins when: fair between those who ask, and nothing that is large starves."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from vantage.node.capacity import MAX_OVERTAKEN, Capacity, Figures, Need

SMALL = Need(cpus=1, memory=1)


class Runs:
    """Runs that are begun, and end when the test says so."""

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, name: str, requester: str, need: Need = SMALL) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.create_task(self._run(name, requester, need))
        await asyncio.sleep(0)

    async def _run(self, name: str, requester: str, need: Need) -> None:
        async with self.capacity.room(requester, need):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]
        await self._settle()

    async def give_up(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.gather(self._tasks[name], return_exceptions=True)
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("total", "need"),
    [
        (Figures(2, 9, 9, 9), SMALL),
        (Figures(9, 2, 9, 9), SMALL),
        (Figures(9, 9, 5, 9), Need(memory=2)),
        (Figures(9, 9, 9, 5), Need(gpus=2)),
    ],
)
async def test_number_processors_memory_and_gpus_are_counted(total: Figures, need: Need) -> None:
    runs = Runs(Capacity(total))
    for name in "abc":
        await runs.ask(name, name, need)
    assert runs.begun == ["a", "b"]
    assert runs.capacity.waiting == 1
    await runs.end("a")
    assert runs.begun == ["a", "b", "c"]
    await runs.end("b")
    await runs.end("c")
    assert runs.capacity.taken == Figures(0, 0, 0, 0)


async def test_who_has_the_fewest_runs_comes_first_however_many_others_wait() -> None:
    runs = Runs(Capacity(Figures(2, 9, 9, 0)))
    for number in range(10):
        await runs.ask(f"a{number}", "alice")
    await runs.ask("b0", "bob")
    await runs.ask("b1", "bob")
    await runs.end("a0")
    assert runs.begun == ["a0", "a1", "b0"]
    await runs.end("b0")
    assert runs.begun[-1] == "b1"  # bob had none then, alice one
    await runs.end("a1")
    assert runs.begun[-1] == "a2"


async def test_what_is_large_is_overtaken_for_a_while_and_then_gets_its_room() -> None:
    runs = Runs(Capacity(Figures(99, 4, 99, 0)))
    await runs.ask("first", "alice", Need(cpus=1))
    await runs.ask("large", "bob", Need(cpus=4))
    for number in range(MAX_OVERTAKEN + 3):
        await runs.ask(f"small{number}", f"user{number}", Need(cpus=1))
    for number in range(MAX_OVERTAKEN):
        await runs.end(f"small{number}")
    assert "large" not in runs.begun
    assert len(runs.begun) == 1 + MAX_OVERTAKEN  # the rest waits behind what is large
    await runs.end("first")
    assert runs.begun[-1] == "large"
    await runs.end("large")
    assert set(runs.begun) >= {f"small{MAX_OVERTAKEN + number}" for number in range(3)}


async def test_a_subtask_is_never_held_back_by_what_waits_for_the_room_of_its_parent() -> None:
    runs = Runs(Capacity(Figures(99, 4, 99, 0)))
    await runs.ask("central", "alice", Need(cpus=1, central=True))
    await runs.ask("large", "bob", Need(cpus=4))
    for number in range(MAX_OVERTAKEN):
        await runs.ask(f"small{number}", f"user{number}", Need(cpus=1))
        await runs.end(f"small{number}")
    await runs.ask("other", "carol", Need(cpus=1))
    assert "other" not in runs.begun
    await runs.ask("partial", "alice", Need(cpus=1, subtask=True))
    assert runs.begun[-1] == "partial"
    await runs.end("partial")
    await runs.end("central")
    assert runs.begun[-1] == "large"


async def test_what_needs_more_than_there_is_runs_alone() -> None:
    runs = Runs(Capacity(Figures(9, 2, 9, 0)))
    await runs.ask("a", "alice", Need(cpus=1))
    await runs.ask("huge", "bob", Need(cpus=64))
    await runs.end("a")
    assert runs.begun == ["a", "huge"]
    await runs.ask("b", "alice", Need(cpus=1))
    assert runs.begun == ["a", "huge"]


async def test_whoever_gives_up_lets_others_pass() -> None:
    runs = Runs(Capacity(Figures(99, 2, 99, 0)))
    await runs.ask("a", "alice", Need(cpus=1))
    await runs.ask("large", "bob", Need(cpus=2))
    runs.capacity._waiting[0].overtaken = MAX_OVERTAKEN
    await runs.ask("b", "alice", Need(cpus=1))
    assert runs.begun == ["a"]
    await runs.give_up("large")
    assert runs.begun == ["a", "b"]
    await runs.give_up("b")
    await runs.end("a")
    assert runs.capacity.taken.slots == 0


async def test_central_functions_leave_room_for_those_that_they_ask() -> None:
    central = Need(cpus=1, central=True)
    runs = Runs(Capacity(Figures(2, 9, 9, 0)))
    await runs.ask("central1", "alice", central)
    await runs.ask("central2", "alice", central)
    assert runs.begun == ["central1"]
    await runs.ask("partial", "alice", Need(cpus=1))
    assert runs.begun == ["central1", "partial"]
    await runs.end("partial")
    assert runs.begun == ["central1", "partial"]
    await runs.end("central1")
    assert runs.begun[-1] == "central2"


async def test_what_a_former_process_began_has_its_room_also_when_there_is_none() -> None:
    runs = Runs(Capacity(Figures(1, 9, 9, 0)))
    async with AsyncExitStack() as stack:
        for _ in range(2):
            stack.enter_context(runs.capacity.held("alice", SMALL))
        await runs.ask("a", "bob")
        assert runs.begun == []
    await runs._settle()
    assert runs.begun == ["a"]
