"""One connection to a relay: messages of bytes, in order, to whoever has the other ticket."""

from __future__ import annotations

import asyncio
from typing import Protocol

import grpc

from vantage.common.data_field import decode_data, encode_data
from vantage.common.errors import Reason, VantageError, error
from vantage.common.heap import keep_freed_memory
from vantage.common.rpc import ServerTrust, bearer, error_from_rpc, open_channel

METHOD = "/vantage.api.relay.v1.RelayService/Open"
MAX_DATA = 1024 * 1024
MEET_SECONDS = 30.0
"""How long to wait for the other side at the relay."""


_SAID_BY_RELAYS = frozenset(
    {
        Reason.RELAY_PEER_LOST,
        Reason.RELAY_TICKET_INVALID,
        Reason.RELAY_TICKET_EXPIRED,
        Reason.RATE_LIMITED,
        Reason.SERVER_STOPPING,
    }
)


class Wire(Protocol):
    """Carries bytes to the other side."""

    async def send(self, data: bytes) -> None:
        """Send bytes; waits while the other side does not read. One at a time.

        Raises:
            VantageError: the connection is lost.
        """
        ...

    async def receive(self) -> bytes | memoryview:
        """The next bytes; none at the end. One at a time.

        Raises:
            VantageError: the connection is lost.
        """
        ...

    async def close(self) -> None:
        """End the connection."""
        ...


class RelayWire:
    """Keeps ``Wire`` over a relay. The messages are those of the contract, written and read without protobuf."""

    def __init__(self, channel: grpc.aio.Channel, call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
        self._channel = channel
        self._call = call

    @classmethod
    async def open(cls, address: str, trust: ServerTrust | None, ticket: str) -> RelayWire:
        """Open a relay and wait for the other side.

        Raises:
            VantageError: as RelayService.Open.
        """
        keep_freed_memory()
        # A connection of its own: bulk data must not stand in the way of the node's stream to the server.
        channel = open_channel(address, trust, options=[("grpc.use_local_subchannel_pool", 1)])
        call: grpc.aio.StreamStreamCall[bytes, bytes] = channel.stream_stream(METHOD)(metadata=(bearer(ticket),))
        wire = cls(channel, call)
        try:
            async with asyncio.timeout(MEET_SECONDS):
                await call.initial_metadata()
                if call.done():
                    # Also an error has initial metadata.
                    await wire._lost()
        except TimeoutError:
            await wire.close()
            raise error(Reason.RELAY_UNAVAILABLE, f"the relay at {address} does not answer") from None
        except grpc.aio.AioRpcError as problem:
            await wire.close()
            raise _translate(problem) from None
        except BaseException:
            await wire.close()
            raise
        return wire

    async def send(self, data: bytes) -> None:
        """See ``Wire``."""
        try:
            if len(data) <= MAX_DATA:
                await self._call.write(encode_data(data))
                return
            view = memoryview(data)
            for start in range(0, len(view), MAX_DATA):
                await self._call.write(encode_data(view[start : start + MAX_DATA]))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, asyncio.CancelledError) as problem:
            if isinstance(problem, asyncio.CancelledError) and not self._call.cancelled():
                raise
            await self._lost()

    async def receive(self) -> bytes | memoryview:
        """See ``Wire``."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as problem:
            raise _translate(problem) from None
        return _unframe(message) if isinstance(message, bytes) else b""

    async def close(self) -> None:
        """See ``Wire``."""
        self._call.cancel()
        await self._channel.close()

    async def _lost(self) -> None:
        """Say why the call has ended."""
        code = await self._call.code()
        if code is grpc.StatusCode.OK:
            raise error(Reason.RELAY_PEER_LOST, "the relay ended the connection")
        try:
            await self._call.read()
        except grpc.aio.AioRpcError as problem:
            raise _translate(problem) from None
        except asyncio.CancelledError:
            if not self._call.cancelled():
                raise
        raise error(Reason.RELAY_PEER_LOST, "the connection to the relay was closed")


def _unframe(message: bytes) -> memoryview:
    data = decode_data(message)
    if data is None:
        raise error(Reason.RELAY_TAMPERED, "the relay handed on what no node sends")
    return data


def _translate(problem: grpc.aio.AioRpcError) -> VantageError:
    cause = error_from_rpc(problem)
    if cause.reason in _SAID_BY_RELAYS:
        return cause
    # Whatever else: a call that is cut in the middle looks like UNAVAILABLE, CANCELLED or INTERNAL, by chance.
    return error(Reason.RELAY_UNAVAILABLE, f"the connection to the relay is lost: {problem.details()}")
