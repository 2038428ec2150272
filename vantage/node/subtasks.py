"""Questions of a running algorithm to other organizations: created once, followed across lost connections."""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from functools import partial
from typing import BinaryIO

import grpc
from google.protobuf.duration_pb2 import Duration

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.common import names
from vantage.common.backoff import Backoff
from vantage.common.clock import Clock
from vantage.common.errors import InternalError, Reason, UnauthenticatedError, UnavailableError, VantageError, error
from vantage.common.event_order import EventOrder
from vantage.common.rpc import error_from_rpc
from vantage.node.answers import Answers, refers
from vantage.node.audit import NodeAudit
from vantage.node.connection import Connection
from vantage.node.door import RunContext
from vantage.node.questions import Question, Questions
from vantage.node.release.approvals import attempt_of
from vantage.node.release.consent import Consent
from vantage.node.staging import Staged, Staging
from vantage.node.subtask_orders import SubtaskOrders, set_course

log = logging.getLogger(__name__)

MAX_SUBTASKS = 1_000
"""Subtasks of one run; the server allows no more either."""
MAX_ASKED = 10_000
"""Questions that one attempt may ask, refused ones included: each leaves lines in the audit log."""
_GOING_ON = (task_pb2.TASK_STATE_UNSPECIFIED, task_pb2.TASK_STATE_ACTIVE)


class Subtasks:
    """Asks the server in the name of a run.

    Args:
        connection: the way to the server.
        orders: signs and seals what is asked under a signed order.
        answers: verifies and opens what is answered.
        audit: what leaves the node, for its admin.
        questions: what was asked, for the process after this one.
        consent: asks people whether a question may leave.
        clock: the time.
    """

    def __init__(
        self,
        connection: Connection,
        orders: SubtaskOrders,
        answers: Answers,
        audit: NodeAudit,
        questions: Questions,
        consent: Consent,
        clock: Clock,
    ) -> None:
        self._consent = consent
        self._connection = connection
        self._orders = orders
        self._answers = answers
        self._audit = audit
        self._clock = clock
        self._questions = questions
        self._asked = Counter[str]()

    def forget(self, run: str, attempt: int) -> None:
        """An attempt has its end: it asks no more."""
        self._questions.forget(attempt_of(run, attempt))
        self._asked.pop(attempt_of(run, attempt), None)

    async def run(
        self, context: RunContext, request: algorithm_pb.RunSubtaskRequest, staging: Staging
    ) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        """Create a subtask of a run, or attach to it, and stream its events; a lost connection is not noticed.

        Args:
            context: the run.
            request: what it asks.
            staging: has the arguments that it names.

        Raises:
            VantageError: as TaskService.RunTask; ARGUMENTS_NOT_STAGED; TASK_EXPIRED when the run has no time left,
                SCRATCH_UNAVAILABLE when the audit log cannot be written.
        """
        own = names.parse_request_id(request.request_id)
        attempt = attempt_of(context.run, context.attempt)
        asked = self._questions.of(attempt)
        if own not in asked and len(asked) >= MAX_SUBTASKS:
            raise error(
                Reason.TOO_MANY_SUBTASKS,
                f"a run may create {MAX_SUBTASKS} subtasks: ask several organizations in one",
                limit=str(MAX_SUBTASKS),
            )
        question = asked.setdefault(own, Question())
        question.followers += 1
        refused = False
        try:
            async with aclosing(self._follow(context, request, staging, own, question)) as events:
                async for event in events:
                    yield event
        except VantageError as problem:
            # An unclear end may hide that the task was created: then the same bytes are needed to attach to it.
            refused = not isinstance(problem, InternalError)
            raise
        finally:
            question.followers -= 1
            if not (question.followers or question.name) and (refused or question.creation is None):
                self._questions.drop(attempt, own)  # there is nothing to attach to

    async def _follow(
        self,
        context: RunContext,
        request: algorithm_pb.RunSubtaskRequest,
        staging: Staging,
        own: str,
        question: Question,
    ) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        creation = await self._creation(context, request, staging, own, question)
        last = request.after_sequence
        backoff = Backoff()
        refreshed = False
        while True:
            try:
                metadata = await self._connection.metadata()
                stub = task_service_pb2_grpc.TaskServiceStub(await self._connection.channel())
                if not question.name and last:
                    # To attach after an event the name is needed; creating again with the same id only returns it.
                    made = await stub.CreateTask(
                        task_service_pb2.CreateTaskRequest(request_id=creation.request_id, spec=creation.spec),
                        metadata=metadata,
                        timeout=30,
                    )
                    self._created(context, own, question, made.task.name)
                if question.name:
                    watch = task_service_pb2.WatchTaskRequest(name=question.name, after_sequence=last)
                    events = (answer.event async for answer in stub.WatchTask(watch, metadata=metadata))
                else:
                    events = (answer.event async for answer in stub.RunTask(creation, metadata=metadata))
                order = EventOrder(last)
                async for event in events:
                    if not order.admit(event):
                        continue
                    backoff.reset()
                    kind = event.WhichOneof("event")
                    ended = kind == "task_finished"
                    if kind == "snapshot":
                        self._created(context, own, question, event.snapshot.task.name)
                        # Of a task that has ended no event follows but those after the last one, if there are any.
                        ended = event.snapshot.task.state not in _GOING_ON and not 0 < last < event.sequence
                    if kind != "snapshot" or not last:  # else the events after the last one follow: nothing is missing
                        last = order.last
                        handed_on = await self._answers.handed_on(event, creation.spec, question.answer_key)
                        if refers(handed_on):
                            # The process after this one must know of which subtask it is when it is asked for.
                            await self._questions.keep(attempt_of(context.run, context.attempt), own)
                        yield handed_on
                    if ended:
                        return
                problem: VantageError = error(Reason.UNAVAILABLE, "the server ended the stream of a subtask")
            except grpc.aio.AioRpcError as failure:
                problem = error_from_rpc(failure)
            except VantageError as failure:
                problem = failure
            if problem.reason is Reason.KEYS_STALE and not question.name and not refreshed:
                # Nothing was created: seal to the keys that count now, and ask again.
                refreshed = True
                self._orders.forget_keys()
                creation = await self._creation(context, request, staging, own, question, stale=creation)
                continue
            await self._wait_or_raise(problem, backoff, context.run)

    async def read(self, context: RunContext, name: str, file: BinaryIO) -> None:
        """Write a result of a subtask into a file, verified and opened; a lost connection is not noticed.

        Args:
            context: the run that reads.
            name: ``tasks/{task}/runs/{run}`` of the subtask.
            file: empty; what is in it counts when this returns.

        Raises:
            NotFoundError: NOT_FOUND, this attempt has created no such subtask, or the run has no result.
            VantageError: as TaskService.GetTask, and as ``Answers.open_to``.
            OSError: of the file.
        """
        task = name.partition("/runs/")[0]
        asked = self._questions.of(attempt_of(context.run, context.attempt))
        question = next((each for each in asked.values() if task and each.name == task), None)
        if question is None or question.creation is None:
            raise error(Reason.NOT_FOUND, f"this run has created no subtask of which {name:.200} is a run")
        run = next((each for each in (await self._task(context, task)).runs if each.name == name), None)
        if run is None:
            raise error(Reason.NOT_FOUND, f"{name:.200} is not a run of {task}")
        await self._answers.open_to(run, question.creation.spec, question.answer_key, file)

    async def _task(self, context: RunContext, name: str) -> task_pb2.Task:
        backoff = Backoff()
        while True:
            try:
                metadata = await self._connection.metadata()
                stub = task_service_pb2_grpc.TaskServiceStub(await self._connection.channel())
                request = task_service_pb2.GetTaskRequest(name=name)
                return (await stub.GetTask(request, metadata=metadata, timeout=30)).task
            except grpc.aio.AioRpcError as failure:
                problem = error_from_rpc(failure)
            except VantageError as failure:
                problem = failure
            await self._wait_or_raise(problem, backoff, context.run)

    async def _wait_or_raise(self, problem: VantageError, backoff: Backoff, run: str) -> None:
        if isinstance(problem, UnauthenticatedError):
            self._connection.token_refused()
        elif not isinstance(problem, UnavailableError):
            raise problem
        log.info("asking for a subtask again", extra={"run": run, "reason": problem.reason.name})
        await self._connection.pause(backoff)

    async def _creation(
        self,
        context: RunContext,
        request: algorithm_pb.RunSubtaskRequest,
        staging: Staging,
        own: str,
        question: Question,
        *,
        stale: task_service_pb2.RunTaskRequest | None = None,
    ) -> task_service_pb2.RunTaskRequest:
        """The same question gives the same bytes for as long as the run lives: sealing and signing are random.

        Args:
            stale: what the server did not take any more; made anew unless another call has done so.
        """
        attempt = attempt_of(context.run, context.attempt)
        async with question.making:
            if question.creation is None or question.creation is stale:
                self._asked[attempt] += 1
                if self._asked[attempt] > MAX_ASKED:
                    raise error(
                        Reason.TOO_MANY_SUBTASKS,
                        f"a run may ask {MAX_ASKED} times, refused questions included: look at why they are refused",
                        limit=str(MAX_ASKED),
                    )
                request.DiscardUnknownFields()  # they would leave, and nobody could be shown what they say
                with staging.held(request) as staged:
                    question.creation = await self._make(context, request, staged, own, question.answer_key)
                # Before the server hears of it: the process after this one must send the same, and open the answers.
                await self._questions.keep(attempt, own)
            return question.creation

    def _created(self, context: RunContext, own: str, question: Question, name: str) -> None:
        if question.created(name):
            self._questions.keep_soon(attempt_of(context.run, context.attempt), own)

    async def _make(
        self,
        context: RunContext,
        request: algorithm_pb.RunSubtaskRequest,
        staged: Staged,
        own: str,
        answer_key: str,
    ) -> task_service_pb2.RunTaskRequest:
        _check_size(context, request)
        _check_times(request)
        await self._consent.to_ask(context, request, staged)
        left = context.deadline - self._clock.now()
        if left.total_seconds() <= 0:
            raise error(Reason.TASK_EXPIRED, "the run has no time left for a subtask")
        timeout = Duration()
        timeout.FromTimedelta(left)
        if request.HasField("timeout") and request.timeout.ToTimedelta() < left:
            timeout = request.timeout
        # Ids are the algorithm's: tied to the run, so that one run cannot attach to what another has created, and to
        # the attempt, with which its subtasks end.
        request_id = str(uuid.uuid5(uuid.UUID(own), f"{context.run} {context.attempt}"))
        leaves = partial(self._leaves, context.run, request.function)
        if context.order is not None:
            spec = await self._orders.spec(
                context, context.order, request, timeout.ToTimedelta(), leaves, answer_key, staged
            )
            return task_service_pb2.RunTaskRequest(request_id=request_id, spec=spec)
        await leaves(request.targets)
        spec = task_pb2.TaskSpec(
            collaboration=context.collaboration,
            title=request.title,
            image=context.image,
            function=request.function,
            targets=request.targets,
            timeout=timeout,
            parent_run=context.run,
        )
        set_course(spec, request)
        await self._orders.arguments.upload(spec, staged, request_id)
        return task_service_pb2.RunTaskRequest(request_id=request_id, spec=spec)

    async def _leaves(self, run: str, function: str, targets: Iterable[task_pb2.Target]) -> None:
        """Before the first byte leaves, also of an upload, it is in the audit log."""
        for target in targets:
            self._audit.asks(run, function, target)
        await self._audit.settle()


def _check_size(context: RunContext, request: algorithm_pb.RunSubtaskRequest) -> None:
    """The arguments of a question leave as a result does."""
    limit = context.terms.max_bytes
    largest = max((max(len(each.arguments.inline), each.arguments.size_bytes) for each in request.targets), default=0)
    if limit is not None and largest > limit:
        raise error(
            Reason.RESULT_TOO_LARGE,
            f"the arguments of a subtask have {largest} bytes, the node lets out at most {limit}",
        )


def _check_times(request: algorithm_pb.RunSubtaskRequest) -> None:
    for each in (request.timeout, request.max_runtime):
        try:
            each.ToJsonString()
        except ValueError:
            raise error(Reason.INVALID_ARGUMENT, "a time limit of the subtask is no duration that a task has") from None
