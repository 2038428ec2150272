"""The ceiling of a relay: the least code that pairs two raw streams. No tickets, no limits, no word of what happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import uvloop

from vantage.server.relay.program import CHANNEL_OPTIONS


class Meeting:
    """Two calls that belong together."""

    def __init__(self) -> None:
        self.contexts: list[Any] = []
        self.complete = asyncio.Event()
        self.over = asyncio.Event()
        self.ended = 0


async def main() -> None:
    """Listen, and say where."""
    meetings: dict[str, Meeting] = {}

    async def relay(_requests: object, context: Any) -> AsyncGenerator[bytes, None]:
        meeting = meetings.setdefault(str(dict(context.invocation_metadata())["pair"]), Meeting())
        meeting.contexts.append(context)
        if len(meeting.contexts) == 2:
            meeting.complete.set()
        await meeting.complete.wait()
        (other,) = (each for each in meeting.contexts if each is not context)
        await context.send_initial_metadata(())
        while isinstance(message := await other.read(), bytes):
            yield message
        meeting.ended += 1
        if meeting.ended == 2:
            meeting.over.set()
        await meeting.over.wait()

    server = grpc.aio.server(options=CHANNEL_OPTIONS)
    handlers: dict[str, Any] = {"Open": grpc.stream_stream_rpc_method_handler(relay)}
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("vantage.api.relay.v1.RelayService", handlers),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: 127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main())
