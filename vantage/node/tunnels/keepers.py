"""Keeps links alive: the side that opens asks for connections, the side that answers waits for them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from vantage.common.backoff import Backoff
from vantage.common.errors import (
    Reason,
    UnauthenticatedError,
    UnavailableError,
    VantageError,
    error,
)
from vantage.node.tunnels.link import Link
from vantage.node.tunnels.wire import Wire

log = logging.getLogger(__name__)

_MENDS_ITSELF = frozenset({Reason.RELAY_TAMPERED, Reason.RATE_LIMITED})
"""Another attempt, perhaps over another relay, may go better."""


@dataclass(frozen=True)
class KeeperSettings:
    """How long a lost connection is given."""

    resume_seconds: float = 60.0
    """From the loss until both sides give up."""


def may_pass(problem: VantageError) -> bool:
    """Whether another attempt can help."""
    return isinstance(problem, UnavailableError | UnauthenticatedError) or problem.reason in _MENDS_ITSELF


class OpeningKeeper:
    """Keeps the link of the side that opens.

    Args:
        link: what is kept.
        connect: makes a sealed connection to the other node.
        settings: how long.
        first_seconds: how long the first connection is given.
    """

    def __init__(
        self, link: Link, connect: Callable[[], Awaitable[Wire]], settings: KeeperSettings, first_seconds: float
    ) -> None:
        self.link = link
        self._connect = connect
        self._settings = settings
        self._first_seconds = first_seconds

    async def run(self) -> None:
        """Until the link has ended."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(base=0.1, cap=2.0)
        deadline = loop.time() + self._first_seconds
        seconds = self._first_seconds
        while not self.link.ended.is_set():
            try:
                async with asyncio.timeout_at(deadline):
                    wire = await self._connect()
            except TimeoutError:
                problem: VantageError = error(
                    Reason.PEER_LOST, f"no connection to {self.link.parties.peer_node} within {seconds:g} s"
                )
            except VantageError as failure:
                problem = failure
            else:
                began = loop.time()
                try:
                    await self.link.carry(wire)
                    return  # it ended in order
                except VantageError as failure:
                    problem = failure
                if loop.time() - began > 1.0:
                    backoff.reset()
                seconds = self._settings.resume_seconds
                deadline = loop.time() + seconds
            if self.link.ended.is_set():
                return
            if not may_pass(problem):
                self.link.fail(problem)
                return
            delay = backoff.next_delay()
            if loop.time() + delay >= deadline:
                self.link.fail(_gave_up(self.link, problem, seconds))
                return
            log.info(
                "connection to a peer is tried again",
                extra={
                    "run": self.link.parties.run,
                    "peer": self.link.parties.peer_node,
                    "reason": problem.reason.name,
                },
            )
            await asyncio.sleep(delay)


class AnsweringKeeper:
    """Keeps the link of the side that answers.

    Args:
        link: what is kept.
        settings: how long.
    """

    def __init__(self, link: Link, settings: KeeperSettings) -> None:
        self.link = link
        self._settings = settings
        self._current: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def used(self) -> bool:
        """Whether there has ever been a connection."""
        return self._current is not None

    async def carry(self, wire: Wire) -> None:
        """Go on over a new connection; returns when it is lost or the link has ended."""
        if self._current is not None:
            # The other side opened a new one: it has given the older one up, whatever it looks like from here.
            self._current.cancel()
            await asyncio.gather(self._current, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()
        self._current = asyncio.create_task(self._carry(wire), name="link")
        await asyncio.wait({self._current})

    async def _carry(self, wire: Wire) -> None:
        try:
            await self.link.carry(wire)
        except VantageError as problem:
            if self.link.ended.is_set():
                return
            if not may_pass(problem):
                self.link.fail(problem)
                return
            seconds = self._settings.resume_seconds
            gave_up = _gave_up(self.link, problem, seconds)
            self._timer = asyncio.get_running_loop().call_later(seconds, self._give_up, gave_up)

    def _give_up(self, problem: VantageError) -> None:
        if not self.link.attached.is_set():
            self.link.fail(problem)


def _gave_up(link: Link, last: VantageError, seconds: float) -> VantageError:
    # What was seen last says more than that time is up; tampering must not look like a lost connection.
    reason = last.reason if last.reason in (Reason.RELAY_TAMPERED, Reason.PEER_NOT_READY) else Reason.PEER_LOST
    what = "was lost, and not resumed" if link.met else "could not be made"
    return error(reason, f"the connection to {link.parties.peer_node} {what} within {seconds:g} s: {last.message}")
