"""The server does what the access options say, for every RPC that there is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from google.protobuf.message_factory import GetMessageClass

from scripts.lib.contract import Rpc
from vantage.api.access.v1 import access_pb2
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError
from vantage.common.rpc import error_from_rpc
from vantage.node import config as node_config
from vantage.node.connection import Connection
from vantage.node.identity import Identity
from vantage.server.app import SERVICES
from vantage.testing.processes import Installation

pytestmark = pytest.mark.asyncio(loop_scope="module")

OFFERED_HERE = {service.full_name for service in SERVICES}

Metadata = tuple[tuple[str, str], ...]


class Callers:
    """The kinds of callers, each with a connection to a running server."""

    def __init__(self, channel: grpc.aio.Channel, user: Metadata, node: Metadata) -> None:
        self.channel = channel
        self.user = user
        self.node = node

    async def call(self, rpc: Rpc, metadata: Metadata = ()) -> VantageError | None:
        """Call with an empty request, or a stream of one, and return the error."""
        for _ in range(10):
            problem = await self._call(rpc, metadata)
            # grpc.aio loses the status when the server ends a call at the very moment at which the client writes.
            if problem is None or problem.message != "Internal error from Core":
                return problem
        raise AssertionError(f"no status of {rpc.name}")

    async def _call(self, rpc: Rpc, metadata: Metadata) -> VantageError | None:
        method = rpc.descriptor
        form = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
        multicallable = getattr(self.channel, "_".join(form))(
            rpc.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=GetMessageClass(method.output_type).FromString,
        )
        empty = GetMessageClass(method.input_type)()
        requests = () if method.client_streaming else (empty,)
        call = multicallable(*requests, metadata=metadata, timeout=20)
        if method.client_streaming:
            # A server that has refused the call does not take what is written; its status says why.
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
                await call.write(empty)
                await call.done_writing()
        try:
            if method.server_streaming:
                async for _message in call:
                    pass
            else:
                await call
        except grpc.aio.AioRpcError as problem:
            return error_from_rpc(problem)
        return None


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callers]:
    async with Installation.running(tmp_path_factory.mktemp("network"), ["clara"]) as network:
        config = node_config.load(network.directory / "clara" / "node.yaml")
        node = Connection(config.server, Identity.load(config.identity, SystemClock()), SystemClock())
        async with network.channel() as channel:
            yield Callers(channel, network.metadata, await node.metadata())
        await node.close()


def _open_to(rpc: Rpc) -> set[int]:
    assert rpc.access is not None
    return set(rpc.access.callers)


async def test_without_a_token(rpc: Rpc, callers: Callers) -> None:
    problem = await callers.call(rpc)
    refused = problem is not None and problem.reason is Reason.UNAUTHENTICATED
    assert refused == (access_pb2.CALLER_ANYONE not in _open_to(rpc)), problem


async def test_with_the_token_of_another_kind(rpc: Rpc, callers: Callers) -> None:
    for kind, metadata in ((access_pb2.CALLER_USER, callers.user), (access_pb2.CALLER_NODE, callers.node)):
        if not _open_to(rpc) & {kind, access_pb2.CALLER_ANYONE}:
            problem = await callers.call(rpc, metadata)
            assert problem is not None
            assert problem.reason is Reason.PERMISSION_DENIED


async def test_an_empty_request_is_answered_with_an_error_that_helps(rpc: Rpc, callers: Callers) -> None:
    """Whatever is malformed is the caller's error, never the server's."""
    if rpc.descriptor.name == "Logout":
        return  # it is well-formed, and would end the session of the other tests
    node = access_pb2.CALLER_USER not in _open_to(rpc)
    problem = await callers.call(rpc, callers.node if node else callers.user)
    if problem is not None:
        assert problem.reason not in (Reason.INTERNAL, Reason.UNIMPLEMENTED, Reason.DEADLINE_EXCEEDED)
        assert len(problem.message) > 10
