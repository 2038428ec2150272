"""The permission matrix: every RPC x every role x every relation, against a table that was written by hand.

A new RPC fails here until it has a row and a request. Answers that hide something are compared with the answers for a
thing that does not exist: code, message, details and trailing metadata are the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from tests.rpc.access.questions import LISTED, REQUESTS
from tests.rpc.access.table import TABLE, expected
from tests.rpc.access.world import RELATIONS, ROLES, Caller, World
from vantage.common.errors import Reason, VantageError
from vantage.common.rpc import error_from_rpc
from vantage.server.app import SERVICES
from vantage.server.config import ServerConfig
from vantage.testing.server import running_server

METHODS = {f"{service.name}.{method.name}": method for service in SERVICES for method in service.methods}

PERMITTED = {
    Reason.ETAG_MISMATCH,
    Reason.IN_USE,
    # What is wrong with a request that the caller was permitted to make.
    Reason.ORGANIZATION_NOT_MEMBER,
    Reason.KEYS_INVALID,
    Reason.ORDER_INVALID,
    Reason.CREDENTIALS_INVALID,
    Reason.LOCKED_OUT,
    Reason.BOOTSTRAP_TOKEN_INVALID,
    Reason.TOKEN_INVALID,
    Reason.ASSERTION_INVALID,
    Reason.IDENTITY_PROVIDER_MISSING,
    Reason.RESET_TOKEN_INVALID,
    Reason.ENROLMENT_STATE,
    Reason.ONE_TIME_CODE_INVALID,
    Reason.CERTIFICATE_INVALID,
    Reason.REVOCATION_LIST_INVALID,
}
"""Reasons that only somebody learns who may do it."""
TICKETS = ("RelayService.Open", "RelayService.WatchLoad")
"""Need no token but a ticket, which is refused."""
_RANDOM = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<=thing|.user|.node|.role)-\d+")


@dataclass(frozen=True)
class Answer:
    """What came back, and how it looks from outside."""

    message: Message | None
    problem: VantageError | None
    look: tuple[object, ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("matrix")
    async with running_server(directory / "server", config=ServerConfig(stop_grace_seconds=1)) as server:
        yield await World.make(server)


def _look(problem: grpc.aio.AioRpcError) -> tuple[object, ...]:
    """Everything that the caller can see, with names of things replaced: they differ between two things."""
    known = error_from_rpc(problem)
    return (
        problem.code(),
        _RANDOM.sub("~", problem.details() or ""),
        known.reason,
        {key: _RANDOM.sub("~", value) for key, value in known.metadata.items() if key != "request_id"},
        sorted(key for key, _value in problem.trailing_metadata() or ()),
    )


async def call(world: World, method: MethodDescriptor, request: Message, caller: Caller) -> Answer:
    """Make a call and take its first answer."""
    form = ("stream" if method.client_streaming else "unary", "stream" if method.server_streaming else "unary")
    channel = world.channel
    multicallable = getattr(channel, "_".join(form))(
        f"/{method.containing_service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    metadata = tuple(pair for pair in caller.metadata if pair[0] == "authorization")
    made = multicallable(*(() if method.client_streaming else (request,)), metadata=metadata, timeout=20)
    if method.client_streaming:
        # A server that has refused the call does not take what is written; its status says why.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await made.write(request)
            if method.name != "Connect":
                await made.done_writing()
    try:
        if not method.server_streaming:
            return Answer(await made, None, ())
        async for message in made:
            made.cancel()
            failure = getattr(message, "failure", None)
            if failure is not None and failure.reason:
                problem = VantageError(Reason[failure.reason], failure.message)
                return Answer(None, problem, (failure.reason, _RANDOM.sub("~", failure.message)))
            return Answer(message, None, ())
        return Answer(None, None, ())
    except grpc.aio.AioRpcError as problem:
        return Answer(None, error_from_rpc(problem), _look(problem))


def letter(answer: Answer) -> str:
    """What the answer amounts to in the table's terms."""
    problem = answer.problem
    if problem is None or problem.reason in PERMITTED:
        return "A"
    if problem.reason in (Reason.UNAUTHENTICATED,):
        return "U"
    if problem.reason is Reason.NOT_FOUND:
        return "H"
    if problem.reason in (Reason.PERMISSION_DENIED, Reason.PARENT_NOT_HELD, Reason.LEASE_INVALID):
        return "D"
    return f"?{problem.reason.name}: {problem.message}"


def test_every_rpc_has_a_row_and_a_request() -> None:
    assert set(METHODS) == set(TABLE)
    assert set(METHODS) == set(REQUESTS)
    assert {name for name in METHODS if re.search(r"\.List(?!NodeKeys|Sessions)", name)} == set(LISTED)


def test_every_row_names_roles_that_exist() -> None:
    for row in TABLE.values():
        assert set(row) <= {*ROLES, "anyone"}
        assert all(len(answers) in (1, len(RELATIONS)) and set(answers) <= set("ADH") for answers in row.values())


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", [name for name in METHODS if name not in LISTED])
async def test_who_may_call(name: str, world: World) -> None:
    method, build = METHODS[name], REQUESTS[name]
    wrong = []
    for role in ROLES:
        for relation in RELATIONS:
            caller = world.caller(role)
            request = await build(world, caller, relation)
            await world.admit(caller)
            answer = await call(world, method, request, caller)
            found, wanted = _letter_of(name, role, answer), expected(name, role, relation)
            if found != wanted:
                wrong.append(f"{role}, {relation}: {found} instead of {wanted}")
            elif wanted == "H" or (wanted == "D" and role not in TABLE[name]):
                missing = _absent(request)
                if missing is not None:
                    other = await call(world, method, missing, caller)
                    if other.look != answer.look:
                        wrong.append(f"{role}, {relation}: {answer.look} differs when nothing is there: {other.look}")
    assert wrong == []


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", list(LISTED))
async def test_what_lists_show(name: str, world: World) -> None:
    """Lists show exactly what single reads show."""
    make, field, key = LISTED[name]
    wrong = []
    for role in ROLES:
        caller = world.caller(role)
        made = {}
        for relation in RELATIONS:
            thing = await getattr(world, make)(caller, relation)
            made[relation] = thing[0] if isinstance(thing, tuple) else thing
        await world.admit(caller)
        shown: set[str] = set()
        request = await REQUESTS[name](world, caller, "own")
        while True:
            answer = await call(world, METHODS[name], request, caller)
            if answer.message is None:
                break
            shown |= {getattr(each, key) for each in getattr(answer.message, field)}
            if not (token := answer.message.next_page_token):  # type: ignore[attr-defined]
                break
            request.page_token = token
        for relation in RELATIONS:
            wanted = expected(name, role, relation)
            found = _letter_of(name, role, answer)
            if answer.message is not None:
                found = "A" if made[relation] in shown else "H"
            if found != wanted:
                wrong.append(f"{role}, {relation}: {found} instead of {wanted}")
    assert wrong == []


def _letter_of(name: str, role: str, answer: Answer) -> str:
    problem = answer.problem
    if name in TICKETS and problem is not None and problem.reason is not Reason.INTERNAL:
        return "A"  # let in without a token; what is refused is the missing ticket
    if role == "algorithm" and problem is not None and problem.reason is Reason.TOKEN_INVALID:
        return "A" if "anyone" in TABLE[name] else "U"
    return letter(answer)


def _absent(request: Any) -> Any:
    """The same request about a thing of the same form that does not exist; None when it names none."""
    other = type(request)()
    other.CopyFrom(request)
    changed = False
    for holder in (
        other,
        *(value for field, value in other.ListFields() if field.message_type and not field.is_repeated),
    ):
        for field in ("name", "holder", "collaboration", "organization", "user"):
            value = getattr(holder, field, None)
            if isinstance(value, str) and (swapped := _swap(value)) != value:
                setattr(holder, field, swapped)
                changed = True
    return other if changed else None


def _swap(name: str) -> str:
    """Another number or id at the end; names of the world's organizations stay."""
    head, slash, last = name.rpartition("/")
    if re.fullmatch(r"[0-9a-f-]{36}", last):
        return f"{head}{slash}{last[:-12]}{'0' * 12}"
    return f"{head}{slash}{re.sub(r'-[0-9]+$', '-999999', last)}"
