"""Transport of AuthService."""

from __future__ import annotations

from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

import vantage
from vantage.api.identity.v1 import auth_service_pb2 as pb
from vantage.api.identity.v1 import auth_service_pb2_grpc
from vantage.server.config import ServerConfig
from vantage.server.domain.principals import UserPrincipal
from vantage.server.rpc.context import current_principal, current_user
from vantage.server.services.auth import Auth, Tokens

Context = Any


class AuthServicer(auth_service_pb2_grpc.AuthServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, auth: Auth, config: ServerConfig) -> None:
        self._auth = auth
        self._config = config

    async def GetServerInfo(self, request: pb.GetServerInfoRequest, context: Context) -> pb.GetServerInfoResponse:
        now = timestamp_pb2.Timestamp()
        now.FromDatetime(self._auth.clock.now())
        return pb.GetServerInfoResponse(
            version=vantage.__version__,
            audience=self._auth.audience,
            max_inline_payload_bytes=self._config.max_inline_payload_bytes,
            max_payload_bytes=self._config.max_payload_bytes,
            server_time=now,
            bootstrap_pending=await self._auth.bootstrap_pending(),
        )

    async def Bootstrap(self, request: pb.BootstrapRequest, context: Context) -> pb.BootstrapResponse:
        tokens = await self._auth.bootstrap(request.bootstrap_token, request.username, request.password)
        return pb.BootstrapResponse(user=tokens.principal, tokens=_pair(tokens))

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.LoginResponse:
        tokens = await self._auth.login(request.username, request.password)
        return pb.LoginResponse(user=tokens.principal, tokens=_pair(tokens))

    async def RefreshToken(self, request: pb.RefreshTokenRequest, context: Context) -> pb.RefreshTokenResponse:
        return pb.RefreshTokenResponse(tokens=_pair(await self._auth.refresh(request.refresh_token)))

    async def ExchangeAssertion(
        self, request: pb.ExchangeAssertionRequest, context: Context
    ) -> pb.ExchangeAssertionResponse:
        tokens = await self._auth.exchange(request.assertion)
        return pb.ExchangeAssertionResponse(principal=tokens.principal, tokens=_pair(tokens))

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> pb.LogoutResponse:
        ended = await self._auth.logout(current_user(), all_sessions=request.all_sessions)
        return pb.LogoutResponse(ended_sessions=ended)

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> pb.ChangePasswordResponse:
        ended = await self._auth.change_password(current_user(), request.current_password, request.new_password)
        return pb.ChangePasswordResponse(ended_sessions=ended)

    async def GetPrincipal(self, request: pb.GetPrincipalRequest, context: Context) -> pb.GetPrincipalResponse:
        principal = current_principal()
        roles = sorted(principal.roles) if isinstance(principal, UserPrincipal) else ()
        return pb.GetPrincipalResponse(
            name=principal.name,
            organization=principal.organization or "",
            roles=roles,
            collaborations=sorted(principal.collaborations),
        )


def _pair(tokens: Tokens) -> pb.TokenPair:
    access, refresh = duration_pb2.Duration(), duration_pb2.Duration()
    access.FromTimedelta(tokens.access_lifetime)
    refresh.FromTimedelta(tokens.refresh_lifetime)
    return pb.TokenPair(
        access_token=tokens.access,
        access_expires_in=access,
        refresh_token=tokens.refresh,
        refresh_expires_in=refresh if tokens.refresh else None,
    )
