"""Log-in, tokens and administration on a whole server with TLS."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import organization_service_pb2_grpc, user_service_pb2_grpc
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import auth_service_pb2_grpc
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.testing.server import PASSWORD, ROOT, RunningServer, bearer, running_server


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RunningServer]:
    async with running_server(tmp_path / "server") as running:
        yield running


async def reason(call: Any) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason


async def test_bootstrap_works_once(server: RunningServer) -> None:
    auth = auth_service_pb2_grpc.AuthServiceStub(server.channel())
    request = auth_pb.BootstrapRequest(bootstrap_token="wrong", username=ROOT, password=PASSWORD)
    assert await reason(auth.Bootstrap(request)) is Reason.BOOTSTRAP_TOKEN_INVALID
    tokens = await server.bootstrap()
    assert await reason(server.bootstrap()) is Reason.BOOTSTRAP_TOKEN_INVALID
    principal = await auth.GetPrincipal(auth_pb.GetPrincipalRequest(), metadata=bearer(tokens))
    assert principal.name == "users/root"
    assert list(principal.roles) == ["roles/root"]


async def test_a_refresh_token_works_once_and_reuse_ends_the_session(server: RunningServer) -> None:
    auth = auth_service_pb2_grpc.AuthServiceStub(server.channel())
    old = await server.bootstrap()
    new = (await auth.RefreshToken(auth_pb.RefreshTokenRequest(refresh_token=old.refresh_token))).tokens
    await auth.GetPrincipal(auth_pb.GetPrincipalRequest(), metadata=bearer(new))
    again = auth_pb.RefreshTokenRequest(refresh_token=old.refresh_token)
    assert await reason(auth.RefreshToken(again)) is Reason.TOKEN_REUSED
    assert await reason(auth.GetPrincipal(auth_pb.GetPrincipalRequest(), metadata=bearer(new))) is Reason.TOKEN_INVALID


async def test_wrong_passwords_lock_out_known_and_unknown_users_alike(server: RunningServer) -> None:
    auth = auth_service_pb2_grpc.AuthServiceStub(server.channel())
    await server.bootstrap()
    for username in (ROOT, "nobody"):
        outcomes = [
            await reason(auth.Login(auth_pb.LoginRequest(username=username, password="wrong"))) for _ in range(6)
        ]
        assert outcomes == [Reason.CREDENTIALS_INVALID] * 5 + [Reason.LOCKED_OUT]


async def test_logout_ends_the_access_token_at_once(server: RunningServer) -> None:
    auth = auth_service_pb2_grpc.AuthServiceStub(server.channel())
    tokens = await server.bootstrap()
    await auth.Logout(auth_pb.LogoutRequest(), metadata=bearer(tokens))
    call = auth.GetPrincipal(auth_pb.GetPrincipalRequest(), metadata=bearer(tokens))
    assert await reason(call) is Reason.TOKEN_INVALID


async def test_nobody_grants_what_they_lack(server: RunningServer) -> None:
    channel = server.channel()
    root = bearer(await server.bootstrap())
    auth = auth_service_pb2_grpc.AuthServiceStub(channel)
    organizations = organization_service_pb2_grpc.OrganizationServiceStub(channel)
    users = user_service_pb2_grpc.UserServiceStub(channel)
    call = organizations.CreateOrganization(organization_pb.CreateOrganizationRequest(organization_id="clara"))
    assert await reason(call) is Reason.UNAUTHENTICATED
    for name in ("clara", "hilda"):
        request = organization_pb.CreateOrganizationRequest(organization_id=name)
        await organizations.CreateOrganization(request, metadata=root)

    def wanted(name: str, role: str, organization: str = "clara") -> user_pb.CreateUserRequest:
        return user_pb.CreateUserRequest(
            user_id=name, organization=f"organizations/{organization}", roles=[f"roles/{role}"], password=PASSWORD
        )

    await users.CreateUser(wanted("anna", "organization-admin"), metadata=root)
    login = await auth.Login(auth_pb.LoginRequest(username="anna", password=PASSWORD))
    anna = bearer(login.tokens)
    await users.CreateUser(wanted("rosa", "researcher"), metadata=anna)
    assert await reason(users.CreateUser(wanted("max", "root"), metadata=anna)) is Reason.ROLE_EXCEEDS_OWN
    assert await reason(users.CreateUser(wanted("max", "viewer", "hilda"), metadata=anna)) is Reason.PERMISSION_DENIED
    hidden = organization_pb.GetOrganizationRequest(name="organizations/hilda")
    assert await reason(organizations.GetOrganization(hidden, metadata=anna)) is Reason.NOT_FOUND
    listed = await users.ListUsers(user_pb.ListUsersRequest(), metadata=anna)
    assert [each.name for each in listed.users] == ["users/anna", "users/rosa"]
