"""What strangers send and what they learn: never INTERNAL, never who exists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rpc.identity.world import NOW, World, reason
from vantage.api.identity.v1 import auth_service_pb2 as pb
from vantage.api.identity.v1 import credential_service_pb2 as credential_pb
from vantage.common.clock import ManualClock
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.server.domain.passwords import Passwords
from vantage.testing.server import PASSWORD, bearer, running_server

_TEXT = st.text(st.characters(codec="utf-8"), max_size=80)
_TOKEN = _TEXT | st.from_regex(r"[A-Za-z0-9_-]{1,40}(\.[A-Za-z0-9_-]{0,60}){1,4}", fullmatch=True)


async def outcome(call: Any) -> Reason | None:
    try:
        await call
    except grpc.aio.AioRpcError as problem:
        failure = problem
    else:
        return None
    assert failure.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN), failure.details()
    return error_from_rpc(failure).reason


async def test_fuzzed_credentials_never_yield_internal(world: World) -> None:
    loop = asyncio.get_running_loop()
    me = bearer(await world.login())
    auth, own = world.auth, world.own

    async def send(one: str, two: str, three: str) -> None:
        for call in (
            auth.Login(pb.LoginRequest(username=one, password=two, one_time_code=three)),
            auth.RefreshToken(pb.RefreshTokenRequest(refresh_token=one, request_id=two)),
            auth.ExchangeAssertion(pb.ExchangeAssertionRequest(assertion=one)),
            auth.ExchangeIdentityToken(pb.ExchangeIdentityTokenRequest(nonce=one, id_token=two)),
            auth.ResetPassword(pb.ResetPasswordRequest(reset_token=one, new_password=two)),
            auth.Bootstrap(pb.BootstrapRequest(bootstrap_token=one, username=two, password=three)),
            own.ConfirmOneTimeCodes(credential_pb.ConfirmOneTimeCodesRequest(one_time_code=three), metadata=me),
            own.EndSession(credential_pb.EndSessionRequest(session_id=one), metadata=me),
            own.UnlinkIdentity(credential_pb.UnlinkIdentityRequest(issuer=one, subject=two), metadata=me),
            own.ListSessions(credential_pb.ListSessionsRequest(page_token=f"x{one}", page_size=7), metadata=me),
        ):
            assert await outcome(call) is not None
        token = "".join(each for each in one if " " < each < "\x7f")
        assert await outcome(auth.GetPrincipal(pb.GetPrincipalRequest(), metadata=bearer_text(token))) in (
            Reason.TOKEN_INVALID,
            Reason.UNAUTHENTICATED,
        )

    def bearer_text(token: str) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {token}"),)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_TOKEN, _TOKEN, _TEXT)
    def fuzz(one: str, two: str, three: str) -> None:
        asyncio.run_coroutine_threadsafe(send(one, two, three), loop).result(60)

    await asyncio.to_thread(fuzz)


async def test_fuzzed_codes_never_yield_internal(world: World) -> None:
    await world.enrol(bearer(await world.login()))
    for code in ("١٢٣٤٥٦", "12345", "1" * 5_000, "-1e999", "\x00\x00\x00\x00\x00\x00", "aaaa-aaaa-aaaa-aaa!", "½" * 6):
        found = await outcome(world.auth.Login(pb.LoginRequest(username="rosa", password=PASSWORD, one_time_code=code)))
        assert found in (Reason.CREDENTIALS_INVALID, Reason.LOCKED_OUT)


async def test_the_same_work_is_done_whoever_it_is(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known, unknown, without password: each costs one argon2 of the same parameters and one commit."""
    await world.create("berta", password="")
    verified: list[str] = []
    real = Passwords._verify

    def spy(self: Passwords, stored: str, password: str) -> bool:
        verified.append(stored.rsplit("$", 2)[0])
        return real(self, stored, password)

    monkeypatch.setattr(Passwords, "_verify", spy)
    for user in ("rosa", "berta", "nobody", "no such name at all", ""):
        assert await reason(world.login(user, "wrong")) is Reason.CREDENTIALS_INVALID
    assert len(verified) == 5
    assert len(set(verified)) == 1
    assert verified[0].startswith("$argon2id$")


@pytest.fixture
async def dear_world(tmp_path: Path) -> AsyncIterator[World]:
    """Where a password costs what it costs at real servers."""
    clock = ManualClock(NOW)
    async with running_server(tmp_path / "server", clock=clock, hasher=None) as running:
        made = World(running, clock)
        await made.prepare()
        yield made


async def test_time_does_not_tell_who_exists(dear_world: World) -> None:
    """The fastest of interleaved attempts, as load only adds: without the decoy, unknown names were faster by all of
    argon2."""

    async def attempt(user: str) -> float:
        started = time.perf_counter()
        assert await reason(dear_world.login(user, "wrong")) is Reason.CREDENTIALS_INVALID
        return time.perf_counter() - started

    names = [f"user{number}" for number in range(2)]
    for name in names:
        await dear_world.create(name)
    known, unknown = [], []
    for _round in range(4):  # below the count that locks
        for index, name in enumerate(names):
            known.append(await attempt(name))
            unknown.append(await attempt(f"nobody{index}"))
    ratio = min(known) / min(unknown)
    assert 0.5 < ratio < 2


async def test_a_message_does_not_tell_who_exists(world: World) -> None:
    await world.enrol(bearer(await world.login()))
    said = set()
    for user, code in (("rosa", ""), ("rosa", "123456"), ("nobody", ""), ("nobody", "123456")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await world.login(user, "wrong", code)
        said.add((caught.value.code(), caught.value.details()))
    assert len(said) == 1
