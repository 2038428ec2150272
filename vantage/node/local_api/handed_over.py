"""What a run hands over in pieces, as it arrives: a header, then chunks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.common.errors import Reason, error
from vantage.common.names import new_id
from vantage.node.door import StoredResult
from vantage.node.received import receive

MAX_MEDIA_TYPE = 200
MAX_CHUNK = 1024 * 1024

Part = pb.SubmitResultRequest | pb.StageArgumentsRequest


async def take_result(requests: AsyncIterator[pb.SubmitResultRequest], directory: Path, max_bytes: int) -> StoredResult:
    """Write a result to a new file in ``directory``, complete and durable or not there at all.

    Args:
        requests: header first, then chunks.
        directory: of the run.
        max_bytes: largest result that is taken; not one byte more is written.

    Raises:
        LimitExceededError: RESULT_TOO_LARGE.
        InvalidArgumentError: the header is missing or wrong.
        RunError: SCRATCH_UNAVAILABLE, the disk is full.
    """

    async def admit(size: int) -> None:
        if size > max_bytes:
            raise error(
                Reason.RESULT_TOO_LARGE,
                f"the result has more than {max_bytes} bytes, which is what the node lets out: return less, or "
                "ask the node's admin for a higher limits.max_result_bytes",
                max_bytes=str(max_bytes),
            )

    media_type = await read_header(requests)
    path = directory / f"result-{new_id()}"
    try:
        digest, size = await receive(read_chunks(requests), path, admit, durable=True)
    except OSError as problem:
        raise error(
            Reason.SCRATCH_UNAVAILABLE,
            f"the node cannot store the result: {problem.strerror}: ask its admin to look at the disk",
        ) from problem
    return StoredResult(media_type, path, size, digest)


async def read_header(requests: AsyncIterator[Part]) -> str:
    """The media type in the first message.

    Raises:
        InvalidArgumentError: the header is missing or wrong.
    """
    try:
        first = await anext(requests)
    except StopAsyncIteration:
        raise error(Reason.INVALID_ARGUMENT, "send a header, then the chunks") from None
    media_type = first.header.media_type
    if not first.HasField("header") or not 0 < len(media_type) <= MAX_MEDIA_TYPE:
        raise error(
            Reason.INVALID_ARGUMENT,
            "the first message must be a header with the media type, e.g. application/json",
            field="header.media_type",
        )
    return media_type


async def read_chunks(requests: AsyncIterator[Part]) -> AsyncGenerator[bytes, None]:
    """The bytes in the messages after the header.

    Raises:
        InvalidArgumentError: another header, or a chunk that is too large.
    """
    async for request in requests:
        if not request.HasField("chunk"):
            raise error(Reason.INVALID_ARGUMENT, "the header is sent once, as the first message")
        if len(request.chunk) > MAX_CHUNK:
            raise error(Reason.INVALID_ARGUMENT, "a chunk has at most 1 MiB")
        yield request.chunk
