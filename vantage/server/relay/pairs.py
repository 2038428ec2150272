"""Pairs two sides by their tickets and hands the messages of each to the other, unread.

Back-pressure is the design: a side's next message is fetched only when the one before was taken by the transport of the
other. So a pair costs at most one message in each direction plus the transport's own windows, however fast one side
writes and however long the other does not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable

from vantage.common.errors import Reason, VantageError, error
from vantage.server.relay.limits import Rate, RelayCounters, RelayLimits
from vantage.server.relay.tickets import Side, Ticket

log = logging.getLogger(__name__)

MAX_MESSAGE = 1024 * 1024 + 64
"""A message of 1 MiB with its framing."""


Read = Callable[[], Awaitable[bytes | None]]


class _Member:
    """One side of a pair.

    Attributes:
        read: the next message that this side sent; None at the end.
        partner: the other side, once it is there.
        read_out: everything that this side sent was handed on.
        lost: this side left in the middle.
    """

    def __init__(self, ticket: Ticket, read: Read) -> None:
        self.ticket = ticket
        self.read = read
        self.partner: asyncio.Future[_Member] = asyncio.get_running_loop().create_future()
        self.read_out = asyncio.Event()
        self.lost = asyncio.Event()


class Pairs:
    """All pairs of a relay.

    Args:
        limits: what is allowed.

    Attributes:
        watchers: set whenever the number of pairs has changed.
    """

    def __init__(self, limits: RelayLimits) -> None:
        self.limits = limits
        self.counters = RelayCounters()
        self.draining = False
        self.watchers: set[asyncio.Event] = set()
        self._time = asyncio.get_running_loop().time
        self._waiting: dict[str, _Member] = {}
        self._jobs: Counter[str] = Counter()
        self._rates: dict[str, Rate] = {}
        self._open: set[asyncio.Task[object]] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    async def join(
        self, ticket: Ticket, read: Read, paired: Callable[[], Awaitable[None]]
    ) -> AsyncGenerator[bytes, None]:
        """Serve one side: yields the messages of the other until both have ended.

        Args:
            ticket: of this side.
            read: gives the next message that this side sent, None at the end.
            paired: called when the other side is there.

        Raises:
            VantageError: RELAY_TICKET_INVALID, RELAY_PEER_LOST, RATE_LIMITED or SERVER_STOPPING.
        """
        member = _Member(ticket, read)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # a coroutine that runs has one
        try:
            partner = await self._meet(member)
        except VantageError:
            self.counters.total_refused += 1
            self._changed()
            raise
        # Counted by the side that opens, so that a pair counts once.
        counts = ticket.side is Side.OPENS
        self._open.add(task)
        self._idle.clear()
        if counts:
            self.counters.pairs += 1
            self.counters.total_pairs += 1
        self._changed()
        try:
            await paired()
            async for message in self._forward(member, partner):
                yield message
        except asyncio.CancelledError:
            if self.draining:
                raise _stopping() from None
            raise
        finally:
            if not (member.read_out.is_set() and partner.read_out.is_set()):
                member.lost.set()
            self._open.discard(task)
            if counts:
                self.counters.pairs -= 1
                self._leave(ticket.job)
            if not self._open:
                self._idle.set()
            self._changed()

    async def drain(self) -> None:
        """Take no more, let what is open end, and break off what has not ended in time."""
        self.draining = True
        self._changed()
        for member in self._waiting.values():
            if not member.partner.done():
                member.partner.set_exception(_stopping())
        try:
            async with asyncio.timeout(self.limits.drain_seconds):
                await self._idle.wait()
        except TimeoutError:
            log.info("pairs broken off while stopping", extra={"pairs": self.counters.pairs})
            for task in list(self._open):
                task.cancel()
            await self._idle.wait()

    async def _meet(self, member: _Member) -> _Member:
        """Wait for the other side, or find it waiting."""
        ticket = member.ticket
        if self.draining:
            raise _stopping()
        if ticket.side is Side.WATCHES:
            raise error(Reason.RELAY_TICKET_INVALID, "the ticket is for watching the relay")
        other = self._waiting.get(ticket.pair)
        if other is None:
            self._enter(ticket.job)
            return await self._wait(member)
        if other.ticket.side is ticket.side or other.ticket.job != ticket.job:
            raise error(Reason.RELAY_TICKET_INVALID, "the ticket does not belong to the side that waits")
        del self._waiting[ticket.pair]
        if other.partner.done():  # the relay stops
            raise _stopping()
        other.partner.set_result(member)
        return other

    async def _wait(self, member: _Member) -> _Member:
        ticket = member.ticket
        self._waiting[ticket.pair] = member
        self.counters.waiting += 1
        self._changed()
        try:
            async with asyncio.timeout(self.limits.pair_seconds):
                return await member.partner
        except BaseException as problem:
            self._waiting.pop(ticket.pair, None)
            if member.partner.done() and not member.partner.cancelled() and member.partner.exception() is None:
                # It came in the same moment: it must not go on with nobody. The room of the pair is given back by
                # whoever opens; here nobody will.
                member.lost.set()
                if ticket.side is Side.OPENS:
                    self._leave(ticket.job)
            else:
                self._leave(ticket.job)
            if isinstance(problem, TimeoutError):
                raise error(
                    Reason.RELAY_PEER_LOST, f"the other side did not come within {self.limits.pair_seconds:g} s"
                ) from None
            raise
        finally:
            self.counters.waiting -= 1

    async def _forward(self, member: _Member, partner: _Member) -> AsyncGenerator[bytes, None]:
        job = self._rates.get(member.ticket.job)
        own = Rate(self.limits.rate_per_pair, self._time)
        lost = asyncio.ensure_future(partner.lost.wait())
        try:
            while (message := await partner.read()) is not None:
                if len(message) > MAX_MESSAGE:
                    raise error(Reason.INVALID_ARGUMENT, "a message has at most 1 MiB of data")
                self.counters.total_bytes += len(message)
                await own.take(len(message))
                if job is not None:
                    await job.take(len(message))
                yield message
            partner.read_out.set()
            # What the transport reports as the end is also what a broken connection looks like: the side that broke
            # says so. And this side's own messages must all be fetched before its call may end.
            read_out = asyncio.ensure_future(member.read_out.wait())
            try:
                await asyncio.wait({lost, read_out}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                read_out.cancel()
            if not member.read_out.is_set():
                raise error(Reason.RELAY_PEER_LOST, "the other side is gone")
        finally:
            lost.cancel()

    def _enter(self, job: str) -> None:
        if self._jobs.total() >= self.limits.max_pairs:
            raise error(Reason.RATE_LIMITED, "the relay has as many pairs as it takes", retry_after_seconds="5")
        if self._jobs[job] >= self.limits.max_pairs_per_job:
            raise error(
                Reason.RATE_LIMITED,
                f"the job has {self.limits.max_pairs_per_job} pairs at this relay, no more is taken",
            )
        self._jobs[job] += 1
        if self.limits.rate_per_job and job not in self._rates:
            self._rates[job] = Rate(self.limits.rate_per_job, self._time)

    def _leave(self, job: str) -> None:
        self._jobs[job] -= 1
        if not self._jobs[job]:
            del self._jobs[job]
            self._rates.pop(job, None)

    def _changed(self) -> None:
        for watcher in self.watchers:
            watcher.set()


def _stopping() -> VantageError:
    return error(Reason.SERVER_STOPPING, "the relay stops: ask the broker for another one")
