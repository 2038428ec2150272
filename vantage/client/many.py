"""Many questions over one stream: what programs use that ask all day."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import grpc

from vantage.api.task.v1 import task_pb2
from vantage.api.task.v1 import task_service_pb2 as pb
from vantage.client import converters
from vantage.client.asking import OwnOrder
from vantage.client.caller import Caller, Patience
from vantage.client.codec import Codec, check_runs, own_id
from vantage.client.models import (
    Answer,
    Failure,
    Question,
    Run,
    RunChanged,
    RunFinished,
    TaskFinished,
    TaskSnapshot,
)
from vantage.common.errors import Reason, UnauthenticatedError, VantageError
from vantage.common.event_order import EventOrder
from vantage.common.rpc import error_from_rpc

MAX_OPEN = 500
"""Questions that are under way at once, or whose answer was not taken yet; further ones wait here."""

FRESH = timedelta(minutes=1)
"""A question that waits longer for a connection is signed anew: its order must not end before its task."""

Prepare = Callable[[Question, str], Awaitable[task_pb2.TaskSpec]]
"""Makes the message of a question with a request id, or raises what is wrong with it."""


@dataclass
class _Pending:
    """A question that has no answer yet."""

    question: Question
    request: pb.RunTasksRequest
    task: str = ""
    runs: dict[str, Run] = field(default_factory=dict)
    order: EventOrder = field(default_factory=EventOrder)
    signed: datetime | None = None
    """When the request was made, if it is signed."""
    stale: bool = False
    """The server said KEYS_STALE: it must be sealed anew."""
    renewed: bool = False
    earlier: pb.RunTasksRequest | None = None
    """The request before it was signed anew: if that one arrived after all, only its bytes attach to its task."""
    again: bool = False
    """It must be sent again on this stream."""


class Batch:
    """One call of ``run_many``; goes on by itself after lost connections.

    A question keeps its request id for its life, so asking again after a lost connection attaches to its task.

    Args:
        caller: makes the calls.
        prepare: see ``Prepare``.
        codec: opens results.
    """

    def __init__(self, caller: Caller, prepare: Prepare, codec: Codec) -> None:
        self._caller = caller
        self._prepare = prepare
        self._codec = codec
        self._pending: dict[str, _Pending] = {}
        self._unsent: asyncio.Queue[_Pending | None] = asyncio.Queue()
        self._answers: asyncio.Queue[_Pending | Answer | None] = asyncio.Queue()
        self._room = asyncio.Semaphore(MAX_OPEN)
        self._all_asked = False

    async def answers(self, questions: Iterable[Question] | AsyncIterable[Question]) -> AsyncGenerator[Answer, None]:
        """The answers, in the order in which they come to be."""
        workers = [asyncio.create_task(self._ask(questions)), asyncio.create_task(self._converse())]
        for worker in workers:
            worker.add_done_callback(self._failed)
        try:
            while (item := await self._answers.get()) is not None:
                self._room.release()  # not before: answers that nobody takes must not pile up
                if isinstance(item, _Pending):
                    item = await self._answer(item)
                yield item
            for worker in workers:
                if worker.done():
                    worker.result()
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _answer(self, pending: _Pending) -> Answer:
        envelope = pending.request.spec.order
        order = OwnOrder.made_here(envelope) if envelope else None
        runs = tuple(pending.runs.values())
        try:
            check_runs(runs, order)
        except VantageError as problem:
            return Answer(pending.question, pending.task, failure=_failure(problem))
        results = [await self._codec.open(run, pending.task, order) for run in runs]
        return Answer(pending.question, pending.task, tuple(results))

    def _failed(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and worker.exception() is not None:
            self._answers.put_nowait(None)

    async def _ask(self, questions: Iterable[Question] | AsyncIterable[Question]) -> None:
        """Take questions while there is room for them."""
        async for question in _each(questions):
            await self._room.acquire()
            try:
                request_id = own_id(question.request_id)
                spec = await self._prepare(question, request_id)
            except VantageError as problem:
                self._answers.put_nowait(Answer(question, failure=_failure(problem)))
                continue
            signed = self._caller.clock.now() if spec.order else None
            pending = _Pending(question, pb.RunTasksRequest(request_id=request_id, spec=spec), signed=signed)
            self._pending[request_id] = pending
            self._unsent.put_nowait(pending)
        self._all_asked = True
        self._unsent.put_nowait(None)

    async def _converse(self) -> None:
        """Ask and listen, over as many connections as it takes."""
        patience = Patience()
        while not (self._all_asked and not self._pending):
            try:
                await self._converse_once(patience)
            except VantageError as problem:
                await patience.wait_or_raise(problem)
        self._answers.put_nowait(None)

    async def _converse_once(self, patience: Patience) -> None:
        """Ask and listen until all is answered, or the connection is lost."""
        token, metadata = await self._caller.metadata()
        stubs = await self._caller.stubs()
        call = stubs.tasks.RunTasks(metadata=metadata)
        writer = asyncio.create_task(self._write(call))
        try:
            async for response in call:
                patience.progressed()
                self._take(response)
        except grpc.aio.AioRpcError as failure:
            problem = error_from_rpc(failure)
            if not isinstance(problem, UnauthenticatedError):
                raise problem from failure
            await self._caller.credentials.refused(token, problem)
            # With a delay, and not for ever: a server that refuses what it has just given would be asked in a circle.
            await patience.wait_unclear(problem)
        finally:
            writer.cancel()
            call.cancel()
            await asyncio.gather(writer, return_exceptions=True)

    async def _write(self, call: Any) -> None:
        """Ask what has no answer, then what comes; the call is over when a write fails, and the reader says why."""
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            sent = set()
            for pending in list(self._pending.values()):
                sent.add(pending.request.request_id)
                await self._renew(pending)
                await call.write(pending.request)
            while not (self._all_asked and self._unsent.empty()):
                following = await self._unsent.get()
                if following is not None and (following.again or following.request.request_id not in sent):
                    await self._renew(following)
                    await call.write(following.request)
            await call.done_writing()

    async def _renew(self, pending: _Pending) -> None:
        """Sign and seal a question anew whose keys were old, or that has waited so long for a connection that its order
        would end before its task."""
        pending.again = False
        now = self._caller.clock.now()
        waited = pending.signed is not None and not pending.task and now - pending.signed > FRESH
        if waited and not pending.stale:
            pending.earlier = pending.request
        elif pending.stale:
            pending.stale, pending.renewed = False, True
        else:
            return
        request_id = pending.request.request_id
        with suppress(VantageError):  # sent as it was, it is refused again, and answered with that
            spec = await self._prepare(pending.question, request_id)
            pending.request = pb.RunTasksRequest(request_id=request_id, spec=spec)
            pending.signed = now

    def _take(self, response: pb.RunTasksResponse) -> None:
        pending = self._pending.get(response.request_id)
        if pending is None:
            return  # answered before the connection was lost
        if response.WhichOneof("outcome") == "failure":
            reason = response.failure.reason
            if reason == Reason.KEYS_STALE.name and pending.request.spec.order and not pending.renewed:
                self._codec.forget_keys()
                pending.stale = pending.again = True
                self._unsent.put_nowait(pending)
                return
            if reason == Reason.REQUEST_ID_REUSED.name and pending.earlier is not None:
                pending.request, pending.earlier, pending.signed = pending.earlier, None, None
                pending.again = True
                self._unsent.put_nowait(pending)
                return
            self._end(response.request_id, Answer(pending.question, failure=converters.failure(response.failure)))
            return
        if not pending.order.admit(response.event):
            return
        match converters.event(response.event):
            case TaskSnapshot(task=task):
                pending.task = task.name
                pending.runs = {run.name: run for run in task.runs}
                if task.state.ended:
                    self._end(response.request_id, pending)
            case RunChanged(run=run) | RunFinished(run=run):
                pending.runs[run.name] = run
            case TaskFinished():
                self._end(response.request_id, pending)

    def _end(self, request_id: str, answer: _Pending | Answer) -> None:
        del self._pending[request_id]
        self._answers.put_nowait(answer)


async def _each(questions: Iterable[Question] | AsyncIterable[Question]) -> AsyncIterator[Question]:
    if isinstance(questions, AsyncIterable):
        async for question in questions:
            yield question
        return
    if isinstance(questions, Sequence):
        for question in questions:
            yield question
        return
    # A generator may take its time: the loop must not wait for it.
    iterator = iter(questions)
    while (following := await asyncio.to_thread(next, iterator, None)) is not None:
        yield following


def _failure(problem: VantageError) -> Failure:
    return Failure(problem.reason.name, problem.message, problem.metadata)
