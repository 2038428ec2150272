"""Commits units of work and tells whoever must know, whatever becomes of the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Concatenate, ParamSpec, TypeVar

from vantage.server.storage.database import Database
from vantage.server.storage.lifecycle import Changes, Vacancy

T = TypeVar("T")
P = ParamSpec("P")
Unit = Callable[Concatenate[Any, Changes, P], T]
"""A function over a connection that adds what it does to the record of changes."""


class Commits:
    """Runs units that change tasks; after the commit every listener gets what has changed."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._listeners: list[Callable[[Changes], None]] = []
        self._heralds: list[Callable[[Iterable[Vacancy]], None]] = []
        self._under_way: set[asyncio.Future[Any]] = set()

    def listen(self, listener: Callable[[Changes], None]) -> None:
        """Call ``listener`` with the changes of each commit, on the event loop; it must not wait."""
        self._listeners.append(listener)

    def herald(self, herald: Callable[[Iterable[Vacancy]], None]) -> None:
        """Call ``herald`` with what is announced; it must not wait."""
        self._heralds.append(herald)

    async def commit(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a unit with these arguments and return its value once it is durable and told.

        A caller that is cancelled meanwhile does not keep the listeners from being told: the commit happens anyway.
        """
        return await asyncio.shield(self.submit(unit, *args, **kwargs))

    def submit(self, unit: Unit[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Like ``commit``, for a caller that waits in its own way and does not cancel the future. Units take effect in
        the order in which they are submitted."""
        changes = Changes()
        done = self.database.submit(lambda connection: unit(connection, changes, *args, **kwargs))
        self._under_way.add(done)
        # Before the caller waits: callbacks run in their order, so that the listeners know when the caller goes on.
        done.add_done_callback(lambda done: self._settled(done, changes))
        return done

    def announce(self, vacancies: Iterable[Vacancy]) -> None:
        """Say, right after submitting the unit that makes them, which runs will wait for a node: whoever looks for them
        now does so behind that unit, mostly in the same transaction."""
        for herald in self._heralds:
            # Not in the name of the call that is being served: its audit entry is not theirs to write.
            Context().run(herald, vacancies)

    def _settled(self, done: asyncio.Future[Any], changes: Changes) -> None:
        self._under_way.discard(done)
        # The caller of what failed may be gone; the database has logged what it could not do.
        if done.exception() is None:
            for listener in self._listeners:
                listener(changes)

    async def settle(self) -> None:
        """Wait until nothing is under way."""
        while self._under_way:
            await asyncio.wait(set(self._under_way))
