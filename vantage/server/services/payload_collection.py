"""Removes payloads that nobody needs: uploads that were not finished, and those that no task refers to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import partial

from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.events.timers import Timers
from vantage.server.payloads.store import PayloadStore
from vantage.server.storage import payload_store
from vantage.server.storage.database import Database

log = logging.getLogger(__name__)

DEFAULT_GRACE = timedelta(days=7)
BATCH = 500
"""Payloads per transaction: after a long rest of the server very many may be due at once."""


class PayloadCollection:
    """Sleeps until the next payload is due.

    A payload goes in three steps, each durable before the next, so that a crash between them leaves nothing behind:
    its row says that it is being removed, its bytes are removed, its row is removed.

    Args:
        database: rows.
        store: bytes.
        clock: the time.
        grace: how long after its upload, or the last attempt at it, a payload is kept without a task.
    """

    def __init__(self, database: Database, store: PayloadStore, clock: Clock, grace: timedelta = DEFAULT_GRACE) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._grace = grace
        self._held: set[str] = set()
        self.timers = Timers(clock, self._collect)
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what a former process left, and collect from now on."""
        now = self._clock.now()
        for name, created, removing in await self._database.read(payload_store.unused):
            self.timers.set(name, timedelta(0) if removing else self._rest(created, now))
        self._running = asyncio.create_task(self.timers.run(), name="payload collection")

    async def stop(self) -> None:
        """Collect no more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    @contextmanager
    def holding(self, name: str) -> Iterator[None]:
        """Keep a payload while it is uploaded, and for the grace afterwards.

        Raises:
            ConflictError: IN_USE: it is uploaded on another stream.
        """
        if name in self._held:
            raise error(Reason.IN_USE, "this upload is under way on another stream: end that one first")
        self._held.add(name)
        try:
            yield
        finally:
            self._held.discard(name)
            self.timers.set(name, self._grace)

    async def _collect(self, due: Sequence[str]) -> None:
        # What is held now gets its next moment when it is let go.
        free = [name for name in due if name not in self._held]
        now = self._clock.now()
        for start in range(0, len(free), BATCH):
            await self._remove(free[start : start + BATCH], now)

    def _rest(self, created: datetime, now: datetime) -> timedelta:
        """How long an upload is kept yet; never longer than the grace, whatever the clock said when it was made."""
        return min(created + self._grace - now, self._grace)

    async def _remove(self, names: Sequence[str], now: datetime) -> None:
        before = now - self._grace
        condemned, young = await self._database.write(partial(payload_store.condemn, names=names, before=before))
        # Another process took it up again, or the time of day was set back since.
        for name, created in young:
            if name not in self._held:
                self.timers.set(name, self._rest(created, now))
        for name in condemned:
            await self._store.remove(name)
        if condemned:
            await self._database.write(partial(payload_store.forget, names=condemned))
            log.info("removed payloads that no task refers to", extra={"payloads": len(condemned)})
