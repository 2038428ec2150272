"""``grpc.health.v1``, whose watches do not keep a server from stopping."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from grpc_health.v1 import health, health_pb2


class _StoppingError(Exception):
    """The last word was said."""


class HealthServicer(health.aio.HealthServicer):  # type: ignore[misc]  # the library has no types
    """The library's, but a watch ends with the news that the server stops: it would last as long as one likes."""

    def __init__(self) -> None:
        super().__init__()
        self.stopping = False

    async def enter_graceful_shutdown(self) -> None:
        """Say NOT_SERVING, from now on, and end the watches."""
        self.stopping = True
        await super().enter_graceful_shutdown()

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Any) -> None:
        """See the library."""
        with suppress(_StoppingError):
            await super().Watch(request, _Told(context, self))


class _Told:
    """All that the library uses of a call's context."""

    def __init__(self, context: Any, servicer: HealthServicer) -> None:
        self._context = context
        self._servicer = servicer

    async def write(self, response: health_pb2.HealthCheckResponse) -> None:
        await self._context.write(response)
        if self._servicer.stopping:
            raise _StoppingError
