"""PayloadService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.api.payload.v1 import payload_service_pb2_grpc
from vantage.common.errors import Reason, error
from vantage.server.rpc.context import current_principal
from vantage.server.rpc.task_converters import time_to_proto
from vantage.server.services.payloads import Header, Payloads
from vantage.server.storage.payload_store import StoredPayload

Context = grpc.aio.ServicerContext[Any, Any]


class PayloadServicer(payload_service_pb2_grpc.PayloadServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads

    async def UploadPayload(
        self, request_iterator: AsyncIterator[pb.UploadPayloadRequest], context: Context
    ) -> pb.UploadPayloadResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("part") != "header":
            raise error(Reason.INVALID_ARGUMENT, "the first message must be the header", field="header")
        header = Header(first.header.request_id, first.header.size_bytes, first.header.digest, first.header.offset)
        stored = await self._payloads.upload(current_principal(), header, _chunks(request_iterator))
        return pb.UploadPayloadResponse(payload=_to_proto(stored))

    async def GetUpload(self, request: pb.GetUploadRequest, context: Context) -> pb.GetUploadResponse:
        offset, stored = await self._payloads.find(current_principal(), request.request_id)
        return pb.GetUploadResponse(offset=offset, payload=None if stored is None else _to_proto(stored))

    async def DownloadPayload(
        self, request: pb.DownloadPayloadRequest, context: Context
    ) -> AsyncGenerator[pb.DownloadPayloadResponse, None]:
        async with aclosing(self._payloads.download(current_principal(), request.name, request.offset)) as chunks:
            async for chunk in chunks:
                yield pb.DownloadPayloadResponse(chunk=chunk)


async def _chunks(requests: AsyncIterator[pb.UploadPayloadRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise error(Reason.INVALID_ARGUMENT, "after the header only chunks may follow", field="chunk")
        yield request.chunk


def _to_proto(stored: StoredPayload) -> pb.StoredPayload:
    return pb.StoredPayload(
        name=stored.name,
        size_bytes=stored.size,
        digest=stored.digest,
        create_time=time_to_proto(stored.created),
    )
