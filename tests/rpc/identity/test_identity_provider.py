"""Log-in at real OpenID Connect providers: npm oidc-provider (device flow, PKCE) and PyPI oidc-provider-mock."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.rpc.identity.providers import browse, mock_id_token, mock_provider, node_provider
from tests.rpc.identity.world import World, reason
from vantage.api.admin.v1 import user_credential_service_pb2 as admin_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import credential_pb2
from vantage.api.identity.v1 import credential_service_pb2 as pb
from vantage.client import AsyncClient
from vantage.client.models import DeviceCode
from vantage.common.clock import ManualClock
from vantage.common.errors import PermissionDeniedError, Reason, UnauthenticatedError
from vantage.server.config import IdentityProviderConfig, ServerConfig
from vantage.testing.server import PASSWORD, RunningServer, bearer, running_server

ROSA = "rosa@clara.example"


@asynccontextmanager
async def serving(data: Path, issuer: str, **settings: Any) -> AsyncIterator[World]:
    """A server whose identity provider has this issuer."""
    provider = IdentityProviderConfig(issuer=issuer, client_id="vantage", **settings)
    clock = ManualClock(datetime.now(UTC))  # the provider's clock is the machine's
    config = ServerConfig(stop_grace_seconds=1, identity_provider=provider)
    async with running_server(data, clock=clock, config=config) as running:
        world = World(running, clock)
        await world.prepare()
        yield world


@pytest.fixture
async def mocked(tmp_path: Path) -> AsyncIterator[tuple[World, str]]:
    async with mock_provider(ROSA) as issuer, serving(tmp_path / "server", issuer) as world:
        yield world, issuer


async def nonce(world: World) -> str:
    answer = await world.auth.GetLoginNonce(auth_pb.GetLoginNonceRequest())
    return str(answer.nonce)


def exchange(world: World, nonce: str, token: str) -> Any:
    return world.auth.ExchangeIdentityToken(auth_pb.ExchangeIdentityTokenRequest(nonce=nonce, id_token=token))


async def link(world: World, subject: str = ROSA, user: str = "users/rosa") -> None:
    request = admin_pb.LinkUserIdentityRequest(user=user, subject=subject)
    await world.admin.LinkUserIdentity(request, metadata=world.root)


async def client_of(stack: AsyncExitStack, server: RunningServer) -> AsyncClient:
    certificate = server.server.data / "tls.crt"
    return await stack.enter_async_context(AsyncClient.connect(server.address, ca=certificate))


@pytest.mark.nodejs
@pytest.mark.parametrize("algorithm", ["RS256", "ES256"])
async def test_the_client_logs_in_by_device_and_by_browser(tmp_path: Path, algorithm: str) -> None:
    # This provider leaves the nonce out in the device flow, as RFC 8628 lets it.
    async with (
        node_provider(algorithm) as issuer,
        serving(tmp_path / "server", issuer, require_nonce=False) as world,
        asyncio.TaskGroup() as people,
        AsyncExitStack() as stack,
    ):
        client = await client_of(stack, world.server)
        info = await client.auth.server_info()
        assert info.identity_provider is not None
        assert info.identity_provider.issuer == issuer

        def open_browser(address: str) -> None:
            people.create_task(browse(address, ROSA))

        with pytest.raises(PermissionDeniedError, match=ROSA) as caught:
            await client.auth.login_at_provider(open_browser=open_browser)
        assert caught.value.reason is Reason.IDENTITY_UNKNOWN
        await client.auth.login("rosa", PASSWORD)
        assert await client.auth.link_identity(PASSWORD, open_browser=open_browser) == ROSA
        await client.auth.logout()
        assert await client.auth.login_at_provider(open_browser=open_browser) == "users/rosa"

        def show(code: DeviceCode) -> None:
            assert code.code in code.complete_address
            people.create_task(browse(code.complete_address, ROSA))

        assert await client.auth.login_at_provider(show) == "users/rosa"
        assert [each.method for each in await client.auth.sessions()] == ["identity", "identity"]
        assert (await client.auth.whoami()).name == "users/rosa"


@pytest.mark.nodejs
async def test_a_token_without_nonce_needs_the_operators_consent(tmp_path: Path) -> None:
    async with (
        node_provider() as issuer,
        serving(tmp_path / "server", issuer) as world,
        asyncio.TaskGroup() as people,
        AsyncExitStack() as stack,
    ):
        client = await client_of(stack, world.server)
        with pytest.raises(UnauthenticatedError, match="require_nonce") as caught:
            await client.auth.login_at_provider(lambda code: _confirm(people, code))
        assert caught.value.reason is Reason.IDENTITY_TOKEN_INVALID


def _confirm(people: asyncio.TaskGroup, code: DeviceCode) -> None:
    people.create_task(browse(code.complete_address, ROSA))


async def test_a_token_and_a_nonce_work_once(mocked: tuple[World, str]) -> None:
    world, issuer = mocked
    await link(world)
    first, second = await nonce(world), await nonce(world)
    token = await mock_id_token(issuer, ROSA, first)
    answer = await exchange(world, first, token)
    assert answer.user == "users/rosa"
    assert await world.who(bearer(answer.tokens)) == "users/rosa"
    assert await reason(exchange(world, first, token)) is Reason.IDENTITY_TOKEN_REPLAYED
    assert await reason(exchange(world, second, token)) is Reason.IDENTITY_TOKEN_INVALID  # for another log-in
    other = await mock_id_token(issuer, ROSA, first)
    assert await reason(exchange(world, first, other)) is Reason.IDENTITY_TOKEN_REPLAYED


async def test_what_is_wrong_with_a_token_is_said(mocked: tuple[World, str]) -> None:
    world, issuer = mocked
    await link(world)
    mine = await nonce(world)
    wrong = {
        "another client": await mock_id_token(issuer, ROSA, mine, audience="somebody-else"),
        "no nonce": await mock_id_token(issuer, ROSA, ""),
        "nonce of ours": await mock_id_token(issuer, ROSA, "made-up"),
        "cut": (await mock_id_token(issuer, ROSA, mine))[:-3],
        "nothing": "",
    }
    for token in wrong.values():
        assert await reason(exchange(world, mine, token)) is Reason.IDENTITY_TOKEN_INVALID
    async with mock_provider(ROSA) as impostor:
        forged = await mock_id_token(impostor, ROSA, mine)
        assert await reason(exchange(world, mine, forged)) is Reason.IDENTITY_TOKEN_INVALID
    good = await mock_id_token(issuer, ROSA, mine)
    assert await reason(exchange(world, "made-up", good)) is Reason.IDENTITY_TOKEN_INVALID
    world.clock.advance(timedelta(minutes=15))
    assert await reason(exchange(world, mine, good)) is Reason.IDENTITY_TOKEN_INVALID


async def test_linking_asks_for_the_password_and_an_identity_has_one_user(mocked: tuple[World, str]) -> None:
    world, issuer = mocked
    me = bearer(await world.login())
    mine = await nonce(world)
    request = pb.LinkIdentityRequest(nonce=mine, id_token=await mock_id_token(issuer, ROSA, mine), password="wrong")
    assert await reason(world.own.LinkIdentity(request, metadata=me)) is Reason.CREDENTIALS_INVALID
    request.password = PASSWORD
    linked = await world.own.LinkIdentity(request, metadata=me)
    assert (linked.identity.issuer, linked.identity.subject) == (issuer, ROSA)
    await world.create("hans")
    again = admin_pb.LinkUserIdentityRequest(user="users/hans", subject=ROSA)
    assert await reason(world.admin.LinkUserIdentity(again, metadata=world.root)) is Reason.ALREADY_EXISTS
    await link(world)  # again to the same user: nothing changes
    found = (await world.own.GetCredentials(pb.GetCredentialsRequest(), metadata=me)).credentials
    assert [each.subject for each in found.identities] == [ROSA]


async def test_unlinking_ends_log_ins_at_the_provider_at_once(mocked: tuple[World, str]) -> None:
    world, issuer = mocked
    await link(world)
    mine = await nonce(world)
    there = bearer((await exchange(world, mine, await mock_id_token(issuer, ROSA, mine))).tokens)
    here = bearer(await world.login())
    [listed] = [
        each
        for each in (await world.own.ListSessions(pb.ListSessionsRequest(), metadata=there)).sessions
        if each.current
    ]
    assert listed.method == credential_pb2.LOGIN_METHOD_IDENTITY
    request = pb.UnlinkIdentityRequest(issuer=issuer, subject=ROSA)
    assert (await world.own.UnlinkIdentity(request, metadata=here)).ended_sessions == 1
    assert await reason(world.who(there)) is Reason.TOKEN_INVALID
    assert await reason(world.own.UnlinkIdentity(request, metadata=here)) is Reason.NOT_FOUND
    mine = await nonce(world)
    call = exchange(world, mine, await mock_id_token(issuer, ROSA, mine))
    assert await reason(call) is Reason.IDENTITY_UNKNOWN


async def test_the_last_way_to_log_in_is_kept(mocked: tuple[World, str]) -> None:
    world, issuer = mocked
    await world.create("berta", password="")
    await link(world, "berta", "users/berta")
    mine = await nonce(world)
    me = bearer((await exchange(world, mine, await mock_id_token(issuer, "berta", mine))).tokens)
    request = pb.UnlinkIdentityRequest(issuer=issuer, subject="berta")
    assert await reason(world.own.UnlinkIdentity(request, metadata=me)) is Reason.ENROLMENT_STATE
    assert await world.who(me) == "users/berta"


async def test_only_listed_claims_are_mapped_and_then_the_subject_counts(tmp_path: Path) -> None:
    listed = {ROSA: "rosa"}
    async with (
        mock_provider(ROSA, "hans@clara.example") as issuer,
        serving(tmp_path / "server", issuer, claim="email", claim_users=listed) as world,
    ):
        for subject, expected in ((ROSA, None), ("hans@clara.example", Reason.IDENTITY_UNKNOWN)):
            mine = await nonce(world)
            call = exchange(world, mine, await mock_id_token(issuer, subject, mine))
            if expected is None:
                assert (await call).user == "users/rosa"
            else:
                assert await reason(call) is expected
        request = admin_pb.GetUserCredentialsRequest(user="users/rosa")
        found = await world.admin.GetUserCredentials(request, metadata=world.root)
        assert [each.subject for each in found.credentials.identities] == [ROSA]


async def test_a_server_without_provider_says_so(world: World) -> None:
    assert not (await world.auth.GetServerInfo(auth_pb.GetServerInfoRequest())).HasField("identity_provider")
    for call in (
        world.auth.GetLoginNonce(auth_pb.GetLoginNonceRequest()),
        exchange(world, "x", "y"),
        world.admin.LinkUserIdentity(
            admin_pb.LinkUserIdentityRequest(user="users/rosa", subject="x"), metadata=world.root
        ),
    ):
        assert await reason(call) is Reason.IDENTITY_PROVIDER_MISSING


async def test_a_provider_that_is_away_is_said_and_known_keys_go_on(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        provider = AsyncExitStack()
        issuer = await provider.enter_async_context(mock_provider(ROSA))
        world = await stack.enter_async_context(serving(tmp_path / "server", issuer))
        await link(world)
        mine = [await nonce(world) for _ in range(3)]
        tokens = [await mock_id_token(issuer, ROSA, each) for each in mine]
        await exchange(world, mine[0], tokens[0])
        await provider.aclose()
        await exchange(world, mine[1], tokens[1])
        other = await stack.enter_async_context(serving(tmp_path / "other", issuer))
        theirs = await nonce(other)
        assert await reason(exchange(other, theirs, tokens[2])) is Reason.IDENTITY_PROVIDER_UNAVAILABLE


async def test_a_service_account_is_linked_to_nobody(mocked: tuple[World, str]) -> None:
    world, _issuer = mocked
    await world.create("robot", password="", kind=user_pb.USER_KIND_SERVICE_ACCOUNT)
    request = admin_pb.LinkUserIdentityRequest(user="users/robot", subject="robot")
    assert await reason(world.admin.LinkUserIdentity(request, metadata=world.root)) is Reason.ENROLMENT_STATE


async def test_nobody_links_themself_without_a_token(mocked: tuple[World, str]) -> None:
    world, _issuer = mocked
    request = admin_pb.LinkUserIdentityRequest(user="users/root", subject="somebody")
    assert await reason(world.admin.LinkUserIdentity(request, metadata=world.root)) is Reason.PERMISSION_DENIED
