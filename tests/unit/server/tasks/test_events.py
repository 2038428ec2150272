"""Mailboxes, followers and timers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from vantage.common.clock import ManualClock
from vantage.common.errors import Reason, error
from vantage.server.domain.runs import Run
from vantage.server.domain.task_events import Event, RunLogged, RunMoved, RunProgressed, TaskEnded
from vantage.server.domain.tasks import TaskState
from vantage.server.events.bus import Bus
from vantage.server.events.follower import Follower
from vantage.server.events.mailbox import MAX_EVENTS, MAX_WEIGHT, Mailbox
from vantage.server.events.timers import MAX_DUE, Timers

NOW = datetime(2026, 11, 1, tzinfo=UTC)
TASK = "tasks/t"


def moved(sequence: int) -> Event:
    return Event(TASK, sequence, NOW, RunMoved(Run(f"{TASK}/runs/a", TASK, 0, "organizations/alpha", "")))


def ended(sequence: int) -> Event:
    return Event(TASK, sequence, NOW, TaskEnded(TaskState.SUCCEEDED, 1, 0))


class Rows:
    """Kept events, read three at a time."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def after(self, task: str, sequence: int) -> Sequence[Event]:
        return [event for event in self.events if event.sequence > sequence][:3]


async def collect(follower: Follower) -> list[int]:
    sequences: list[int] = []
    while follower.open:
        sequences += [event.sequence for event in await follower.next()]
    return sequences


async def test_events_that_came_before_the_start_are_handed_out_once_and_in_order() -> None:
    bus, rows = Bus(), Rows()
    follower = Follower(bus, rows.after)
    follower.expect(TASK)
    bus.publish([moved(2), moved(3)])
    assert await follower.next() == []
    follower.start(TASK, 2)
    bus.publish([moved(3), ended(4)])
    assert await collect(follower) == [3, 4]
    assert bus.watched == 0


async def test_gaps_are_filled_from_the_database() -> None:
    bus, rows = Bus(), Rows()
    follower = Follower(bus, rows.after)
    follower.expect(TASK)
    follower.start(TASK, 1, behind=True)
    rows.events = [*(moved(sequence) for sequence in range(2, 10)), ended(10)]
    bus.publish([moved(5)])
    assert await collect(follower) == list(range(2, 11))


async def test_a_slow_watcher_is_bounded_and_misses_nothing_that_is_kept() -> None:
    bus, rows = Bus(), Rows()
    follower = Follower(bus, rows.after)
    follower.expect(TASK)
    follower.start(TASK, 1)
    number = MAX_EVENTS + 50
    rows.events = [*(moved(sequence) for sequence in range(2, number)), ended(number)]
    bus.publish(rows.events)
    bus.publish([Event(TASK, 0, NOW, RunProgressed(f"{TASK}/runs/a", "organizations/alpha", 0.5, ""))])
    assert await collect(follower) == list(range(2, number + 1))


def test_log_lines_that_nobody_takes_fill_no_memory() -> None:
    mailbox = Mailbox()
    lines = RunLogged(f"{TASK}/runs/a", "organizations/alpha", ("x" * 2_000,) * 1_000, 0)
    for _ in range(20):
        mailbox.put(Event(TASK, 0, NOW, lines))
    events, _lagging = mailbox.take()
    assert len(events) == MAX_WEIGHT // 2_000_000 + 1


async def test_timers_fire_in_time_once_and_survive_a_failure() -> None:
    clock, fired, happened = ManualClock(NOW), list[str](), asyncio.Event()
    failing = True

    async def fire(due: Sequence[str]) -> None:
        happened.set()
        if failing:
            raise error(Reason.STORAGE_FULL, "full")
        fired.extend(due)

    timers = Timers(clock, fire)
    timers.set("late", timedelta(seconds=20))
    timers.set("early", timedelta(seconds=10))
    timers.set("moved", timedelta(seconds=5))
    timers.set("moved", timedelta(seconds=30))
    timers.set("gone", timedelta(seconds=5))
    timers.cancel("gone")
    running = asyncio.create_task(timers.run())
    try:
        clock.advance(timedelta(seconds=10))
        timers.wake()
        await happened.wait()
        happened.clear()
        assert fired == []
        assert "early" in timers
        failing = False
        clock.advance(timedelta(seconds=10))
        timers.wake()
        await happened.wait()
        assert fired == ["early", "late"]
        assert len(timers) == 1
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_timers_that_are_all_due_fire_in_parts() -> None:
    parts, done = list[int](), asyncio.Event()

    async def fire(due: Sequence[str]) -> None:
        parts.append(len(due))
        if sum(parts) == 2 * MAX_DUE + 1:
            done.set()

    timers = Timers(ManualClock(NOW), fire)
    for number in range(2 * MAX_DUE + 1):
        timers.set(str(number), timedelta(0))
    running = asyncio.create_task(timers.run())
    try:
        async with asyncio.timeout(30):
            await done.wait()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert parts == [MAX_DUE, MAX_DUE, 1]


def test_timers_forget_what_was_cancelled() -> None:
    async def fire(due: Sequence[str]) -> None:
        raise AssertionError("nothing is due")

    timers = Timers(ManualClock(NOW), fire)
    for number in range(1_000):
        timers.set(str(number), timedelta(hours=1))
        timers.cancel(str(number))
    assert len(timers._heap) < 200


async def test_a_snapshot_may_include_what_has_come_already() -> None:
    bus, rows = Bus(), Rows()
    follower = Follower(bus, rows.after)
    follower.expect(TASK)
    bus.publish([moved(2), moved(3), ended(4)])
    assert [event.sequence for event in follower.early(TASK, 1)] == [2, 3]
    follower.start(TASK, 3)
    assert await collect(follower) == [4]  # what ends is an event of its own


async def test_a_snapshot_does_not_include_what_follows_a_gap() -> None:
    bus, rows = Bus(), Rows()
    follower = Follower(bus, rows.after)
    follower.expect(TASK)
    bus.publish([moved(3)])
    assert follower.early(TASK, 1) == []
    rows.events = [moved(2), moved(3), ended(4)]
    follower.start(TASK, 1)
    assert await collect(follower) == [2, 3, 4]
