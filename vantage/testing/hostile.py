"""A server that lies: it forwards every call to an honest one and changes what a test tells it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

import grpc

from vantage.common.rpc import CHANNEL_OPTIONS

Change = Callable[[bytes], bytes]


class HostileServer:
    """Forwards calls byte by byte; a client takes it for its server, as it must take any server.

    Args:
        channel: to the honest server.

    Attributes:
        address: ``host:port`` that the client uses, without TLS.
        calls: how often each method was called, by its last name.
    """

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._requests: dict[str, Change] = {}
        self._responses: dict[str, Change] = {}
        self._lost: dict[str, Callable[[], None]] = {}
        self._unanswered: dict[str, Callable[[], None]] = {}
        self.address = ""
        self.calls: Counter[str] = Counter()

    @classmethod
    @asynccontextmanager
    async def before(cls, channel: grpc.aio.Channel) -> AsyncIterator[Self]:
        """One that listens on a loopback port that the system picks."""
        made = cls(channel)
        server = grpc.aio.server(options=CHANNEL_OPTIONS)
        server.add_generic_rpc_handlers((_Every(made),))
        made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        try:
            yield made
        finally:
            await server.stop(0)

    def answers(self, method: str, kind: type[Any], change: Callable[[Any], None]) -> None:
        """Change the answers of a method.

        Args:
            method: its last name, e.g. ``GetTask``.
            kind: class of its answers.
            change: changes a message in place.
        """
        self._responses[method] = _on(kind, change)

    def questions(self, method: str, kind: type[Any], change: Callable[[Any], None]) -> None:
        """Change the questions of a method, as ``answers`` does with answers."""
        self._requests[method] = _on(kind, change)

    def lose(self, method: str, told: Callable[[], None], *, answer: bool) -> None:
        """Lose the next call of a method, once its first question was sent.

        Args:
            method: its last name.
            told: called at that moment.
            answer: whether the question still arrives, and only the answer is lost.
        """
        (self._unanswered if answer else self._lost)[method] = told

    def behave(self) -> None:
        """Change nothing any more."""
        self._requests.clear()
        self._responses.clear()

    async def forward(self, method: str, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        """Carry one call."""
        name = method.rpartition("/")[2]
        self.calls[name] += 1
        if name in self._lost:
            await anext(requests, None)
            await _break(context, self._lost.pop(name, None))
        metadata = tuple((key, value) for key, value in context.invocation_metadata() if key == "authorization")

        async def asked() -> AsyncIterator[bytes]:
            async for each in requests:
                yield self._requests.get(name, _same)(each)

        through: Any = self._channel.stream_stream(method)
        call = through(asked(), metadata=metadata)
        try:
            async for response in call:
                await _break(context, self._unanswered.pop(name, None))
                yield self._responses.get(name, _same)(response)
        except grpc.aio.AioRpcError as problem:
            trailing = tuple(problem.trailing_metadata() or ())
            await context.abort(problem.code(), problem.details() or "", trailing)
        finally:
            call.cancel()


class _Every(grpc.GenericRpcHandler):
    def __init__(self, server: HostileServer) -> None:
        self._server = server

    def service(self, handler_call_details: Any) -> Any:
        method = handler_call_details.method

        async def behaviour(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            async for response in self._server.forward(method, requests, context):
                yield response

        # On the wire a call with one message is a stream of one.
        return grpc.stream_stream_rpc_method_handler(behaviour)


async def _break(context: Any, told: Callable[[], None] | None) -> None:
    if told is not None:
        told()
        await context.abort(grpc.StatusCode.UNAVAILABLE, "lost")


def _same(message: bytes) -> bytes:
    return message


def _on(kind: type[Any], change: Callable[[Any], None]) -> Change:
    def changed(message: bytes) -> bytes:
        parsed = kind.FromString(message)
        change(parsed)
        return bytes(parsed.SerializeToString())

    return changed
