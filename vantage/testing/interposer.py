"""A man in the middle who knows gRPC: passes every call on, and harms the one message that a test names.

It reads what passes only to tell messages apart; what it passes on are the bytes as they came. Calls of every kind
look alike on the wire, so one handler serves all methods, also those of services that are added later.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from vantage.common.rpc import CHANNEL_OPTIONS
from vantage.server.app import SERVICES
from vantage.testing.proxy import Proxy

PATIENCE = 30.0
"""Seconds until a fault that must happen is missed."""
QUIET = 0.05
"""Seconds that a message is held which nothing follows."""
ANSWERED = 0.1
"""Seconds in which the far side has answered a message, if it answers it at all."""

_OF_THE_TRANSPORT = frozenset({"user-agent", "content-type", "te"})


class Direction(Enum):
    """Which way a message goes."""

    REQUEST = ">"
    RESPONSE = "<"


class Action(Enum):
    """What is done to a message."""

    DROP_BEFORE = "lost before it"
    """The connection is lost, and the message with it."""
    DROP_AFTER = "lost after it"
    """The message arrives; then the connection is lost, and with it what was answered."""
    DUPLICATE = "twice"
    """The message arrives twice; where there is only one in a call, the whole call is made twice."""
    DELAY = "late"
    """The message arrives behind the next one of its call, or late when none follows."""


@dataclass(frozen=True)
class Place:
    """Which message: of which method, which way, of which kind (see ``kinds_of``)."""

    method: str
    direction: Direction
    kind: str

    def __str__(self) -> str:
        return f"{self.method} {self.direction.value} {self.kind or '(one kind)'}"


@dataclass
class Fault:
    """Something that happens to the first message of a place.

    Attributes:
        happened: set when it has.
    """

    place: Place
    action: Action
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> None:
        """Wait until it has happened.

        Raises:
            TimeoutError: no such message has come by.
        """
        async with asyncio.timeout(PATIENCE):
            await self.happened.wait()


def kinds_of(message: Message) -> frozenset[str]:
    """Which of its kinds a message is: the names of the choices that it has made, ``completed.result.inline``; empty
    when it has none to make. The choices are its ``oneof`` and those below it. A message that holds nothing but another
    one is looked through; one that carries several is all that they are."""
    descriptor = message.DESCRIPTOR
    if (choice := _choice(descriptor)) is not None:
        chosen = message.WhichOneof(choice)
        if chosen is None:
            return frozenset({""})
        below = (
            kinds_of(getattr(message, chosen)) if descriptor.fields_by_name[chosen].message_type is not None else {""}
        )
        return frozenset(f"{chosen}.{each}" if each else chosen for each in below)
    if (inner := _carried(descriptor)) is None:
        return frozenset({""})
    held = getattr(message, inner.name)
    carried = held if inner.is_repeated else [held]
    return frozenset().union(*(kinds_of(each) for each in carried)) or frozenset({""})


def kinds(descriptor: Any) -> Iterator[str]:
    """Every kind that a message can be."""
    if (choice := _choice(descriptor)) is not None:
        for member in descriptor.oneofs_by_name[choice].fields:
            below = list(kinds(member.message_type)) if member.message_type is not None else [""]
            yield from (f"{member.name}.{each}" if each else member.name for each in below)
    elif (inner := _carried(descriptor)) is None:
        yield ""
    else:
        if inner.is_repeated:
            yield ""
        yield from kinds(inner.message_type)


def places(method: MethodDescriptor) -> Iterator[Place]:
    """Every message of a method."""
    for direction, descriptor in (
        (Direction.REQUEST, method.input_type),
        (Direction.RESPONSE, method.output_type),
    ):
        for kind in kinds(descriptor):
            yield Place(method.name, direction, kind)


def methods_of(service: str) -> list[MethodDescriptor]:
    """The methods of a service of the server."""
    (found,) = (each for each in SERVICES if each.name == service)
    return list(found.methods)


def can_harm(place: Place, action: Action) -> bool:
    """Whether an action makes sense: the only answer of a call cannot come twice."""
    return action is not Action.DUPLICATE or place.direction is Direction.REQUEST or _streams(place)


def _streams(place: Place) -> bool:
    method = next(each for service in SERVICES for each in service.methods if each.name == place.method)
    return bool(method.client_streaming if place.direction is Direction.REQUEST else method.server_streaming)


def _choice(descriptor: Any) -> str | None:
    return next((each.name for each in descriptor.oneofs if not each.name.startswith("_")), None)


def _carried(descriptor: Any) -> Any:
    """The field of a message that holds nothing but another one, or carries several that have a choice."""
    fields = descriptor.fields
    if len(fields) == 1 and fields[0].message_type is not None and not fields[0].is_repeated:
        return fields[0]
    return next(
        (each for each in fields if each.is_repeated and each.message_type is not None and _choice(each.message_type)),
        None,
    )


class Interposer:
    """Stands between clients and a server, both without TLS.

    Attributes:
        address: ``host:port`` that clients use.
    """

    def __init__(self, proxy: Proxy, upstream: grpc.aio.Channel) -> None:
        self.address = proxy.address
        self._proxy = proxy
        self._upstream = upstream
        self._faults: list[Fault] = []

    @classmethod
    @asynccontextmanager
    async def to(cls, target: str) -> AsyncIterator[Self]:
        """A man in the middle before the server at an address."""
        server = grpc.aio.server(options=CHANNEL_OPTIONS)
        port = server.add_insecure_port("127.0.0.1:0")
        async with (
            Proxy.to(f"127.0.0.1:{port}") as proxy,
            grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as upstream,
        ):
            interposer = cls(proxy, upstream)
            server.add_generic_rpc_handlers((_Everything(interposer._pass),))
            await server.start()
            try:
                yield interposer
            finally:
                await server.stop(0)

    def arm(self, place: Place, action: Action) -> Fault:
        """Let something happen to the next message of a place, once."""
        fault = Fault(place, action)
        self._faults.append(fault)
        return fault

    def disarm(self) -> None:
        """Do no more harm."""
        self._faults.clear()

    def cut(self) -> None:
        """Lose all connections at once."""
        self._proxy.cut()

    def look(self, method: str, direction: Direction, kinds: frozenset[str]) -> Fault | None:
        """What is to happen to a message that comes by now."""
        for fault in self._faults:
            place = fault.place
            if (place.method, place.direction) == (method, direction) and place.kind in kinds:
                self._faults.remove(fault)
                return fault
        return None

    async def _pass(self, method: MethodDescriptor | None, path: str, context: Any) -> None:
        call: Any = self._upstream.stream_stream(path)(
            metadata=tuple(
                (key, value)
                for key, value in context.invocation_metadata()
                if key not in _OF_THE_TRANSPORT and not key.startswith((":", "grpc-"))
            ),
            timeout=context.time_remaining(),
        )
        passing = _Passing(self, method, path, call, context)
        try:
            await passing.run()
        finally:
            call.cancel()


class _Everything(grpc.GenericRpcHandler):
    """Takes every call, as a stream of bytes in both directions."""

    def __init__(self, serve: Callable[[MethodDescriptor | None, str, Any], Any]) -> None:
        self._serve = serve
        self._methods = {
            f"/{service.full_name}/{method.name}": method for service in SERVICES for method in service.methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        path = handler_call_details.method

        async def handle(_requests: object, context: Any) -> None:
            await self._serve(self._methods.get(path), path, context)

        # Without (de)serializers: bytes as they are.
        return grpc.stream_stream_rpc_method_handler(handle)


class _LostError(Exception):
    """The connection is lost here."""


class _Passing:
    """One call on its way."""

    def __init__(
        self, interposer: Interposer, method: MethodDescriptor | None, path: str, call: Any, context: Any
    ) -> None:
        self._interposer = interposer
        self._method = method
        self._path = path
        self._call = call
        self._context = context
        self._swallow = False
        self._answered = asyncio.Event()

    async def run(self) -> None:
        requests = asyncio.create_task(self._forward(Direction.REQUEST))
        responses = asyncio.create_task(self._forward(Direction.RESPONSE))
        try:
            done, _pending = await asyncio.wait({requests, responses}, return_when=asyncio.FIRST_COMPLETED)
            if requests in done or self._swallow:
                await requests
            await responses
        except _LostError:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was lost, as the test has asked")
        finally:
            requests.cancel()
            responses.cancel()
            await asyncio.gather(requests, responses, return_exceptions=True)
        code = await self._call.code()
        trailing = tuple(await self._call.trailing_metadata() or ())
        if code is grpc.StatusCode.OK:
            self._context.set_trailing_metadata(trailing)
        else:
            await self._context.abort(code, await self._call.details() or "", trailing)

    async def _forward(self, direction: Direction) -> None:
        request = direction is Direction.REQUEST
        read = self._context.read if request else self._call.read
        write = self._call.write if request else self._write
        held: bytes | None = None
        reading = asyncio.ensure_future(read())
        try:
            if not request:
                # At once: some wait for it before they say more.
                await self._context.send_initial_metadata(tuple(await self._call.initial_metadata() or ()))
            while True:
                if held is not None:
                    await asyncio.wait({reading}, timeout=QUIET)
                    if not reading.done():
                        await write(held)
                        held = None
                raw = await reading
                if raw is grpc.aio.EOF:
                    break
                reading = asyncio.ensure_future(read())
                fault = self._fault(direction, raw)
                if fault is not None:
                    fault.happened.set()
                    if fault.action is Action.DELAY:
                        held = raw
                        continue
                    await self._harm(fault.action, direction, raw, write)
                else:
                    await write(raw)
                if held is not None:
                    await write(held)
                    held = None
            if held is not None:
                await write(held)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            if not request:
                return  # the far side has ended the call: its status says why
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
        if request:
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):  # the call has ended already
                await self._call.done_writing()

    async def _write(self, raw: bytes) -> None:
        self._answered.set()
        if not self._swallow:
            await self._context.write(raw)

    def _fault(self, direction: Direction, raw: bytes) -> Fault | None:
        if self._method is None:
            return None
        descriptor = self._method.input_type if direction is Direction.REQUEST else self._method.output_type
        kinds = kinds_of(GetMessageClass(descriptor).FromString(raw))
        return self._interposer.look(self._method.name, direction, kinds)

    async def _harm(self, action: Action, direction: Direction, raw: bytes, write: Any) -> None:
        match action, direction:
            case Action.DROP_BEFORE, _:
                self._interposer.cut()
                raise _LostError
            case Action.DROP_AFTER, Direction.REQUEST:
                # So that the far side has dealt with it, and its answer is what is lost.
                self._swallow = True
                self._answered.clear()
                await write(raw)
                if not self._streams(direction):
                    await self._call.done_writing()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(ANSWERED):
                        await self._answered.wait()
                self._interposer.cut()
                raise _LostError
            case Action.DROP_AFTER, Direction.RESPONSE:
                await write(raw)
                raise _LostError
            case Action.DUPLICATE, Direction.REQUEST if not self._streams(direction):
                await self._call_before(raw)
                await write(raw)
            case Action.DUPLICATE, _:
                await write(raw)
                await write(raw)

    async def _call_before(self, raw: bytes) -> None:
        """The same call once more, before this one, until it is answered."""
        metadata = tuple(self._context.invocation_metadata())
        call: Any = self._interposer._upstream.stream_stream(self._path)(
            metadata=tuple(each for each in metadata if each[0] == "authorization")
        )
        await call.write(raw)
        await call.done_writing()
        try:
            await call.read()
        finally:
            call.cancel()

    def _streams(self, direction: Direction) -> bool:
        method = self._method
        return method is not None and bool(
            method.client_streaming if direction is Direction.REQUEST else method.server_streaming
        )
