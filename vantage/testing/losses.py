"""A connection on which calls of ``Sync`` are lost, on their way or on their way back, or arrive twice."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import grpc

_PLANS = ((0, False), (1, True), (2, False), (2, True), (1, False))
"""How often a call arrives, and whether its answer does."""


class Losses(grpc.aio.UnaryUnaryClientInterceptor):
    """Of five calls one passes, one never arrives, one arrives without an answer, one arrives twice, and one arrives
    twice without an answer. Counted by session and direction, each of which makes one call at a time: counted with
    those of others, every attempt of one call could be lost.
    """

    def __init__(self) -> None:
        self._plans: dict[tuple[str, bool], Iterator[tuple[int, bool]]] = {}

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """See grpc.aio."""
        method = client_call_details.method
        if not (method.decode() if isinstance(method, bytes) else method).endswith("/Sync"):
            return await continuation(client_call_details, request)
        direction = (request.session, bool(request.messages or request.last))
        times, answered = next(self._plans.setdefault(direction, itertools.cycle(_PLANS)))
        answer = None
        for _ in range(times):
            call = await continuation(client_call_details, request)
            answer = await call
        if answer is None or not answered:
            nothing = grpc.aio.Metadata()
            raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "lost")
        return answer
