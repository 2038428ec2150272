"""Questions of a running algorithm to other organizations: created once, followed across lost connections."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator

import grpc
from google.protobuf.duration_pb2 import Duration

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.common import names
from vantage.common.backoff import Backoff
from vantage.common.clock import Clock
from vantage.common.errors import Reason, UnauthenticatedError, UnavailableError, VantageError, error
from vantage.common.rpc import error_from_rpc
from vantage.node.connection import Connection
from vantage.node.door import RunContext

log = logging.getLogger(__name__)


class Subtasks:
    """Asks the server in the name of a run.

    Args:
        connection: the way to the server.
        clock: the time.
    """

    def __init__(self, connection: Connection, clock: Clock) -> None:
        self._connection = connection
        self._clock = clock

    async def run(
        self, context: RunContext, request: algorithm_pb.RunSubtaskRequest
    ) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        """Create a subtask of a run, or attach to it, and stream its events; a lost connection is not noticed.

        Raises:
            VantageError: as TaskService.RunTask; TASK_EXPIRED when the run has no time left.
        """
        creation = self._creation(context, request)
        name, last = "", request.after_sequence
        backoff = Backoff()
        while True:
            try:
                metadata = await self._connection.metadata()
                stub = task_service_pb2_grpc.TaskServiceStub(await self._connection.channel())
                if not name and last:
                    # To attach after an event the name is needed; creating again with the same id only returns it.
                    made = await stub.CreateTask(
                        task_service_pb2.CreateTaskRequest(request_id=creation.request_id, spec=creation.spec),
                        metadata=metadata,
                        timeout=30,
                    )
                    name = made.task.name
                if name:
                    watch = task_service_pb2.WatchTaskRequest(name=name, after_sequence=last)
                    events = (answer.event async for answer in stub.WatchTask(watch, metadata=metadata))
                else:
                    events = (answer.event async for answer in stub.RunTask(creation, metadata=metadata))
                async for event in events:
                    backoff.reset()
                    kind = event.WhichOneof("event")
                    if kind == "snapshot":
                        again, name = bool(name), event.snapshot.task.name
                        if again:
                            continue  # the events after the last one follow: nothing is missing
                    last = max(last, event.sequence)
                    yield event
                    if kind == "task_finished":
                        return
                problem: VantageError = error(Reason.UNAVAILABLE, "the server ended the stream of a subtask")
            except grpc.aio.AioRpcError as failure:
                problem = error_from_rpc(failure)
            except VantageError as failure:
                problem = failure
            if isinstance(problem, UnauthenticatedError):
                self._connection.token_refused()
            elif not isinstance(problem, UnavailableError):
                raise problem
            log.info("attaching to a subtask again", extra={"run": context.run, "reason": problem.reason.name})
            await asyncio.sleep(backoff.next_delay())

    def _creation(
        self, context: RunContext, request: algorithm_pb.RunSubtaskRequest
    ) -> task_service_pb2.RunTaskRequest:
        own = names.parse_request_id(request.request_id)
        left = context.deadline - self._clock.now()
        if left.total_seconds() <= 0:
            raise error(Reason.TASK_EXPIRED, "the run has no time left for a subtask")
        timeout = Duration()
        timeout.FromTimedelta(left)
        if request.HasField("timeout") and request.timeout.ToTimedelta() < left:
            timeout = request.timeout
        return task_service_pb2.RunTaskRequest(
            # Ids are the algorithm's: tied to the run, so that one run cannot attach to what another has created.
            request_id=str(uuid.uuid5(uuid.UUID(own), context.run)),
            spec=task_pb2.TaskSpec(
                collaboration=context.collaboration,
                title=request.title,
                image=context.image,
                function=request.function,
                targets=request.targets,
                timeout=timeout,
                parent_run=context.run,
            ),
        )
