"""A node that does what a test tells it, over a real stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import grpc

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2_grpc
from vantage.api.types.v1 import types_pb2
from vantage.common.errors import VantageError
from vantage.node.transport import SyncTransport

PATIENCE = 30.0
"""Seconds until a message that must come is missed."""

M = TypeVar("M")


class _SyncCall:
    """Looks like a call of ``Connect``."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._channel = channel
        self._metadata = metadata
        self._requests: asyncio.Queue[pb.ConnectRequest | None] = asyncio.Queue()
        self._responses: asyncio.Queue[pb.ConnectResponse | object] = asyncio.Queue()
        self._carrier = asyncio.create_task(self._carry())

    async def channel(self) -> grpc.aio.Channel:
        return self._channel

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata

    async def write(self, message: pb.ConnectRequest) -> None:
        self._requests.put_nowait(message)

    async def done_writing(self) -> None:
        self._requests.put_nowait(None)

    async def read(self) -> object:
        found = await self._responses.get()
        if isinstance(found, Exception):
            raise found
        return found

    def cancel(self) -> None:
        self._carrier.cancel()

    async def _outgoing(self) -> AsyncGenerator[pb.ConnectRequest, None]:
        while (message := await self._requests.get()) is not None:
            yield message

    async def _carry(self) -> None:
        try:
            async with aclosing(SyncTransport(self).carry(self._outgoing())) as messages:
                async for message in messages:
                    self._responses.put_nowait(message)
            self._responses.put_nowait(grpc.aio.EOF)
        except (grpc.aio.AioRpcError, VantageError) as problem:
            self._responses.put_nowait(problem)


class ScriptedNode:
    """Speaks the node's side of ``NodeSessionService``.

    Args:
        channel: to the server.
        metadata: credentials of the node.
        sync: in unary calls instead of a stream.
    """

    def __init__(self, channel: grpc.aio.Channel, metadata: Sequence[tuple[str, str]], *, sync: bool = False) -> None:
        stub = node_session_service_pb2_grpc.NodeSessionServiceStub(channel)
        self._call: Any = _SyncCall(channel, tuple(metadata)) if sync else stub.Connect(metadata=tuple(metadata))
        self._sequence = 0
        self.ack = 0
        self.welcome = pb.Welcome()

    async def hello(
        self,
        *,
        slots: int = 4,
        leases: Sequence[pb.Lease] = (),
        instance: str = "instance-1",
        datasets: Sequence[pb.DatasetInfo] = (),
        stopping: bool = False,
    ) -> pb.Welcome:
        """Open the session and return the server's welcome."""
        await self.send(
            hello=pb.Hello(
                version="1.0.0",
                instance_id=instance,
                slots=slots,
                leases=leases,
                datasets=datasets,
                stopping=stopping,
            )
        )
        self.welcome = (await self.receive("welcome")).welcome
        return self.welcome

    async def send(self, sequence: int = 0, **message: object) -> None:
        """Send one message."""
        await self._call.write(pb.ConnectRequest(sequence=sequence, **message))  # type: ignore[arg-type]  # one of the oneof

    async def report(self, sequence: int | None = None, **message: object) -> int:
        """Send a message with a sequence, the next one unless given, and return it."""
        if sequence is None:
            self._sequence += 1
            sequence = self._sequence
        await self.send(sequence, **message)
        return sequence

    async def receive(self, kind: str | None = None) -> pb.ConnectResponse:
        """The next message, passing over mere acknowledgements; it must be of this kind."""
        while True:
            message = await self._read()
            actual = message.WhichOneof("message")
            if actual is None:
                continue
            if kind is not None and actual != kind:
                raise AssertionError(f"expected {kind}, got {message}")
            return message

    async def acknowledged(self, sequence: int) -> None:
        """Wait until everything up to this sequence is durable at the server."""
        while self.ack < sequence:
            message = await self._read()
            if message.WhichOneof("message") is not None:
                raise AssertionError(f"expected an acknowledgement, got {message}")

    async def assigned(self) -> pb.Assign:
        """The next assignment."""
        return (await self.receive("assign")).assign

    async def wanted(self) -> pb.OpenRelay:
        """The next offer of the broker."""
        return (await self.receive("open_relay")).open_relay

    async def answer(self, offer: pb.OpenRelay, refusal: types_pb2.Failure | None = None) -> None:
        """Say whether the node comes."""
        await self.send(relay_answer=pb.RelayAnswer(offer=offer.offer, refusal=refusal))

    async def accept(self, assign: pb.Assign) -> int:
        """Say that the assignment is in the journal."""
        return await self.report(accepted=pb.Accepted(lease=assign.lease))

    async def start(self, assign: pb.Assign) -> int:
        """Say that the algorithm runs."""
        return await self.report(started=pb.Started(lease=assign.lease))

    async def succeed(self, assign: pb.Assign, result: bytes = b"{}", sequence: int | None = None) -> int:
        """Deliver a result."""
        payload = types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_NONE, inline=result)
        return await self.report(sequence, completed=pb.Completed(lease=assign.lease, result=payload))

    async def fail(self, assign: pb.Assign, reason: str = "ALGORITHM_FAILED") -> int:
        """Say that there will be no result."""
        failure = types_pb2.Failure(reason=reason, message="it did not work")
        return await self.report(completed=pb.Completed(lease=assign.lease, failure=failure))

    async def refuse(self, assign: pb.Assign, reason: str = "POLICY_REFUSED") -> int:
        """Say that the run is not allowed."""
        failure = types_pb2.Failure(reason=reason, message="not here")
        return await self.report(refused=pb.Refused(lease=assign.lease, failure=failure))

    async def heartbeat(self, leases: Sequence[pb.Lease] = (), *, stopping: bool = False) -> pb.HeartbeatReply:
        """Give a sign of life and return the answer."""
        await self.send(heartbeat=pb.Heartbeat(leases=leases, stopping=stopping))
        return (await self.receive("heartbeat_reply")).heartbeat_reply

    async def ended(self) -> None:
        """Wait until the server has ended the stream."""
        async with asyncio.timeout(PATIENCE):
            if (message := await self._call.read()) is not grpc.aio.EOF:
                raise AssertionError(f"expected the end, got {message}")

    async def finish(self) -> None:
        """Say no more, and wait until the server has nothing to say either."""
        await self._call.done_writing()
        async with asyncio.timeout(PATIENCE):
            while await self._call.read() is not grpc.aio.EOF:
                pass

    async def disconnect(self) -> None:
        """Break the stream."""
        self._call.cancel()

    async def _read(self) -> pb.ConnectResponse:
        async with asyncio.timeout(PATIENCE):
            message = await self._call.read()
        if message is grpc.aio.EOF or not isinstance(message, pb.ConnectResponse):
            raise AssertionError("the server ended the stream")
        self.ack = max(self.ack, message.ack)
        return message
