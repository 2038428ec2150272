"""A researcher who speaks the protos: what a client in any language can do, and nothing of the client library."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import grpc

from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.api.types.v1 import types_pb2
from vantage.common.rpc import bearer


class Researcher:
    """Asks questions and waits for the answers.

    Args:
        channel: to the server.
        token: access token.
        collaboration: where questions are asked.
    """

    def __init__(self, channel: grpc.aio.Channel, token: str, collaboration: str) -> None:
        self.metadata = (bearer(token),)
        self._tasks = task_service_pb2_grpc.TaskServiceStub(channel)
        self._collaboration = collaboration

    def question(
        self,
        image: str,
        function: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        to: Sequence[str] = ("clara",),
        datasets: Mapping[str, str] | None = None,
        timeout: float = 90,
        max_attempts: int = 0,
    ) -> task_service_pb2.RunTaskRequest:
        """The request that asks organizations to run a function."""
        payload = types_pb2.Payload(
            media_type="application/json",
            sealing=types_pb2.SEALING_NONE,
            inline=json.dumps(arguments or {}).encode(),
        )
        bound = [task_pb2.DatasetBinding(parameter=key, dataset=value) for key, value in (datasets or {}).items()]
        spec = task_pb2.TaskSpec(
            collaboration=self._collaboration,
            image=image,
            function=function,
            max_attempts=max_attempts,
            targets=[
                task_pb2.Target(organization=f"organizations/{each}", arguments=payload, datasets=bound) for each in to
            ],
        )
        spec.timeout.FromTimedelta(timedelta(seconds=timeout))
        return task_service_pb2.RunTaskRequest(request_id=str(uuid.uuid4()), spec=spec)

    async def follow(self, request: task_service_pb2.RunTaskRequest) -> AsyncIterator[task_pb2.TaskEvent]:
        """Ask, and tell what happens until the task has ended."""
        async for each in self._tasks.RunTask(request, metadata=self.metadata):
            yield each.event

    async def events(self, request: task_service_pb2.RunTaskRequest) -> list[task_pb2.TaskEvent]:
        """Ask, and return everything that happens until the task has ended."""
        return [each async for each in self.follow(request)]

    async def ask(self, image: str, function: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Any:
        """Ask one organization (clara, unless ``to`` says otherwise) and return its run as it ended."""
        (run,) = await self.runs(image, function, arguments, **more)
        return run

    async def runs(
        self, image: str, function: str, arguments: Mapping[str, Any] | None = None, **more: Any
    ) -> list[task_pb2.Run]:
        """Ask, and return all runs as they ended, in the order asked."""
        events = await self.events(self.question(image, function, arguments, **more))
        ended = {each.run_finished.run.name: each.run_finished.run for each in events if each.HasField("run_finished")}
        first = events[0].snapshot.task
        return [ended.get(run.name, run) for run in first.runs]
