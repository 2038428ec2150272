"""Lets runs be tried again that failed for a cause that may have passed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from vantage.common.clock import Clock
from vantage.server.domain.retries import LONGEST
from vantage.server.domain.runs import Run
from vantage.server.events.timers import Timers
from vantage.server.services.commits import Commits
from vantage.server.storage import lifecycle, run_store
from vantage.server.storage.lifecycle import Changes


class Retries:
    """A timer for each run that waits before it is tried again.

    Args:
        commits: where units of work are committed.
        clock: the time.
    """

    def __init__(self, commits: Commits, clock: Clock) -> None:
        self._commits = commits
        self._clock = clock
        self.timers = Timers(clock, self._release)
        self._running: asyncio.Task[None] | None = None
        commits.listen(self._on_changes)

    async def start(self) -> None:
        """Take up the runs that a former process let wait: none of them longer than any run waits."""
        self._set(await self._commits.database.read(run_store.held))
        self._running = asyncio.create_task(self.timers.run(), name="retries")

    async def stop(self) -> None:
        """Release no more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    def _on_changes(self, changes: Changes) -> None:
        self._set(changes.held)

    def _set(self, held: Iterable[Run]) -> None:
        now = self._clock.now()
        for run in held:
            if run.retry_time is not None:
                # Whatever the time of day was when this was written.
                self.timers.set(run.name, min(run.retry_time - now, LONGEST))

    async def _release(self, due: Sequence[str]) -> None:
        await self._commits.commit(lifecycle.release, due)
