"""Timers go on whatever happens to what they fire."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from vantage.common.clock import ManualClock
from vantage.server.events.timers import Timers


async def test_a_fault_ends_no_timer() -> None:
    clock = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    fired: asyncio.Queue[list[str]] = asyncio.Queue()
    faulty = True

    async def fire(due: Sequence[str]) -> None:
        fired.put_nowait(list(due))
        if faulty:
            raise RuntimeError("a fault")

    timers = Timers(clock, fire)
    running = asyncio.create_task(timers.run())
    try:
        timers.set("one", timedelta(0))
        async with asyncio.timeout(30):
            assert await fired.get() == ["one"]
        faulty = False
        timers.set("two", timedelta(0))
        async with asyncio.timeout(30):
            assert await fired.get() == ["two"]
            clock.advance(timedelta(minutes=1))
            timers.wake()
            assert await fired.get() == ["one"]
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_moving_a_moment_again_and_again_costs_no_memory() -> None:
    clock = ManualClock(datetime(2026, 11, 24, tzinfo=UTC))
    fired: asyncio.Queue[list[str]] = asyncio.Queue()

    async def fire(due: Sequence[str]) -> None:
        fired.put_nowait(list(due))

    timers = Timers(clock, fire)
    for second in range(10_000):
        timers.set("upload", timedelta(days=7, seconds=second))
    assert len(timers._heap) < 100
    running = asyncio.create_task(timers.run())
    try:
        clock.advance(timedelta(days=7, seconds=9_999))
        timers.wake()
        async with asyncio.timeout(30):
            assert await fired.get() == ["upload"]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
