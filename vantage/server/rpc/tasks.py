"""TaskService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from datetime import UTC
from typing import Any

import grpc

from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.common.errors import VantageError
from vantage.server.domain.contents import DEFAULT_INLINE_LIMIT
from vantage.server.domain.runs import Run
from vantage.server.domain.task_events import RunMoved, RunWaits
from vantage.server.domain.tasks import Task, TaskState
from vantage.server.rpc.context import current_principal, current_user
from vantage.server.rpc.paging import fitting
from vantage.server.rpc.task_converters import (
    Liveness,
    error_to_proto,
    hash_of,
    item_to_proto,
    spec_from_proto,
    task_to_proto,
)
from vantage.server.services.task_streams import Answer, Incoming, TaskStream
from vantage.server.services.tasks import Item, Question, Snapshot, Tasks
from vantage.server.services.waits import Waits
from vantage.server.storage.task_store import Listing

Context = grpc.aio.ServicerContext[Any, Any]


class TaskServicer(task_service_pb2_grpc.TaskServiceServicer):
    """Parses, calls one use case, shapes the reply.

    Args:
        tasks: the use cases.
        liveness: who is connected, how far runs are.
        waits: what runs wait for.
        max_inline_bytes: largest payload inside a message.
    """

    def __init__(
        self, tasks: Tasks, liveness: Liveness, waits: Waits, max_inline_bytes: int = DEFAULT_INLINE_LIMIT
    ) -> None:
        self._tasks = tasks
        self._liveness = liveness
        self._waits = waits
        self._limit = max_inline_bytes

    async def RunTask(
        self, request: task_service_pb2.RunTaskRequest, context: Context
    ) -> AsyncGenerator[task_service_pb2.RunTaskResponse, None]:
        question = self._question(request.request_id, request.spec)
        async with aclosing(self._tasks.run(current_principal(), question)) as items:
            async for item in items:
                yield task_service_pb2.RunTaskResponse(event=await self._event(item))

    async def RunTasks(
        self,
        request_iterator: AsyncIterator[task_service_pb2.RunTasksRequest],
        context: Context,
    ) -> AsyncGenerator[task_service_pb2.RunTasksResponse, None]:
        stream = TaskStream(self._tasks, current_principal(), self._incoming(request_iterator))
        async with aclosing(stream.answers()) as answers:
            async for answer in answers:
                response = task_service_pb2.RunTasksResponse(request_id=answer.request_id)
                if isinstance(answer.outcome, VantageError):
                    response.failure.CopyFrom(error_to_proto(answer.outcome))
                else:
                    response.event.CopyFrom(await self._event(answer.outcome))
                yield response

    async def CreateTask(
        self, request: task_service_pb2.CreateTaskRequest, context: Context
    ) -> task_service_pb2.CreateTaskResponse:
        task = await self._tasks.create(current_principal(), self._question(request.request_id, request.spec))
        return task_service_pb2.CreateTaskResponse(task=await self._task(task))

    async def WatchTask(
        self, request: task_service_pb2.WatchTaskRequest, context: Context
    ) -> AsyncGenerator[task_service_pb2.WatchTaskResponse, None]:
        async with aclosing(self._tasks.watch(current_principal(), request.name, request.after_sequence)) as items:
            async for item in items:
                yield task_service_pb2.WatchTaskResponse(event=await self._event(item))

    async def GetTask(
        self, request: task_service_pb2.GetTaskRequest, context: Context
    ) -> task_service_pb2.GetTaskResponse:
        task = await self._tasks.get(current_principal(), request.name)
        return task_service_pb2.GetTaskResponse(task=await self._task(task))

    async def ListTasks(
        self, request: task_service_pb2.ListTasksRequest, context: Context
    ) -> task_service_pb2.ListTasksResponse:
        page = await self._tasks.list(current_user(), _listing(request.filter), request.page_size, request.page_token)
        tasks, token = fitting(page, lambda task: task_to_proto(task, self._liveness, {}))
        return task_service_pb2.ListTasksResponse(tasks=tasks, next_page_token=token)

    async def CancelTask(
        self, request: task_service_pb2.CancelTaskRequest, context: Context
    ) -> task_service_pb2.CancelTaskResponse:
        task = await self._tasks.cancel(current_principal(), request.name)
        return task_service_pb2.CancelTaskResponse(task=await self._task(task))

    async def _task(self, task: Task) -> task_pb2.Task:
        return task_to_proto(task, self._liveness, await self._waits.of(task.runs))

    async def _event(self, item: Item) -> task_pb2.TaskEvent:
        if isinstance(item, Snapshot):
            runs: Sequence[Run] = item.task.runs
        else:
            runs = (item.body.run,) if isinstance(item.body, RunMoved | RunWaits) else ()
        return item_to_proto(item, self._liveness, await self._waits.of(runs))

    def _question(self, request_id: str, spec: task_pb2.TaskSpec) -> Question:
        return Question(request_id, hash_of(spec), spec_from_proto(spec, self._limit))

    async def _incoming(
        self, requests: AsyncIterator[task_service_pb2.RunTasksRequest]
    ) -> AsyncGenerator[Incoming, None]:
        async for request in requests:
            try:
                yield self._question(request.request_id, request.spec)
            except VantageError as problem:
                yield Answer(request.request_id, problem)


def _listing(message: task_service_pb2.TaskFilter) -> Listing:
    known = {int(state) for state in TaskState}
    return Listing(
        message.collaboration,
        tuple(TaskState(state) for state in message.states if state in known),
        message.creator,
        message.created_after.ToDatetime(UTC) if message.HasField("created_after") else None,
    )
