from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from vantage.common.errors import LimitExceededError, Reason, error
from vantage.server.services.gathering import MAX_TOGETHER, Gathering


class Work:
    """Doubles numbers, a batch at a time, when it is let; a zero is a fault, a negative number a full disk."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.began = asyncio.Event()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.began.set()
        await self.may_go_on.wait()
        if 0 in numbers:
            raise ZeroDivisionError
        if min(numbers) < 0:
            raise error(Reason.STORAGE_FULL, "the disk is full")
        return [2 * number for number in numbers]


async def held(work: Work, gathering: Gathering[int, int]) -> asyncio.Task[Sequence[int]]:
    """Keep the work busy with a first request."""
    work.may_go_on.clear()
    work.began.clear()
    first = asyncio.create_task(gathering.ask([100]))
    await work.began.wait()
    return first


async def test_one_alone_goes_at_once_and_those_that_wait_go_together() -> None:
    work = Work()
    gathering = Gathering(work)
    assert await gathering.ask([1]) == [2]
    first = await held(work, gathering)
    others = [asyncio.create_task(gathering.ask([number, number + 1])) for number in (1, 3, 5)]
    await asyncio.sleep(0)
    work.may_go_on.set()
    assert await first == [200]
    assert await asyncio.gather(*others) == [[2, 4], [6, 8], [10, 12]]
    assert work.batches == [[1], [100], [1, 2, 3, 4, 5, 6]]


async def test_a_batch_is_bounded() -> None:
    work = Work()
    gathering = Gathering(work)
    first = await held(work, gathering)
    others = [asyncio.create_task(gathering.ask([number])) for number in range(1, MAX_TOGETHER + 10)]
    await asyncio.sleep(0)
    work.may_go_on.set()
    await asyncio.gather(first, *others)
    assert [len(batch) for batch in work.batches] == [1, MAX_TOGETHER, 9]


async def test_the_fault_of_one_does_not_spoil_the_others() -> None:
    work = Work()
    gathering = Gathering(work)
    first = await held(work, gathering)
    others = [asyncio.create_task(gathering.ask([number])) for number in (1, 0, 2)]
    await asyncio.sleep(0)
    work.may_go_on.set()
    await first
    one, fault, two = await asyncio.gather(*others, return_exceptions=True)
    assert (one, two) == ([2], [4])
    assert isinstance(fault, ZeroDivisionError)


async def test_what_is_wrong_for_all_is_said_to_all_and_is_not_tried_again() -> None:
    work = Work()
    gathering = Gathering(work)
    first = await held(work, gathering)
    others = [asyncio.create_task(gathering.ask([number])) for number in (1, -1)]
    await asyncio.sleep(0)
    work.may_go_on.set()
    await first
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert all(isinstance(each, LimitExceededError) for each in outcomes)
    assert len(work.batches) == 2


async def test_a_caller_that_goes_away_harms_nobody() -> None:
    work = Work()
    gathering = Gathering(work)
    first = await held(work, gathering)
    gone, stays = (asyncio.create_task(gathering.ask([number])) for number in (1, 2))
    await asyncio.sleep(0)
    gone.cancel()
    work.may_go_on.set()
    await first
    assert await stays == [4]
    with pytest.raises(asyncio.CancelledError):
        await gone
