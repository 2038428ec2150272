"""A whole server with TLS and a clock that the tests move, and one user who logs in."""

from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any

import grpc
import pyotp
import pytest

from vantage.api.admin.v1 import (
    organization_service_pb2,
    organization_service_pb2_grpc,
    user_credential_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import auth_service_pb2_grpc, credential_service_pb2_grpc
from vantage.api.identity.v1 import credential_service_pb2 as credential_pb
from vantage.common.clock import ManualClock
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.testing.server import PASSWORD, RunningServer, bearer

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
Metadata = tuple[tuple[str, str], ...]


async def reason(call: Awaitable[Any]) -> Reason:
    """The reason with which a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason


class World:
    """A server, its clock, and stubs."""

    def __init__(self, server: RunningServer, clock: ManualClock) -> None:
        self.server = server
        self.clock = clock
        channel = server.channel()
        self.auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        self.own = credential_service_pb2_grpc.CredentialServiceStub(channel)
        self.admin = user_credential_service_pb2_grpc.UserCredentialServiceStub(channel)
        self.users = user_service_pb2_grpc.UserServiceStub(channel)
        self.organizations = organization_service_pb2_grpc.OrganizationServiceStub(channel)
        self.root: Metadata = ()

    async def prepare(self) -> None:
        """Root, the organizations clara and hilda, and the researcher rosa of clara."""
        self.root = bearer(await self.server.bootstrap())
        for name in ("clara", "hilda"):
            await self.organizations.CreateOrganization(
                organization_service_pb2.CreateOrganizationRequest(organization_id=name), metadata=self.root
            )
        await self.create("rosa")

    async def create(self, user: str, role: str = "researcher", **fields: Any) -> user_service_pb2.CreateUserResponse:
        """Create a user of clara, unless said otherwise, with the usual password."""
        request = {"organization": "organizations/clara", "roles": [f"roles/{role}"], "password": PASSWORD, **fields}
        return await self.users.CreateUser(
            user_service_pb2.CreateUserRequest(user_id=user, **request), metadata=self.root
        )

    async def login(self, user: str = "rosa", password: str = PASSWORD, code: str = "") -> auth_pb.TokenPair:
        """Log in and return the tokens."""
        answer = await self.auth.Login(auth_pb.LoginRequest(username=user, password=password, one_time_code=code))
        return answer.tokens

    async def enrol(self, me: Metadata) -> tuple[pyotp.TOTP, list[str]]:
        """Enrol one-time codes; returns the app and the recovery codes."""
        begun = await self.own.BeginOneTimeCodes(credential_pb.BeginOneTimeCodesRequest(password=PASSWORD), metadata=me)
        app = pyotp.parse_uri(begun.uri)
        assert isinstance(app, pyotp.TOTP)
        assert app.secret == begun.secret
        confirmed = await self.own.ConfirmOneTimeCodes(
            credential_pb.ConfirmOneTimeCodesRequest(one_time_code=self.code(app)), metadata=me
        )
        return app, list(confirmed.recovery_codes)

    def code(self, app: pyotp.TOTP) -> str:
        """What the app shows now."""
        return app.at(self.clock.now())

    async def who(self, me: Metadata) -> str:
        """The name of the caller, as the server knows it."""
        answer = await self.auth.GetPrincipal(auth_pb.GetPrincipalRequest(), metadata=me)
        return str(answer.name)
