"""What the node says about its runs: the journal carries what must arrive, a bounded buffer what may be lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common.clock import Clock
from vantage.common.errors import VantageError
from vantage.node.attest import Attestor
from vantage.node.journal import Journal, Tidy

MAX_LINE = 2_000
MAX_FAILURE_TEXT = 4_000
MAX_PROGRESS_TEXT = 200
_LINES_PER_MESSAGE = 200
_LINES_WAITING = 1_000
_ANSWERS_WAITING = 1_000
_LAST_WAITING = 1_000
_GATHER_SECONDS = 0.1
"""News are gathered this long: a loop that prints in a hurry costs ten messages a second, not a million."""


@dataclass
class _Lines:
    waiting: deque[str] = field(default_factory=deque)
    dropped: int = 0
    taken: int = 0


class News:
    """Progress and log lines on their way to the server: the latest progress per run, a bounded number of lines."""

    def __init__(self, max_lines: int) -> None:
        self.ready = asyncio.Event()
        self._max_lines = max_lines
        self._progress: dict[str, pb.Progress] = {}
        self._lines: dict[str, _Lines] = {}
        self._leases: dict[str, pb.Lease] = {}
        self._answers: deque[pb.RelayAnswer] = deque(maxlen=_ANSWERS_WAITING)
        self._last: deque[pb.Progress] = deque(maxlen=_LAST_WAITING)
        self._timer: asyncio.TimerHandle | None = None

    def progress(self, lease: pb.Lease, fraction: float, message: str) -> None:
        """Replace what was to be said about a run's progress."""
        self._leases[lease.lease_id] = lease
        self._progress[lease.lease_id] = pb.Progress(
            lease=lease, fraction=min(max(fraction, 0.0), 1.0), message=message[:MAX_PROGRESS_TEXT]
        )
        self._arm()

    def line(self, lease: pb.Lease, text: str) -> None:
        """Add a log line; too many are counted instead of kept."""
        self._leases[lease.lease_id] = lease
        lines = self._lines.setdefault(lease.lease_id, _Lines())
        if lines.taken >= self._max_lines or len(lines.waiting) >= _LINES_WAITING:
            lines.dropped += 1
        else:
            lines.taken += 1
            lines.waiting.append(text[:MAX_LINE])
        self._arm()

    def relay_answer(self, answer: pb.RelayAnswer) -> None:
        """Answer an offer of the broker, at once."""
        self._answers.append(answer)
        self.ready.set()

    def forget(self, lease_id: str) -> None:
        """The run ended; lines that wait are lost, but what it said last is still said, at once or not at all."""
        self._lines.pop(lease_id, None)
        lease, last = self._leases.pop(lease_id, None), self._progress.pop(lease_id, None)
        if lease is not None and last is not None:
            self._last.append(last)

    def take(self, lease_id: str | None = None) -> list[pb.ConnectRequest]:
        """What is to be said now, of one run or of all."""
        messages = []
        if lease_id is None:
            while self._answers:
                messages.append(pb.ConnectRequest(relay_answer=self._answers.popleft()))
            while self._last:
                messages.append(pb.ConnectRequest(progress=self._last.popleft()))
        for each in [lease_id] if lease_id is not None else list(self._leases):
            lines = self._lines.get(each)
            if lines is not None and (lines.waiting or lines.dropped):
                part = [lines.waiting.popleft() for _ in range(min(_LINES_PER_MESSAGE, len(lines.waiting)))]
                found = pb.LogLines(lease=self._leases[each], lines=part, dropped_lines=lines.dropped)
                lines.dropped = 0
                messages.append(pb.ConnectRequest(log_lines=found))
                if lines.waiting:
                    self._arm()
            if (progress := self._progress.pop(each, None)) is not None:
                messages.append(pb.ConnectRequest(progress=progress))
        return messages

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self.ready.set()


class Reporter:
    """Words of the node about its runs. What ends a run takes ``tidy``: see ``Journal.finish``.

    Args:
        journal: for what must arrive.
        news: for what may be lost.
        attestor: signs what is said about the end of a run.
        clock: the time.
    """

    def __init__(self, journal: Journal, news: News, attestor: Attestor, clock: Clock) -> None:
        self.news = news
        self._journal = journal
        self._attestor = attestor
        self._clock = clock

    def accepted(self, lease: pb.Lease) -> None:
        """The node has journalled the assignment."""
        self._journal.say(lease.lease_id, pb.ConnectRequest(accepted=pb.Accepted(lease=lease)))

    def started(self, lease: pb.Lease) -> None:
        """The algorithm runs; said again by a process that goes on with it."""
        self._journal.mark_started(lease.lease_id)
        message = pb.Started(lease=lease)
        message.start_time.FromDatetime(self._clock.now())
        self._journal.say(lease.lease_id, pb.ConnectRequest(started=message))

    async def refused(self, lease: pb.Lease, problem: VantageError, *, retryable: bool = False) -> None:
        """The node will not run it; ``retryable``: it would if it got it once more."""
        failure = failure_of(problem)
        statement = self._attestor.statement(lease, "refused", self._clock.now(), failure=failure)
        message = pb.Refused(lease=lease, failure=failure, statement=statement, retryable=retryable)
        await self._journal.finish(lease.lease_id, pb.ConnectRequest(refused=message))

    async def succeeded(self, lease: pb.Lease, result: types_pb2.Payload, tidy: Tidy | None = None) -> None:
        """There is a result."""
        now = self._clock.now()
        statement = self._attestor.statement(lease, "succeeded", now, result=result)
        await self._complete(pb.Completed(lease=lease, result=result, statement=statement), now, tidy)

    async def failed(
        self, lease: pb.Lease, problem: VantageError, tidy: Tidy | None = None, *, retryable: bool = False
    ) -> None:
        """There is no result; ``retryable``: there was no answer either, and the node would run it once more."""
        now, failure = self._clock.now(), failure_of(problem)
        statement = self._attestor.statement(lease, "failed", now, failure=failure)
        message = pb.Completed(lease=lease, failure=failure, statement=statement, retryable=retryable)
        await self._complete(message, now, tidy)

    async def cancelled(self, lease: pb.Lease, reason: str, tidy: Tidy | None = None) -> None:
        """The run was stopped."""
        await self._complete(pb.Completed(lease=lease, cancelled=pb.Cancelled(reason=reason)), self._clock.now(), tidy)

    async def _complete(self, message: pb.Completed, now: datetime, tidy: Tidy | None) -> None:
        message.finish_time.FromDatetime(now)
        await self._journal.finish(message.lease.lease_id, pb.ConnectRequest(completed=message), tidy)


def failure_of(problem: VantageError) -> types_pb2.Failure:
    """An error as the researcher gets it."""
    metadata: Mapping[str, str] = {key[:80]: value[:MAX_FAILURE_TEXT] for key, value in problem.metadata.items()}
    return types_pb2.Failure(reason=problem.reason.name, message=problem.message[:MAX_FAILURE_TEXT], metadata=metadata)
