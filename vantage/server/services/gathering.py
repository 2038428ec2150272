"""Requests that come while others are being committed go together: one unit of work for all that wait."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from vantage.common.errors import VantageError

T = TypeVar("T")
R = TypeVar("R")

MAX_TOGETHER = 128
"""Requests per unit of work."""


class Gathering(Generic[T, R]):
    """Hands requests on at once when nothing is under way, and otherwise in batches: a single one never waits, and many
    cost little more than one.

    Args:
        work: does what a batch asks and answers each request, in order.
    """

    def __init__(self, work: Callable[[Sequence[T]], Awaitable[Sequence[R]]]) -> None:
        self._work = work
        self._waiting: deque[tuple[Sequence[T], asyncio.Future[Sequence[R]]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def ask(self, requests: Sequence[T]) -> Sequence[R]:
        """The answers to requests, which stay together. A caller that is cancelled does not take its requests back.

        Raises:
            Exception: what the work raised.
        """
        answers: asyncio.Future[Sequence[R]] = asyncio.get_running_loop().create_future()
        self._waiting.append((requests, answers))
        if self._worker is None:
            self._worker = asyncio.create_task(self._run(), name="gathering")
        return await asyncio.shield(answers)

    async def _run(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft()]
                size = len(batch[0][0])
                while self._waiting and size + len(self._waiting[0][0]) <= MAX_TOGETHER:
                    batch.append(self._waiting.popleft())
                    size += len(batch[-1][0])
                await self._answer(batch)
        finally:
            self._worker = None

    async def _answer(self, batch: Sequence[tuple[Sequence[T], asyncio.Future[Sequence[R]]]]) -> None:
        try:
            found = await self._work([request for requests, _answers in batch for request in requests])
        except Exception as problem:  # noqa: BLE001  # whatever it is, it belongs to whoever asked
            if len(batch) > 1 and not isinstance(problem, VantageError):
                # A fault of one must not spoil the others.
                for each in batch:
                    await self._answer([each])
                return
            for _requests, answers in batch:
                answers.set_exception(problem)
                answers.exception()  # marks it as seen: the caller may be gone
            return
        position = 0
        for requests, answers in batch:
            answers.set_result(found[position : position + len(requests)])
            position += len(requests)
