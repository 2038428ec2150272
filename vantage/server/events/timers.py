"""Timers: one task that sleeps until the next moment that somebody asked for."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from vantage.common.clock import Clock
from vantage.common.errors import VantageError

log = logging.getLogger(__name__)

MAX_DUE = 1_000
"""Keys that fire together: after a long rest very many may be due, and none is to wait for all others."""
_COMPACT_ABOVE = 64
_RETRY = timedelta(seconds=5)


class Timers:
    """Moments by key; a key has one at most. Setting the time of day moves none of them.

    Args:
        clock: tells how time passes.
        fire: called with the keys whose moment has come, at most ``MAX_DUE``; they are no longer set then.
    """

    def __init__(self, clock: Clock, fire: Callable[[Sequence[str]], Awaitable[None]]) -> None:
        self._clock = clock
        self._fire = fire
        self._moments: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._changed = asyncio.Event()

    def __contains__(self, key: str) -> bool:
        return key in self._moments

    def __len__(self) -> int:
        return len(self._moments)

    def set(self, key: str, after: timedelta) -> None:
        """Set or move a key's moment: so long after now, at once when it is not above zero."""
        moment = self._clock.monotonic() + max(after.total_seconds(), 0.0)
        self._moments[key] = moment
        heapq.heappush(self._heap, (moment, key))
        self._compact()  # a key that is moved again and again leaves its former moments behind
        if self._heap[0] == (moment, key):
            self._changed.set()

    def cancel(self, key: str) -> None:
        """Take a key's moment away; harmless when there is none."""
        if self._moments.pop(key, None) is not None:
            self._compact()

    def _compact(self) -> None:
        if len(self._heap) > 2 * len(self._moments) + _COMPACT_ABOVE:
            self._heap = [(moment, key) for key, moment in self._moments.items()]
            heapq.heapify(self._heap)

    def wake(self) -> None:
        """Look at the clock again: for a clock that was moved."""
        self._changed.set()

    async def run(self) -> None:
        """Fire until cancelled."""
        while True:
            self._changed.clear()
            if due := self._due():
                await self._try(due)
                continue
            delay = self._heap[0][0] - self._clock.monotonic() if self._heap else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._changed.wait()

    async def _try(self, due: list[str]) -> None:
        try:
            await self._fire(due)
            return
        except VantageError as problem:
            # Nothing happened, e.g. the disk is full; what is due stays due.
            log.error("timers failed, will try again", extra={"reason": problem.reason.name, "keys": len(due)})
        except Exception:  # a fault in what one key asks for must not end the timers of all others
            log.exception("timers failed, will try again", extra={"keys": len(due)})
        for key in due:
            if key not in self._moments:
                self.set(key, _RETRY)

    def _due(self) -> list[str]:
        now = self._clock.monotonic()
        due: list[str] = []
        while self._heap and len(due) < MAX_DUE:
            moment, key = self._heap[0]
            if self._moments.get(key) != moment:
                heapq.heappop(self._heap)  # cancelled or moved
            elif moment <= now:
                heapq.heappop(self._heap)
                del self._moments[key]
                due.append(key)
            else:
                break
        return due
