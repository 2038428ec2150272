"""Takes the result of a run: chunk by chunk into a file, complete and durable or not there at all."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.common.errors import Reason, error
from vantage.common.names import new_id
from vantage.node.door import StoredResult

MAX_MEDIA_TYPE = 200
MAX_CHUNK = 1024 * 1024


async def take_result(requests: AsyncIterator[pb.SubmitResultRequest], directory: Path, max_bytes: int) -> StoredResult:
    """Write a result to a new file in ``directory``.

    Args:
        requests: header first, then chunks.
        directory: of the run.
        max_bytes: largest result that is taken; not one byte more is written.

    Raises:
        LimitExceededError: RESULT_TOO_LARGE.
        InvalidArgumentError: the header is missing or wrong.
        RunError: SCRATCH_UNAVAILABLE, the disk is full.
    """
    stream = aiter(requests)
    try:
        first = await anext(stream)
    except StopAsyncIteration:
        raise error(Reason.INVALID_ARGUMENT, "send a header, then the chunks") from None
    media_type = first.header.media_type
    if not first.HasField("header") or not 0 < len(media_type) <= MAX_MEDIA_TYPE:
        raise error(
            Reason.INVALID_ARGUMENT,
            "the first message must be a header with the media type, e.g. application/json",
            field="header.media_type",
        )
    path = directory / f"result-{new_id()}"
    digest = hashlib.sha256()
    size = 0
    try:
        with await asyncio.to_thread(path.open, "xb") as file:
            async for request in stream:
                if not request.HasField("chunk"):
                    raise error(Reason.INVALID_ARGUMENT, "the header is sent once, as the first message")
                if len(request.chunk) > MAX_CHUNK:
                    raise error(Reason.INVALID_ARGUMENT, "a chunk has at most 1 MiB")
                size += len(request.chunk)
                if size > max_bytes:
                    raise error(
                        Reason.RESULT_TOO_LARGE,
                        f"the result has more than {max_bytes} bytes, which is what the node lets out: return less, or "
                        "ask the node's admin for a higher limits.max_result_bytes",
                        max_bytes=str(max_bytes),
                    )
                digest.update(request.chunk)
                await asyncio.to_thread(file.write, request.chunk)
            await asyncio.to_thread(_sync, file)
    except OSError as problem:
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise error(
            Reason.SCRATCH_UNAVAILABLE,
            f"the node cannot store the result: {problem.strerror}: ask its admin to look at the disk",
        ) from problem
    except BaseException:
        # Also when the algorithm went away in the middle: half a result is none.
        await asyncio.to_thread(path.unlink, missing_ok=True)
        raise
    return StoredResult(media_type, path, size, f"sha256:{digest.hexdigest()}")


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
