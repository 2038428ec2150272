"""Every reason travels: raised by a server it is the same error in a client, with the status that the table says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import pytest_asyncio

from vantage.common.errors import ROWS, Reason, error
from vantage.common.rpc import abort, error_from_rpc

METHOD = "/vantage.test.Fails/With"


async def _fail(request: bytes, context: Any) -> bytes:
    await abort(context, error(Reason[request.decode()], "what happened: what to do", name="tasks/1"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {"With": grpc.unary_unary_rpc_method_handler(_fail)}
    server.add_registered_method_handlers("vantage.test.Fails", handlers)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("vantage.test.Fails", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as opened:
        yield opened
    await server.stop(None)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
async def test_a_reason_travels(channel: grpc.aio.Channel, reason: Reason) -> None:
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(reason.name.encode())
    assert caught.value.code().name == ROWS[reason].status
    received = error_from_rpc(caught.value)
    assert type(received) is ROWS[reason].error
    assert (received.reason, received.message) == (reason, "what happened: what to do")
    assert received.metadata == {"name": "tasks/1"}
