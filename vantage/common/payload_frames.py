"""The bytes of payloads on the wire without the cost of parsing them.

PayloadService is called as its proto says, and any generated client or server is understood. But a message that is one
chunk is nothing but a tag, a length and the bytes: written and read here by hand, they are copied once less or not at
all, and messages of 1 MiB go several times as fast as through the library.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import grpc

from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.common.heap import keep_freed_memory

Chunk = bytes | memoryview
CHUNK_SIZE = 1024 * 1024
"""Bytes per message, by measurement; the most that the service takes."""

READ_SIZE = 4 * CHUNK_SIZE
"""Bytes per trip to a thread that reads: on a busy machine each trip waits for its turn."""

_SERVICE = "vantage.api.payload.v1.PayloadService"
_BYTES = 2
"""Wire type of what has a length."""
_UPLOAD_TAG = pb.UploadPayloadRequest.DESCRIPTOR.fields_by_name["chunk"].number << 3 | _BYTES
_DOWNLOAD_TAG = pb.DownloadPayloadResponse.DESCRIPTOR.fields_by_name["chunk"].number << 3 | _BYTES
_MAX_VARINT = 5


class PayloadHandlers(Protocol):
    """A servicer of PayloadService that gets and gives chunks as they are."""

    async def UploadPayload(self, request_iterator: Any, context: Any) -> pb.UploadPayloadResponse:
        """Gets a header, then chunks."""
        ...

    async def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.GetUploadResponse:
        """As in the proto."""
        ...

    def DownloadPayload(self, request: pb.DownloadPayloadRequest, context: Any) -> AsyncGenerator[Chunk, None]:
        """Gives chunks."""
        ...


def add_payload_service(servicer: PayloadHandlers, server: grpc.aio.Server) -> None:
    """Offer PayloadService on a server."""
    keep_freed_memory()  # up to 0.4 s of a core for 1 GiB
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "UploadPayload": grpc.stream_unary_rpc_method_handler(
            servicer.UploadPayload,
            request_deserializer=decode_upload,
            response_serializer=pb.UploadPayloadResponse.SerializeToString,
        ),
        "GetUpload": grpc.unary_unary_rpc_method_handler(
            servicer.GetUpload,
            request_deserializer=pb.GetUploadRequest.FromString,
            response_serializer=pb.GetUploadResponse.SerializeToString,
        ),
        "DownloadPayload": grpc.unary_stream_rpc_method_handler(
            servicer.DownloadPayload,
            request_deserializer=pb.DownloadPayloadRequest.FromString,
            response_serializer=encode_download,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(_SERVICE, handlers),))


class PayloadStub:
    """Calls of PayloadService that take and give chunks as they are."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.UploadPayload: grpc.aio.StreamUnaryMultiCallable[pb.UploadHeader | Chunk, pb.UploadPayloadResponse] = (
            channel.stream_unary(
                f"/{_SERVICE}/UploadPayload",
                request_serializer=encode_upload,
                response_deserializer=pb.UploadPayloadResponse.FromString,
            )
        )
        self.GetUpload: grpc.aio.UnaryUnaryMultiCallable[pb.GetUploadRequest, pb.GetUploadResponse] = (
            channel.unary_unary(
                f"/{_SERVICE}/GetUpload",
                request_serializer=pb.GetUploadRequest.SerializeToString,
                response_deserializer=pb.GetUploadResponse.FromString,
            )
        )
        self.DownloadPayload: grpc.aio.UnaryStreamMultiCallable[pb.DownloadPayloadRequest, Chunk] = (
            channel.unary_stream(
                f"/{_SERVICE}/DownloadPayload",
                request_serializer=pb.DownloadPayloadRequest.SerializeToString,
                response_deserializer=decode_download,
            )
        )


async def upload(
    stub: PayloadStub,
    metadata: tuple[tuple[str, str], ...],
    header: pb.UploadHeader,
    source: bytes | Path,
    sent: Callable[[int], None] | None = None,
) -> pb.UploadPayloadResponse:
    """Send a source from the header's offset on; see ``upload_parts``.

    Raises:
        grpc.aio.AioRpcError: the server does not take it, or the connection is lost.
        OSError: the source cannot be read.
    """
    call = stub.UploadPayload(metadata=metadata)
    try:
        # Not handed to the library: it drops what it reads from when the call ends, with the file open.
        async with aclosing(upload_parts(header, source, sent)) as parts:
            with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended, and says why below
                async for part in parts:
                    await call.write(part)
                await call.done_writing()
        return await call
    finally:
        call.cancel()  # when something here failed


async def upload_parts(
    header: pb.UploadHeader, source: bytes | Path, sent: Callable[[int], None] | None = None
) -> AsyncGenerator[pb.UploadHeader | Chunk, None]:
    """What an upload sends: its header, then the source from the header's offset on, read ahead.

    Args:
        header: of the upload.
        source: where the bytes are.
        sent: is told after each chunk how many bytes are gone, those of earlier attempts included.

    Raises:
        OSError: the source cannot be read.
    """
    yield header
    done = header.offset
    file: BinaryIO = BytesIO(source) if isinstance(source, bytes) else await asyncio.to_thread(source.open, "rb")
    file.seek(done)
    async with aclosing(read_ahead(file)) as chunks:
        async for chunk in chunks:
            yield chunk
            done += len(chunk)
            if sent is not None:
                sent(done)


async def read_ahead(file: BinaryIO) -> AsyncGenerator[Chunk, None]:
    """The rest of a file in chunks; more is read while they are sent. Closes the file.

    Raises:
        OSError: it cannot be read.
    """
    ahead = asyncio.create_task(asyncio.to_thread(file.read, READ_SIZE))
    try:
        while block := await ahead:
            ahead = asyncio.create_task(asyncio.to_thread(file.read, READ_SIZE))
            view = memoryview(block)
            for start in range(0, len(block), CHUNK_SIZE):
                yield view[start : start + CHUNK_SIZE]
    finally:
        try:
            await asyncio.wait({ahead})  # a thread may be reading still
        finally:
            file.close()  # also when whoever reads is cancelled right here


def encode_upload(part: pb.UploadHeader | Chunk) -> bytes:
    """An UploadPayloadRequest."""
    if isinstance(part, pb.UploadHeader):
        return pb.UploadPayloadRequest(header=part).SerializeToString()
    return _encode(_UPLOAD_TAG, part)


def decode_upload(message: bytes) -> pb.UploadHeader | Chunk | None:
    """The header or the chunk of an UploadPayloadRequest; None when it has neither."""
    if (chunk := _decode(_UPLOAD_TAG, message)) is not None:
        return chunk
    request = pb.UploadPayloadRequest.FromString(message)
    match request.WhichOneof("part"):
        case "header":
            return request.header
        case "chunk":
            return request.chunk
        case _:
            return None


def encode_download(chunk: Chunk) -> bytes:
    """A DownloadPayloadResponse."""
    return _encode(_DOWNLOAD_TAG, chunk)


def decode_download(message: bytes) -> Chunk:
    """The chunk of a DownloadPayloadResponse."""
    chunk = _decode(_DOWNLOAD_TAG, message)
    return pb.DownloadPayloadResponse.FromString(message).chunk if chunk is None else chunk


def _encode(tag: int, chunk: Chunk) -> bytes:
    head = bytearray((tag,))
    size = len(chunk)
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return b"".join((head, chunk))


def _decode(tag: int, message: bytes) -> memoryview | None:
    """The bytes of a message that is this one field and nothing else; None for any other: the library reads those."""
    if not message or message[0] != tag:
        return None
    size = 0
    for position, byte in enumerate(message[1 : 1 + _MAX_VARINT]):
        size |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            border = position + 2
            return memoryview(message)[border:] if len(message) - border == size else None
    return None
