"""Keeps a session open: one after the other, with back-off in between, over the transport that works."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, VantageError
from vantage.node.connection import Connection
from vantage.node.session import Ending, Session
from vantage.node.transport import StreamTransport, SyncTransport, Transport
from vantage.node.transport_choice import STABLE, TransportChoice

log = logging.getLogger(__name__)

_EXPECTED_SECONDS = 300.0
"""How long a server that went away is expected back any moment: delays are short until then."""
_EXPECTED_CAP = 2.0
_FAREWELL_SECONDS = 2.0
"""How long the end of the last session may take."""

Open = Callable[[Transport], Session]
"""Makes a session over a transport."""
Prepare = Callable[[], Awaitable[None]]
"""What is to be done before a session opens."""
Say = Callable[[str], None]
"""Tells a person something, on the console."""


class SessionKeeper:
    """Opens sessions until one is closed in order.

    Args:
        connection: the way to the server.
        choice: which transport is taken.
        backoff: between sessions; one that lasted resets it.
        open_session: makes a session.
        prepare: done before each.
        say: the console.
        connected: set while a session is open.
    """

    def __init__(
        self,
        connection: Connection,
        choice: TransportChoice,
        backoff: Backoff,
        open_session: Open,
        prepare: Prepare,
        say: Say,
        connected: asyncio.Event,
    ) -> None:
        self._connection = connection
        self._choice = choice
        self._backoff = backoff
        self._open = open_session
        self._prepare = prepare
        self._say = say
        self._connected = connected
        self._stream, self._sync = StreamTransport(connection), SyncTransport(connection)
        self._session: Session | None = None
        self._told = ""
        self._cap = backoff.cap
        self._left = -_EXPECTED_SECONDS
        self._spread = 0.0
        self._closing = asyncio.Event()
        self._closed = asyncio.Event()

    async def run(self) -> None:
        """Returns after ``close``.

        Raises:
            FatalError: the server does not admit the node.
        """
        loop = asyncio.get_running_loop()
        while not self._closing.is_set():
            began = loop.time()
            self._session = session = self._open(self._sync if self._choice.sync else self._stream)
            try:
                # Before the first session, so that whoever sees the node connected can seal to it.
                await self._prepare()
                await session.run()
            except VantageError as problem:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    # A group of tasks tells the errors of its tasks in place of a cancellation that came with them.
                    raise asyncio.CancelledError from problem
                if self._closing.is_set():
                    break  # it was to be the last one
                if loop.time() - began > STABLE:
                    self._backoff.reset()
                delay = self._delay(session, problem)
                log.warning("session ended", extra={"reason": problem.reason.name, "retry_in_seconds": round(delay, 2)})
                was_connected = self._connected.is_set()
                self._connected.clear()
                self._tell(problem, was_connected=was_connected)
                reachable = not self._connection.refused
                if problem.reason is Reason.UNAVAILABLE and (not was_connected or session.ending is Ending.STALLED):
                    # The server may have come back with another certificate or address: look again. And what is half
                    # open looks open to the channel, which would put the next calls into the same hole.
                    await self._connection.reopen(problem)
                choosing = self._choose(session, loop.time() - began, reachable=reachable)
                await asyncio.gather(asyncio.sleep(delay), choosing)
        self._closed.set()

    async def close(self) -> None:
        """End the session in order, so that the server knows at once that the node is gone."""
        self._closing.set()
        if self._session is not None and self._connected.is_set():
            self._session.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await self._closed.wait()

    def beat(self) -> None:
        """Give a sign of life now: something has changed that the server should know."""
        if self._session is not None:
            self._session.beat()

    def heard(self) -> None:
        """The server has answered a heartbeat: the moment at which a change of transport costs no lease."""
        if self._session is not None and self._choice.retry_due(asyncio.get_running_loop().time()):
            log.info("trying a stream again")
            self._session.close()

    def _delay(self, session: Session, problem: VantageError) -> float:
        now = asyncio.get_running_loop().time()
        if session.welcomed:
            self._left, self._spread = now, session.spread
        # The server is expected back, and what it has told spreads its nodes enough.
        expected = now - self._left < _EXPECTED_SECONDS
        self._backoff.cap = min(self._cap, max(self._spread, _EXPECTED_CAP)) if expected else self._cap
        delay = self._backoff.next_delay()
        if session.welcomed and (session.ending is Ending.CUT or problem.reason is Reason.SERVER_STOPPING):
            # The server may have ended: then all of its nodes are looking for it.
            delay = max(delay, self._backoff.random.uniform(0.0, self._spread))
        return delay

    def _tell(self, problem: VantageError, *, was_connected: bool) -> None:
        # A person reads the console: say each thing once, not at every attempt; a wrong clock goes on ticking.
        what = problem.reason.name if problem.reason is Reason.CLOCK_SKEWED else str(problem)
        if was_connected or what != self._told:
            self._told = what
            self._say(f"not connected: {problem}; trying again")

    async def _choose(self, session: Session, lasted: float, *, reachable: bool) -> None:
        if self._choice.sync:
            if not session.welcomed:
                self._choice.sync_was_refused()
            return
        if lasted >= STABLE:
            self._choice.stream_was_good()
        elif reachable and self._choice.suspects(session.ending, lasted) and await self._connection.answers():
            lasts = self._choice.stream_was_bad(session.ending, asyncio.get_running_loop().time())
            if lasts is not None:
                log.warning("streams do not live, changing to unary calls", extra={"seconds": round(lasts)})
                self._say(
                    f"something between here and {self._connection.address} cuts or holds back streams: using unary "
                    f"calls, which cost more; a stream is tried again in {round(lasts / 60)} minutes"
                )
