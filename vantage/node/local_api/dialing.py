"""A stream of bytes between a run and something outside: pumps both directions until both have ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.common.errors import Reason, error
from vantage.node.door import ByteStream, RunCallbacks

MAX_DATA = 1024 * 1024


async def serve_dial(
    requests: AsyncIterator[pb.DialRequest], callbacks: RunCallbacks
) -> AsyncGenerator[pb.DialResponse, None]:
    """Serve one ``Dial``.

    Raises:
        VantageError: the target cannot be reached, the connection broke, or the run sent what does not belong.
    """
    try:
        first = await anext(requests)
    except StopAsyncIteration:
        raise error(Reason.INVALID_ARGUMENT, "the first message must be the target") from None
    if not first.HasField("target") or first.target.WhichOneof("target") is None:
        raise error(Reason.INVALID_ARGUMENT, "the first message must be the target", field="target")
    stream = await callbacks.dial(first.target)
    # Before the first yield: when the run is gone by then, nothing is left open.
    sender = asyncio.create_task(_send(requests, stream), name="dial")
    tasks: set[asyncio.Task[Any]] = {sender}
    try:
        yield pb.DialResponse(opened=pb.DialOpened())
        reader = asyncio.create_task(stream.read(), name="dial")
        tasks.add(reader)
        while tasks:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            # First: a fault of the run breaks the stream, and then that fault is the one to tell.
            if sender in done:
                sender.result()
                tasks.remove(sender)
                yield pb.DialResponse(sent=pb.DialSent())
            if reader in done:
                tasks.remove(reader)
                if data := reader.result():
                    reader = asyncio.create_task(stream.read(), name="dial")
                    tasks.add(reader)
                    yield pb.DialResponse(data=data)
                else:
                    yield pb.DialResponse(finished=pb.DialFinished())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        stream.close()


async def _send(requests: AsyncIterator[pb.DialRequest], stream: ByteStream) -> None:
    try:
        async for request in requests:
            if request.HasField("finished"):
                await stream.finish()
                return
            if not 0 < len(request.data) <= MAX_DATA:
                raise error(
                    Reason.INVALID_ARGUMENT, f"after the target every message has 1 to {MAX_DATA} bytes of data"
                )
            await stream.write(request.data)
        # A call that is cancelled looks just like this: it must not pass for an end in order.
        raise error(Reason.INVALID_ARGUMENT, "the requests ended without finished: the connection is broken")
    except BaseException:
        stream.close()  # wakes the other direction
        raise
