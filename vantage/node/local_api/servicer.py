"""AlgorithmService of one run."""

from __future__ import annotations

import asyncio
import hmac
import math
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import grpc

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.algorithm.v1 import algorithm_service_pb2_grpc
from vantage.common.errors import Reason, VantageError, error
from vantage.common.rpc import abort
from vantage.node.connection import FatalError
from vantage.node.door import BoundDataset, RunCallbacks, RunContext
from vantage.node.local_api.dialing import serve_dial
from vantage.node.local_api.handed_over import read_chunks, read_header, take_result

Context = grpc.aio.ServicerContext[Any, Any]
T = TypeVar("T")

CHUNK = 64 * 1024
MAX_FAILURE_TEXT = 4_000
MAX_PROGRESS_TEXT = 200
MAX_SUBTASK_TARGETS = 1_000


class AlgorithmServicer(algorithm_service_pb2_grpc.AlgorithmServiceServicer):
    """Answers one run.

    Args:
        context: what the run is told.
        callbacks: what the run may ask.
        directory: where its result is written.
    """

    def __init__(self, context: RunContext, callbacks: RunCallbacks, directory: Path) -> None:
        self._context = context
        self._callbacks = callbacks
        self._directory = directory
        self._submitting = asyncio.Lock()

    async def GetContext(self, request: pb.GetContextRequest, context: Context) -> pb.GetContextResponse:
        await self._authenticate(context)
        run = self._context
        answer = pb.GetContextResponse(
            run=run.run,
            task=run.task,
            function=run.function,
            organization=run.organization,
            collaboration=run.collaboration,
            organizations=run.organizations,
            datasets=[_dataset(each) for each in run.datasets],
            arguments_media_type=run.arguments_media_type,
            arguments_size_bytes=len(run.arguments),
            max_result_bytes=run.max_result_bytes,
            image=run.image,
            egress=run.egress,
        )
        answer.deadline.FromDatetime(run.deadline)
        return answer

    async def ReadArguments(
        self, request: pb.ReadArgumentsRequest, context: Context
    ) -> AsyncGenerator[pb.ReadArgumentsResponse, None]:
        await self._authenticate(context)
        for start in range(0, len(self._context.arguments), CHUNK):
            yield pb.ReadArgumentsResponse(chunk=self._context.arguments[start : start + CHUNK])

    async def ReportProgress(self, request: pb.ReportProgressRequest, context: Context) -> pb.ReportProgressResponse:
        await self._authenticate(context)
        if not math.isfinite(request.fraction) or not 0 <= request.fraction <= 1:
            await abort(context, error(Reason.INVALID_ARGUMENT, "fraction must be 0 to 1", field="fraction"))
        self._callbacks.progress(request.fraction, request.message[:MAX_PROGRESS_TEXT])
        return pb.ReportProgressResponse()

    async def SubmitResult(
        self, request_iterator: AsyncIterator[pb.SubmitResultRequest], context: Context
    ) -> pb.SubmitResultResponse:
        await self._authenticate(context)
        try:
            # One at a time: many at once would take as many times the room on disk.
            async with self._submitting:
                result = await take_result(aiter(request_iterator), self._directory, self._context.max_result_bytes)
                await self._callbacks.result(result)
        except VantageError as problem:
            if problem.reason in (Reason.RESULT_TOO_LARGE, Reason.SCRATCH_UNAVAILABLE):
                await self._callbacks.result_refused(problem)
            await abort(context, problem)
        return pb.SubmitResultResponse(size_bytes=result.size, digest=result.digest)

    async def SubmitFailure(self, request: pb.SubmitFailureRequest, context: Context) -> pb.SubmitFailureResponse:
        await self._authenticate(context)
        await self._callbacks.failure(request.reason, request.message[:MAX_FAILURE_TEXT])
        return pb.SubmitFailureResponse()

    async def StageArguments(
        self, request_iterator: AsyncIterator[pb.StageArgumentsRequest], context: Context
    ) -> pb.StageArgumentsResponse:
        await self._authenticate(context)
        requests = aiter(request_iterator)
        try:
            media_type = await read_header(requests)
            staged = await self._callbacks.stage(media_type, read_chunks(requests))
        except VantageError as problem:
            await abort(context, problem)
        return pb.StageArgumentsResponse(size_bytes=staged.size, digest=staged.digest)

    async def RunSubtask(
        self, request: pb.RunSubtaskRequest, context: Context
    ) -> AsyncGenerator[pb.RunSubtaskResponse, None]:
        await self._authenticate(context)
        if not 1 <= len(request.targets) <= MAX_SUBTASK_TARGETS:
            problem = error(
                Reason.INVALID_ARGUMENT, f"a subtask has 1 to {MAX_SUBTASK_TARGETS} targets", field="targets"
            )
            await abort(context, problem)
        async for event in _translated(self._callbacks.subtask(request), context):
            yield pb.RunSubtaskResponse(event=event)

    async def ReadSubtaskResult(
        self, request: pb.ReadSubtaskResultRequest, context: Context
    ) -> AsyncGenerator[pb.ReadSubtaskResultResponse, None]:
        await self._authenticate(context)
        async with aclosing(_translated(self._callbacks.subtask_result(request.run), context)) as blocks:
            async for block in blocks:
                for start in range(0, len(block), CHUNK):
                    yield pb.ReadSubtaskResultResponse(chunk=block[start : start + CHUNK])

    async def Dial(
        self, request_iterator: AsyncIterator[pb.DialRequest], context: Context
    ) -> AsyncGenerator[pb.DialResponse, None]:
        await self._authenticate(context)
        async for response in _translated(serve_dial(aiter(request_iterator), self._callbacks), context):
            yield response

    async def Listen(self, request: pb.ListenRequest, context: Context) -> AsyncGenerator[pb.ListenResponse, None]:
        await self._authenticate(context)
        async for response in _translated(self._callbacks.listen(request.label), context):
            yield response

    async def WatchPeers(
        self, request: pb.WatchPeersRequest, context: Context
    ) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        await self._authenticate(context)
        async for response in _translated(self._callbacks.peers(), context):
            yield response

    async def _authenticate(self, context: Context) -> None:
        """One token per run: another run that reaches this socket by some mistake gets nothing."""
        shown = next((str(value) for key, value in context.invocation_metadata() or () if key == "authorization"), "")
        if not hmac.compare_digest(shown.encode(), f"Bearer {self._context.token}".encode()):
            await abort(context, error(Reason.UNAUTHENTICATED, "show the token of the run: VANTAGE_TOKEN"))


def _dataset(bound: BoundDataset) -> pb.ContextDataset:
    message = pb.ContextDataset(
        parameter=bound.parameter, dataset=bound.dataset, format=bound.format, path=bound.path, sheet=bound.sheet
    )
    if (leads := bound.connection) is not None:
        message.connection.CopyFrom(
            pb.ServiceConnection(
                dialect=leads.dialect,
                database=leads.database,
                cdm_schema=leads.cdm_schema,
                cdm_version=leads.cdm_version,
            )
        )
    return message


async def _translated(responses: AsyncGenerator[T, None], context: Context) -> AsyncGenerator[T, None]:
    """Responses of a stream; an error ends it with its status."""
    try:
        async with aclosing(responses):
            async for response in responses:
                yield response
    except FatalError as problem:
        await abort(context, error(Reason.UNAVAILABLE, f"the node lost its server: {problem}"))
    except VantageError as problem:
        await abort(context, problem)
