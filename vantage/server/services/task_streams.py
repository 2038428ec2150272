"""Use case of RunTasks: many tasks over one stream, created in batches, watched together."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from vantage.common.errors import VantageError
from vantage.server.domain.principals import Principal
from vantage.server.domain.task_events import Event, folded
from vantage.server.domain.tasks import Task, TaskState
from vantage.server.services.tasks import Question, Snapshot, Tasks
from vantage.server.storage.creation import Existing, Request

log = logging.getLogger(__name__)

MAX_OPEN = 1_000
"""Tasks of one stream that have not ended; the stream is not read further until one has."""
MAX_BATCH = 128
"""Tasks per commit."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What happened to one item."""

    request_id: str
    outcome: Snapshot | Event | VantageError


Incoming = Question | Answer
"""A question, or the answer to one that could not be read."""


class TaskStream:
    """One call of RunTasks.

    Args:
        tasks: where tasks are created.
        principal: the caller.
        incoming: its questions.
    """

    def __init__(self, tasks: Tasks, principal: Principal, incoming: AsyncIterator[Incoming]) -> None:
        self._tasks = tasks
        self._principal = principal
        self._incoming = incoming
        self._follower = tasks.follower()
        self._waiting: deque[Question] = deque()
        self._answers: deque[Answer] = deque()
        self._request_ids: dict[str, str] = {}
        self._creating = 0
        self._ended = False
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()

    async def answers(self) -> AsyncGenerator[Answer, None]:
        """Answers in the order in which they come to be, until the caller has asked all and all tasks have ended."""
        workers = [asyncio.create_task(self._read()), asyncio.create_task(self._create())]
        for worker in workers:
            worker.add_done_callback(lambda _worker: self._follower.wake())
        try:
            while True:
                while self._answers:
                    yield self._answers.popleft()
                self._room.set()
                for worker in workers:
                    if worker.done():
                        worker.result()
                if self._ended and not self._waiting and not self._creating and not self._follower.open:
                    if self._answers:
                        continue
                    return
                for event in await self._follower.next():
                    # The snapshot of a task is among the answers before its first event is handed out.
                    while self._answers:
                        yield self._answers.popleft()
                    yield Answer(self._request_ids[event.task], event)
                self._forget_ended()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._follower.close()

    def _forget_ended(self) -> None:
        self._room.set()
        if len(self._request_ids) > 2 * MAX_OPEN:
            self._request_ids = {
                task: request_id for task, request_id in self._request_ids.items() if self._follower.follows(task)
            }

    async def _read(self) -> None:
        async for item in self._incoming:
            if isinstance(item, Answer):
                self._answers.append(item)
                self._follower.wake()
            else:
                self._waiting.append(item)
                self._arrived.set()
            # Answers too: who asks nonsense and does not read must not fill the memory.
            while self._follower.open + len(self._waiting) + len(self._answers) >= MAX_OPEN:
                self._room.clear()
                await self._room.wait()
        self._ended = True
        self._arrived.set()
        self._follower.wake()

    async def _create(self) -> None:
        while not self._ended or self._waiting:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                self._creating = len(batch)
                await self._create_batch(batch)
                self._creating = 0
                self._follower.wake()

    async def _create_batch(self, batch: list[Question]) -> None:
        prepared: list[tuple[Question, Request]] = []
        for question in batch:
            try:
                request = self._tasks.prepare(self._principal, question)
            except VantageError as problem:
                self._answers.append(Answer(question.request_id, problem))
                continue
            self._follower.expect(request.name)
            prepared.append((question, request))
        if not prepared:
            return
        try:
            outcomes = await self._tasks.create_many(self._principal, [request for _question, request in prepared])
        except VantageError as problem:
            outcomes = [problem] * len(prepared)  # the commit failed: nothing of it happened
        for (question, request), outcome in zip(prepared, outcomes, strict=True):
            if isinstance(outcome, Task):
                task = folded(outcome, self._follower.early(outcome.name, outcome.last_sequence))
                self._open(question.request_id, task, task.last_sequence)
                continue
            self._follower.forget(request.name)
            if isinstance(outcome, Existing):
                await self._attach(question.request_id, outcome.task)
            else:
                self._answers.append(Answer(question.request_id, outcome))

    async def _attach(self, request_id: str, name: str) -> None:
        """Follow a task that an earlier request made, perhaps on this very stream: then its events are under way."""
        followed = self._follower.follows(name)
        self._follower.expect(name)
        try:
            task = await self._tasks.get(self._principal, name)
        except VantageError as problem:
            if not followed:
                self._follower.forget(name)
            self._answers.append(Answer(request_id, problem))
            return
        if followed:
            self._answers.append(Answer(request_id, Snapshot(task, task.created)))
            return
        self._open(request_id, task, task.last_sequence)
        if task.state is not TaskState.ACTIVE:
            self._follower.forget(name)

    def _open(self, request_id: str, task: Task, sequence: int) -> None:
        self._request_ids[task.name] = request_id
        self._answers.append(Answer(request_id, Snapshot(task, task.created)))
        self._follower.start(task.name, sequence)
