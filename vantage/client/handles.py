"""A task that is under way: its events, its answers, its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from vantage.api.task.v1 import task_pb2
from vantage.api.task.v1 import task_service_pb2 as pb
from vantage.client import converters
from vantage.client.asking import OwnOrder
from vantage.client.caller import Caller, Patience
from vantage.client.codec import Codec, check_runs, check_task
from vantage.client.models import (
    Event,
    Result,
    Run,
    RunChanged,
    RunFinished,
    RunState,
    RunWaits,
    Task,
    TaskFinished,
    TaskSnapshot,
    TaskState,
)
from vantage.common.errors import Reason, VantageError, error
from vantage.common.event_order import EventOrder


class AsyncTaskHandle:
    """A task at the server. Made by ``run`` and ``attach``; it goes on whether somebody holds a handle or not.

    Args:
        caller: makes the calls.
        codec: opens results.
        task: as known now.
        order: what this user has signed for it; None when that is not known.
        stream: its events after ``task``, already on their way; None for a task that nobody watches yet.
    """

    def __init__(
        self,
        caller: Caller,
        codec: Codec,
        task: Task,
        order: OwnOrder | None = None,
        stream: AsyncGenerator[task_pb2.TaskEvent, None] | None = None,
    ) -> None:
        self._caller = caller
        self._codec = codec
        self._task = task
        self._order = order
        self._runs: dict[str, Run] = {run.name: run for run in task.runs}
        self._stream = stream

    @property
    def name(self) -> str:
        """tasks/{task}."""
        return self._task.name

    @property
    def state(self) -> TaskState:
        """Where the task is in its life, as far as this side knows: ``refresh`` asks."""
        return self._task.state

    @property
    def task(self) -> Task:
        """The task as it was when the server told of it last."""
        return self._task

    async def refresh(self) -> Task:
        """Ask the server how the task is."""
        request = pb.GetTaskRequest(name=self.name)
        answer = await self._caller.unary(lambda stubs: stubs.tasks.GetTask, request, repeatable=True)
        self._learn(TaskSnapshot(0, None, converters.task(answer.task)))
        return self._task

    async def cancel(self) -> Task:
        """Cancel the task and all that it started; harmless when it has ended."""
        request = pb.CancelTaskRequest(name=self.name)
        answer = await self._caller.unary(lambda stubs: stubs.tasks.CancelTask, request, repeatable=True)
        self._learn(TaskSnapshot(0, None, converters.task(answer.task)))
        return self._task

    async def events(self) -> AsyncIterator[Event]:
        """What happens to the task, from a snapshot to its end; goes on by itself after lost connections.

        Progress and log lines that come while a connection is lost are lost with it; nothing else is.

        Raises:
            VantageError: the server does not give the events.
        """
        stream, self._stream = self._stream, None
        after = 0
        if stream is not None:
            after = self._task.last_sequence
            yield TaskSnapshot(after, None, self._task)
        async with aclosing(follow(self._caller, self.name, after, stream)) as events:
            async for event in events:
                self._learn(event)
                yield event

    async def results(
        self,
        timeout: float | None = None,
        sealed: bool = False,
        unverified: bool = False,
        into: Path | None = None,
    ) -> list[Result]:
        """Wait for the end and return what each organization answered, in the order in which they were asked.

        An organization without an answer has a ``failure`` instead; it raises nothing. With keys, each answer is
        verified before it is opened: what does not pass has the failure RESULT_UNVERIFIED.

        Args:
            timeout: seconds to wait; for ever when None.
            sealed: verify the answers and leave them sealed: each value is the content of an ``age`` file.
            unverified: take the server's word for a task for which you have signed no order.
            into: directory for the answers, as files named after their organizations: each value is a path, and memory
                stays bounded whatever the size.

        Raises:
            UnavailableError: DEADLINE_EXCEEDED, the task has not ended in time; it goes on.
            TrustError: RESULT_UNVERIFIED, the server tells of other organizations than were asked.
        """
        await self._finished(timeout)
        runs = [self._runs[run.name] for run in self._task.runs]
        check_runs(runs, self._order)
        return [
            await self._codec.open(run, self.name, self._order, sealed=sealed, unverified=unverified, into=into)
            for run in runs
        ]

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the answer of the only organization that was asked.

        Args:
            timeout: seconds to wait; for ever when None.

        Raises:
            InvalidArgumentError: several organizations were asked: use ``results``.
            VantageError: there is no answer; the class and the reason say why.
            UnavailableError: DEADLINE_EXCEEDED, the task has not ended in time; it goes on.
        """
        if len(self._task.runs) != 1:
            raise error(
                Reason.INVALID_ARGUMENT, f"{len(self._task.runs)} organizations were asked: use results() instead"
            )
        (only,) = await self.results(timeout)
        return only.get()

    async def _finished(self, timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                while not self._task.state.ended:
                    async for _event in self.events():
                        pass
        except TimeoutError:
            raise error(
                Reason.DEADLINE_EXCEEDED,
                f"{self.name} has not ended in {timeout:g} s; it goes on: wait longer, or cancel",
            ) from None

    def _learn(self, event: Event) -> None:
        match event:
            case TaskSnapshot():
                self._task = check_task(event.task, self.name)
                # A snapshot of a caller that may not read results has none: what is known stays.
                self._runs = {run.name: run for run in event.task.runs}
            case RunChanged() | RunFinished():
                self._runs[event.run.name] = event.run
            case RunWaits() if event.run in self._runs:
                self._runs[event.run] = waiting(self._runs[event.run], event)
            case TaskFinished():
                runs = tuple(self._runs[run.name] for run in self._task.runs)
                self._task = _ended(self._task, event, runs)


def waiting(run: Run, event: RunWaits) -> Run:
    """A run after news of what it waits for: such may come late, when it has gone on already."""
    return replace(run, wait=event.wait) if run.state is RunState.QUEUED else run


async def follow(
    caller: Caller, name: str, after: int = 0, stream: AsyncGenerator[task_pb2.TaskEvent, None] | None = None
) -> AsyncGenerator[Event, None]:
    """The events of a task after one of them until its end, each kept one once, over as many connections as it takes.

    Args:
        caller: makes the calls.
        name: tasks/{task}.
        after: sequence of the last event that is known; 0 for none: a snapshot then comes first.
        stream: events after that one that are on their way already.

    Raises:
        VantageError: the server does not give the events.
    """
    patience = Patience()
    while True:
        ended = False
        order = EventOrder(after, begun=stream is not None)
        try:
            async with aclosing(stream or _watch(caller, name, after)) as messages:
                async for message in messages:
                    if not order.admit(message):
                        continue
                    patience.progressed()
                    event = converters.event(message)
                    if isinstance(event, TaskSnapshot):
                        ended = event.task.state.ended
                        if after:
                            # Attached again: what the snapshot has beyond the last event follows, one by one.
                            continue
                    after = order.last
                    if event is None:
                        continue
                    yield event
                    if isinstance(event, TaskFinished):
                        return
            if ended:
                return
            problem = error(Reason.UNAVAILABLE, "the server ended the events of a task that goes on")
        except VantageError as caught:
            problem = caught
        stream = None
        await patience.wait_or_raise(problem)


async def _watch(caller: Caller, name: str, after: int) -> AsyncGenerator[task_pb2.TaskEvent, None]:
    request = pb.WatchTaskRequest(name=name, after_sequence=after)
    async with aclosing(caller.stream(lambda stubs: stubs.tasks.WatchTask, request)) as responses:
        async for response in responses:
            yield response.event


def _ended(task: Task, event: TaskFinished, runs: tuple[Run, ...]) -> Task:
    return replace(task, state=event.state, runs=runs, finish_time=event.time, last_sequence=event.sequence)
