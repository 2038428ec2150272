"""PayloadService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.common.errors import Reason, VantageError, error
from vantage.common.payload_frames import Chunk
from vantage.server.rpc.context import current_principal
from vantage.server.rpc.task_converters import time_to_proto
from vantage.server.services.payloads import Header, Payloads
from vantage.server.storage.payload_store import StoredPayload

Context = grpc.aio.ServicerContext[Any, Any]


Part = pb.UploadHeader | Chunk | None
"""Of an upload; None for a message that is neither header nor chunk."""


class PayloadServicer:
    """Parses, calls one use case, shapes the reply; see ``payload_frames`` for how it gets and gives chunks."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads

    async def UploadPayload(self, request_iterator: AsyncIterator[Part], context: Context) -> pb.UploadPayloadResponse:
        first = await anext(aiter(request_iterator), None)
        if not isinstance(first, pb.UploadHeader):
            raise _out_of_order("the first message must be the header")
        header = Header(first.request_id, first.size_bytes, first.digest, first.offset)
        stored = await self._payloads.upload(current_principal(), header, _chunks(request_iterator))
        return pb.UploadPayloadResponse(payload=_to_proto(stored))

    async def GetUpload(self, request: pb.GetUploadRequest, context: Context) -> pb.GetUploadResponse:
        offset, stored = await self._payloads.find(current_principal(), request.request_id)
        return pb.GetUploadResponse(offset=offset, payload=None if stored is None else _to_proto(stored))

    async def DownloadPayload(
        self, request: pb.DownloadPayloadRequest, context: Context
    ) -> AsyncGenerator[Chunk, None]:
        async with aclosing(self._payloads.download(current_principal(), request.name, request.offset)) as chunks:
            async for chunk in chunks:
                yield chunk


async def _chunks(requests: AsyncIterator[Part]) -> AsyncIterator[Chunk]:
    async for request in requests:
        if request is None or isinstance(request, pb.UploadHeader):
            raise _out_of_order("after the header only chunks may follow")
        yield request


def _out_of_order(what: str) -> VantageError:
    """A mistake of the caller's, or of what stands in between: asking where to go on mends the latter."""
    return error(Reason.PAYLOAD_OFFSET_MISMATCH, f"{what}: ask GetUpload for the offset, and begin with the header")


def _to_proto(stored: StoredPayload) -> pb.StoredPayload:
    return pb.StoredPayload(
        name=stored.name,
        size_bytes=stored.size,
        digest=stored.digest,
        create_time=time_to_proto(stored.created),
    )
