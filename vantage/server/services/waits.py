"""Says what queued runs wait for: from who is connected, and from the database only where nobody is."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable
from functools import partial
from typing import Protocol

from vantage.common.clock import Clock
from vantage.common.errors import VantageError
from vantage.server.domain.principals import NodePrincipal
from vantage.server.domain.runs import Run, RunState
from vantage.server.domain.task_events import Event, RunWaits
from vantage.server.domain.waits import MAX_NODES, Wait, WaitCause
from vantage.server.events.bus import Bus
from vantage.server.storage import organization_store, run_store
from vantage.server.storage.database import Database
from vantage.server.storage.presence_store import Presence

log = logging.getLogger(__name__)

MAX_TOLD = 1_000
"""Runs of which news are told at once."""


class Attendance(Protocol):
    """Who is connected, and who was."""

    def takers(self, organization: str) -> list[NodePrincipal]:
        """Nodes of an organization that are connected, and not being stopped."""
        ...

    def presence(self, node: str) -> Presence:
        """What is known of a node."""
        ...


class WaitNews:
    """Tells those who watch that somebody came, or went, for whom their runs wait.

    Nodes that come or go at once cost one look at the database together, and none while nobody watches anything.

    Args:
        database: knows which runs wait.
        bus: knows who watches.
        clock: the time.
    """

    def __init__(self, database: Database, bus: Bus, clock: Clock) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._changed: set[str] = set()
        self._wake = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    def changed(self, organization: str) -> None:
        """A node of an organization has come or gone."""
        if self._bus.watched:
            self._changed.add(organization)
            self._wake.set()

    async def start(self) -> None:
        """Tell from now on."""
        self._running = asyncio.create_task(self._run(), name="wait news")

    async def stop(self) -> None:
        """Tell no more."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            organizations, self._changed = self._changed, set()
            try:
                runs = await self._database.read(
                    partial(run_store.queued_at, organizations=organizations, limit=MAX_TOLD)
                )
            except VantageError as problem:  # it costs those who watch a word, and nothing else
                log.warning("cannot tell for whom runs wait", extra={"reason": problem.reason.name})
                continue
            except Exception:  # nor may a fault in this end it for all who watch later
                log.exception("cannot tell for whom runs wait")
                continue
            now = self._clock.now()
            self._bus.publish(Event(run.task, 0, now, RunWaits(run)) for run in runs if self._bus.watches(run.task))


class Waits:
    """Looks up what runs wait for.

    Args:
        database: knows all nodes.
        attendance: knows who is connected.
    """

    def __init__(self, database: Database, attendance: Attendance) -> None:
        self._database = database
        self._attendance = attendance

    async def of(self, runs: Iterable[Run]) -> dict[str, Wait]:
        """What each of these runs waits for, as far as they are queued, by name."""
        found: dict[str, Wait] = {}
        alone: list[Run] = []
        for run in runs:
            if run.state is not RunState.QUEUED:
                continue
            if run.retry_time is not None:
                found[run.name] = Wait(WaitCause.RETRY)
            elif connected := self._connected(run):
                found[run.name] = Wait(WaitCause.NODE_BUSY, tuple(connected[:MAX_NODES]))
            else:
                alone.append(run)
        if alone:
            wanted = {(run.organization, run.collaboration) for run in alone}
            serving = await self._database.read(partial(organization_store.serving, wanted=wanted))
            for run in alone:
                found[run.name] = self._offline(run, serving.get((run.organization, run.collaboration), ()))
        return found

    def _connected(self, run: Run) -> list[str]:
        return sorted(
            each.name
            for each in self._attendance.takers(run.organization)
            if run.wanted_node in ("", each.name) and run.collaboration in each.collaborations
        )

    def _offline(self, run: Run, serving: Collection[str]) -> Wait:
        seen = {each: self._attendance.presence(each).last_seen for each in serving if run.wanted_node in ("", each)}
        if not seen:
            return Wait(WaitCause.NO_NODE)
        nodes = sorted(seen, key=lambda each: (-moment.timestamp() if (moment := seen[each]) else 0.0, each))
        return Wait(WaitCause.NODE_OFFLINE, tuple(nodes[:MAX_NODES]), seen[nodes[0]])
