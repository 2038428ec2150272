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
from vantage.node.subtask_orders import SubtaskOrders

log = logging.getLogger(__name__)


class Subtasks:
    """Asks the server in the name of a run.

    Args:
        connection: the way to the server.
        orders: signs and seals what is asked under a signed order.
        clock: the time.
    """

    def __init__(self, connection: Connection, orders: SubtaskOrders, clock: Clock) -> None:
        self._connection = connection
        self._orders = orders
        self._clock = clock
        self._made: dict[str, dict[str, task_service_pb2.RunTaskRequest]] = {}

    def forget(self, context: RunContext) -> None:
        """The run has ended: it asks no more."""
        self._made.pop(context.run, None)

    async def run(
        self, context: RunContext, request: algorithm_pb.RunSubtaskRequest
    ) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        """Create a subtask of a run, or attach to it, and stream its events; a lost connection is not noticed.

        Raises:
            VantageError: as TaskService.RunTask; TASK_EXPIRED when the run has no time left.
        """
        creation = await self._creation(context, request)
        name, last = "", request.after_sequence
        backoff = Backoff()
        refreshed = False
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
                    yield event if context.order is None else await self._orders.opened(event, creation.spec)
                    if kind == "task_finished":
                        return
                problem: VantageError = error(Reason.UNAVAILABLE, "the server ended the stream of a subtask")
            except grpc.aio.AioRpcError as failure:
                problem = error_from_rpc(failure)
            except VantageError as failure:
                problem = failure
            if problem.reason is Reason.KEYS_STALE and not name and not refreshed:
                # Nothing was created: seal to the keys that count now, and ask again.
                refreshed = True
                self._orders.forget_keys()
                creation = await self._creation(context, request, again=True)
                continue
            if isinstance(problem, UnauthenticatedError):
                self._connection.token_refused()
            elif not isinstance(problem, UnavailableError):
                raise problem
            log.info("attaching to a subtask again", extra={"run": context.run, "reason": problem.reason.name})
            await asyncio.sleep(backoff.next_delay())

    async def _creation(
        self, context: RunContext, request: algorithm_pb.RunSubtaskRequest, *, again: bool = False
    ) -> task_service_pb2.RunTaskRequest:
        """The same question gives the same bytes for as long as the run lives: sealing and signing are random."""
        own = names.parse_request_id(request.request_id)
        made = self._made.setdefault(context.run, {})
        if again or own not in made:
            made[own] = await self._make(context, request, own)
        return made[own]

    async def _make(
        self, context: RunContext, request: algorithm_pb.RunSubtaskRequest, own: str
    ) -> task_service_pb2.RunTaskRequest:
        left = context.deadline - self._clock.now()
        if left.total_seconds() <= 0:
            raise error(Reason.TASK_EXPIRED, "the run has no time left for a subtask")
        timeout = Duration()
        timeout.FromTimedelta(left)
        if request.HasField("timeout") and request.timeout.ToTimedelta() < left:
            timeout = request.timeout
        # Ids are the algorithm's: tied to the run, so that one run cannot attach to what another has created.
        request_id = str(uuid.uuid5(uuid.UUID(own), context.run))
        if context.order is not None:
            spec = await self._orders.spec(context, context.order, request, timeout.ToTimedelta())
            return task_service_pb2.RunTaskRequest(request_id=request_id, spec=spec)
        return task_service_pb2.RunTaskRequest(
            request_id=request_id,
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
