"""A stream of many tasks is read no faster than its answers are."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import cast

from vantage.common.errors import Reason, error
from vantage.server.domain.principals import UserPrincipal
from vantage.server.domain.task_events import Event
from vantage.server.events.bus import Bus
from vantage.server.events.follower import Follower
from vantage.server.services.task_streams import MAX_OPEN, Answer, TaskStream
from vantage.server.services.tasks import Tasks

NUMBER = 3 * MAX_OPEN


class _NoTasks:
    def follower(self) -> Follower:
        async def nothing(_task: str, _sequence: int) -> Sequence[Event]:
            return []

        return Follower(Bus(), nothing)


async def test_who_asks_nonsense_and_does_not_read_fills_no_memory() -> None:
    taken = 0
    problem = error(Reason.INVALID_ARGUMENT, "nonsense")

    async def incoming() -> AsyncGenerator[Answer, None]:
        nonlocal taken
        for number in range(NUMBER):
            taken += 1
            yield Answer(str(number), problem)

    rosa = UserPrincipal("users/rosa", None, frozenset(), "session", frozenset())
    stream = TaskStream(cast(Tasks, _NoTasks()), rosa, incoming())
    async with asyncio.timeout(30), aclosing(stream.answers()) as answers:
        found = [await anext(answers)]
        assert taken <= MAX_OPEN
        found += [each async for each in answers]
    assert [each.request_id for each in found] == [str(number) for number in range(NUMBER)]
