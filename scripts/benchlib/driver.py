"""Asks questions the way a client does: the same code for the ceiling and for the real server."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator

import grpc

from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.api.types.v1 import types_pb2


def question(image: str, collaboration: str, organization: str, function: str, arguments: bytes) -> task_pb2.TaskSpec:
    """A question to one organization."""
    spec = task_pb2.TaskSpec(collaboration=collaboration, image=image, function=function)
    target = spec.targets.add(organization=organization)
    target.arguments.CopyFrom(
        types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_NONE, inline=arguments)
    )
    return spec


class Driver:
    """A client of one server.

    Args:
        channel: to it; stays the caller's.
        metadata: credentials.
        spec: what is asked, again and again.
    """

    def __init__(
        self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...], spec: task_pb2.TaskSpec
    ) -> None:
        self._stub = task_service_pb2_grpc.TaskServiceStub(channel)
        self._metadata = metadata
        self._spec = spec

    async def ask(self, spec: task_pb2.TaskSpec | None = None) -> float:
        """One task by RunTask, from the call to the end of its stream; returns the seconds."""
        request = task_service_pb2.RunTaskRequest(request_id=str(uuid.uuid4()), spec=spec or self._spec)
        began, answered = time.perf_counter(), False
        async for response in self._stub.RunTask(request, metadata=self._metadata):
            answered = _is_answer(response.event) or answered
        if not answered:
            raise RuntimeError("a task ended without an answer")
        return time.perf_counter() - began

    async def latencies(self, count: int) -> list[float]:
        """Seconds of each of so many tasks, one after the other."""
        return [await self.ask() for _ in range(count)]

    async def rate(self, count: int, in_flight: int) -> float:
        """Tasks per second by RunTask, so many at a time."""
        left = iter(range(count))

        async def work() -> None:
            for _ in left:
                await self.ask()

        began = time.perf_counter()
        async with asyncio.TaskGroup() as workers:
            for _ in range(in_flight):
                workers.create_task(work())
        return count / (time.perf_counter() - began)

    async def stream_rate(self, count: int, in_flight: int) -> float:
        """Tasks per second by RunTasks over one stream, so many at a time."""
        room, answers = asyncio.Semaphore(in_flight), 0

        async def requests() -> AsyncIterator[task_service_pb2.RunTasksRequest]:
            for _ in range(count):
                await room.acquire()
                yield task_service_pb2.RunTasksRequest(request_id=str(uuid.uuid4()), spec=self._spec)

        began = time.perf_counter()
        async for response in self._stub.RunTasks(requests(), metadata=self._metadata):
            if response.HasField("failure"):
                raise RuntimeError(response.failure.message)
            if _is_answer(response.event):
                answers += 1
                room.release()
        if answers != count:
            raise RuntimeError(f"{count} tasks, {answers} answers")
        return count / (time.perf_counter() - began)


def _is_answer(event: task_pb2.TaskEvent) -> bool:
    if event.WhichOneof("event") != "run_finished":
        return False
    run = event.run_finished.run
    if run.HasField("failure"):
        raise RuntimeError(f"a run failed: {run.failure.reason}: {run.failure.message}")
    return True
