"""What is left of a call that was ended with an error."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import pytest

from vantage.common.errors import Reason, VantageError, error
from vantage.common.rpc import abort, error_from_rpc

Context = grpc.aio.ServicerContext[Any, Any]


class Large:
    """Stands for a request."""


class Refusing:
    """Methods that refuse, with something large in every frame."""

    def __init__(self) -> None:
        self.seen: list[weakref.ref[Large]] = []

    async def one(self, _request: bytes, context: Context) -> bytes:
        large = self._large()
        answer = await self._outcome()
        if isinstance(answer, VantageError):
            await abort(context, answer)
        return answer + repr(large).encode()

    async def many(self, _request: bytes, context: Context) -> AsyncIterator[bytes]:
        large = self._large()
        try:
            await self._refuse()
        except VantageError as problem:
            await abort(context, problem)
        yield repr(large).encode()

    async def _outcome(self) -> bytes | VantageError:
        large = self._large()
        try:
            return await self._refuse() + repr(large).encode()
        except VantageError as problem:
            refusal = problem
        return refusal

    async def _refuse(self) -> bytes:
        large = self._large()
        raise error(Reason.NOT_FOUND, f"no {type(large)}")

    def _large(self) -> Large:
        large = Large()
        self.seen.append(weakref.ref(large))
        return large


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture
async def refusing() -> AsyncGenerator[tuple[Refusing, grpc.aio.Channel]]:
    methods, server = Refusing(), grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "One": grpc.unary_unary_rpc_method_handler(methods.one),
        "Many": grpc.unary_stream_rpc_method_handler(methods.many),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("refusing", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield methods, channel
    await server.stop(None)


async def one(channel: grpc.aio.Channel) -> bytes:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/refusing/One")
    return await call(b"")


async def many(channel: grpc.aio.Channel) -> object:
    call: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream("/refusing/Many")
    return await call(b"").read()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("call", [one, many])
async def test_the_request_of_a_refused_call_does_not_wait_for_the_garbage_collector(
    refusing: tuple[Refusing, grpc.aio.Channel], call: Callable[[grpc.aio.Channel], Awaitable[object]]
) -> None:
    """It counts objects and not bytes: a hundred refused calls may be as many times the largest message."""
    methods, channel = refusing
    earlier: list[weakref.ref[Large]] = []
    for _ in range(3):
        earlier = list(methods.seen)  # but not those of the last call, which may not be at its end yet
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel)
        assert error_from_rpc(caught.value).reason is Reason.NOT_FOUND
    assert earlier
    assert not [each() for each in earlier if each() is not None]
