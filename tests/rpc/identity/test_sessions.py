"""Sessions, refresh tokens and reset tokens, on a whole server."""

import asyncio
import uuid
from datetime import timedelta

import pytest

from tests.rpc.identity.world import World, reason
from vantage.api.admin.v1 import user_credential_service_pb2 as admin_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import credential_pb2
from vantage.api.identity.v1 import credential_service_pb2 as pb
from vantage.common.errors import Reason
from vantage.testing.server import PASSWORD, bearer

NEW = "four unrelated wooden thoughts"


def refresh(world: World, token: str, request_id: str = ""):  # type: ignore[no-untyped-def]
    return world.auth.RefreshToken(auth_pb.RefreshTokenRequest(refresh_token=token, request_id=request_id))


async def test_a_refresh_whose_answer_was_lost_is_repeated(world: World) -> None:
    old = await world.login()
    request_id = str(uuid.uuid4())
    first = (await refresh(world, old.refresh_token, request_id)).tokens
    world.clock.advance(timedelta(minutes=1))
    again = (await refresh(world, old.refresh_token, request_id)).tokens
    assert again.refresh_token == first.refresh_token
    assert await world.who(bearer(again)) == "users/rosa"
    await refresh(world, again.refresh_token)


@pytest.mark.parametrize("case", ["no request id", "another request id", "too late", "successor used"])
async def test_any_other_reuse_ends_the_session(world: World, case: str) -> None:
    old = await world.login()
    request_id = str(uuid.uuid4())
    latest = (await refresh(world, old.refresh_token, request_id)).tokens
    repeated = {"no request id": "", "another request id": str(uuid.uuid4())}.get(case, request_id)
    if case == "too late":
        world.clock.advance(timedelta(minutes=2, seconds=1))
    if case == "successor used":
        latest = (await refresh(world, latest.refresh_token, str(uuid.uuid4()))).tokens
    assert await world.who(bearer(latest)) == "users/rosa"
    assert await reason(refresh(world, old.refresh_token, repeated)) is Reason.TOKEN_REUSED
    assert await reason(world.who(bearer(latest))) is Reason.TOKEN_INVALID
    assert await reason(refresh(world, latest.refresh_token)) is Reason.TOKEN_INVALID


async def test_own_sessions_are_listed_and_ended(world: World) -> None:
    me, other = bearer(await world.login()), bearer(await world.login())
    listed = (await world.own.ListSessions(pb.ListSessionsRequest(), metadata=me)).sessions
    assert [each.current for each in listed] == [False, True]
    assert {(each.method, each.peer) for each in listed} == {(credential_pb2.LOGIN_METHOD_PASSWORD, "127.0.0.1")}
    page = await world.own.ListSessions(pb.ListSessionsRequest(page_size=1), metadata=me)
    rest = pb.ListSessionsRequest(page_size=1, page_token=page.next_page_token)
    assert [*page.sessions, *(await world.own.ListSessions(rest, metadata=me)).sessions] == list(listed)
    await world.own.EndSession(pb.EndSessionRequest(session_id=listed[0].id), metadata=me)
    assert await reason(world.who(other)) is Reason.TOKEN_INVALID
    again = world.own.EndSession(pb.EndSessionRequest(session_id=listed[0].id), metadata=me)
    assert await reason(again) is Reason.NOT_FOUND


async def test_nobody_ends_the_session_of_another(world: World) -> None:
    root = (await world.own.ListSessions(pb.ListSessionsRequest(), metadata=world.root)).sessions
    me = bearer(await world.login())
    call = world.own.EndSession(pb.EndSessionRequest(session_id=root[0].id), metadata=me)
    assert await reason(call) is Reason.NOT_FOUND
    assert await world.who(world.root) == "users/root"


async def test_an_admin_revokes_the_sessions_of_a_user(world: World) -> None:
    await world.create("anna", "organization-admin")
    anna, tokens = bearer(await world.login("anna")), await world.login()
    me = bearer(tokens)
    assert await world.who(me) == "users/rosa"
    found = await world.admin.GetUserCredentials(admin_pb.GetUserCredentialsRequest(user="users/rosa"), metadata=anna)
    assert len(found.sessions) == 1
    request = admin_pb.RevokeSessionsRequest(user="users/rosa")
    assert (await world.admin.RevokeSessions(request, metadata=anna)).ended_sessions == 1
    assert await reason(world.who(me)) is Reason.TOKEN_INVALID
    assert await reason(refresh(world, tokens.refresh_token)) is Reason.TOKEN_INVALID


async def test_whom_an_admin_does_not_govern_stays(world: World) -> None:
    await world.create("anna", "organization-admin")
    await world.create("ruth", "root")
    await world.create("hans", organization="organizations/hilda")
    anna = bearer(await world.login("anna"))
    for user, expected in (
        ("users/ruth", Reason.ROLE_EXCEEDS_OWN),
        ("users/hans", Reason.NOT_FOUND),
        ("users/nobody", Reason.NOT_FOUND),
    ):
        for call in (
            world.admin.RevokeSessions(admin_pb.RevokeSessionsRequest(user=user), metadata=anna),
            world.admin.IssuePasswordReset(admin_pb.IssuePasswordResetRequest(user=user), metadata=anna),
            world.admin.RemoveOneTimeCodes(admin_pb.RemoveOneTimeCodesRequest(user=user), metadata=anna),
        ):
            assert await reason(call) is expected


async def test_nobody_gets_round_their_own_password(world: World) -> None:
    me, rosa = world.root, "users/rosa"
    for user, expected in (("users/root", Reason.PERMISSION_DENIED), (rosa, None)):
        for call in (
            world.admin.IssuePasswordReset(admin_pb.IssuePasswordResetRequest(user=user), metadata=me),
            world.admin.RemoveOneTimeCodes(admin_pb.RemoveOneTimeCodesRequest(user=user), metadata=me),
        ):
            if expected is None:
                await call
            else:
                assert await reason(call) is expected
    assert await world.who(me) == "users/root"  # no session ended


async def test_a_reset_token_sets_a_password_once_and_ends_the_sessions(world: World) -> None:
    me = bearer(await world.login())
    issue = admin_pb.IssuePasswordResetRequest(user="users/rosa")
    older = (await world.admin.IssuePasswordReset(issue, metadata=world.root)).reset_token
    token = (await world.admin.IssuePasswordReset(issue, metadata=world.root)).reset_token
    await world.login()  # until it is used the old password works

    def reset(reset_token: str, password: str = NEW):  # type: ignore[no-untyped-def]
        return world.auth.ResetPassword(auth_pb.ResetPasswordRequest(reset_token=reset_token, new_password=password))

    assert await reason(reset(older)) is Reason.RESET_TOKEN_INVALID
    assert await reason(reset(token, "rosa-rosa-rosa")) is Reason.PASSWORD_TOO_WEAK
    assert (await reset(token)).user == "users/rosa"
    assert await reason(reset(token)) is Reason.RESET_TOKEN_INVALID
    assert await reason(world.who(me)) is Reason.TOKEN_INVALID
    assert await reason(world.login()) is Reason.CREDENTIALS_INVALID
    await world.login(password=NEW)


async def test_who_sets_a_password_with_a_token_does_not_wait_for_whoever_guessed(world: World) -> None:
    issue = admin_pb.IssuePasswordResetRequest(user="users/rosa")
    token = (await world.admin.IssuePasswordReset(issue, metadata=world.root)).reset_token
    for _ in range(5):
        assert await reason(world.login(password="guessed")) is Reason.CREDENTIALS_INVALID
    assert await reason(world.login()) is Reason.LOCKED_OUT
    await world.auth.ResetPassword(auth_pb.ResetPasswordRequest(reset_token=token, new_password=NEW))
    await world.login(password=NEW)


async def test_a_reset_token_expires(world: World) -> None:
    made = await world.create("berta", password="")
    world.clock.advance(timedelta(days=3))
    call = world.auth.ResetPassword(auth_pb.ResetPasswordRequest(reset_token=made.reset_token, new_password=NEW))
    assert await reason(call) is Reason.RESET_TOKEN_INVALID


async def test_a_person_without_password_sets_it_with_the_token(world: World) -> None:
    made = await world.create("berta", password="")
    for password in ("", PASSWORD):
        assert await reason(world.login("berta", password)) is Reason.CREDENTIALS_INVALID
    await world.auth.ResetPassword(auth_pb.ResetPasswordRequest(reset_token=made.reset_token, new_password=NEW))
    await world.login("berta", NEW)


async def test_passwords_that_are_guessed_first_are_refused(world: World) -> None:
    for password in ("password12345", "qwertyuiop123", "rosa rosa rosa", "short", "aaaaaaaaaaaaaa"):
        assert await reason(world.create("rosa2", password=password)) is Reason.PASSWORD_TOO_WEAK


async def test_changing_the_password_ends_the_other_sessions_at_once(world: World) -> None:
    me, other = bearer(await world.login()), bearer(await world.login())
    assert await world.who(other) == "users/rosa"
    change = auth_pb.ChangePasswordRequest(current_password=PASSWORD, new_password=NEW)
    assert (await world.auth.ChangePassword(change, metadata=me)).ended_sessions == 1
    assert await reason(world.who(other)) is Reason.TOKEN_INVALID
    assert await world.who(me) == "users/rosa"


async def test_a_reset_has_the_last_word_over_a_change_that_is_under_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    me = bearer(await world.login())
    passwords, hashing, go_on = world.server.server.passwords, asyncio.Event(), asyncio.Event()
    hash_new = passwords.hash_new

    async def slow(password: str, username: str) -> str:
        if password == NEW:
            hashing.set()
            await go_on.wait()
        return await hash_new(password, username)

    monkeypatch.setattr(passwords, "hash_new", slow)
    change = auth_pb.ChangePasswordRequest(current_password=PASSWORD, new_password=NEW)
    changing = asyncio.ensure_future(reason(world.auth.ChangePassword(change, metadata=me)))
    await hashing.wait()
    request = admin_pb.IssuePasswordResetRequest(user="users/rosa")
    issued = await world.admin.IssuePasswordReset(request, metadata=world.root)
    reset = "seven quiet mountains under snow"
    await world.auth.ResetPassword(auth_pb.ResetPasswordRequest(reset_token=issued.reset_token, new_password=reset))
    go_on.set()
    assert await changing is Reason.TOKEN_INVALID
    await world.login(password=reset)
