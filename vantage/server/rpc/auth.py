"""Transport of AuthService."""

from __future__ import annotations

from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2

import vantage
from vantage.api.identity.v1 import auth_service_pb2 as pb
from vantage.api.identity.v1 import auth_service_pb2_grpc
from vantage.server.config import IdentityProviderConfig, ServerConfig
from vantage.server.domain.audit import note
from vantage.server.domain.principals import UserPrincipal
from vantage.server.rpc.context import current_principal, current_user, peer_address
from vantage.server.services.assertions import Assertions
from vantage.server.services.auth import Auth
from vantage.server.services.identities import Identities
from vantage.server.services.logins import Logins, Tokens

Context = Any


class AuthServicer(auth_service_pb2_grpc.AuthServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(
        self, auth: Auth, logins: Logins, assertions: Assertions, identities: Identities, config: ServerConfig
    ) -> None:
        self._auth = auth
        self._logins = logins
        self._assertions = assertions
        self._identities = identities
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
            identity_provider=_provider(self._config.identity_provider),
        )

    async def Bootstrap(self, request: pb.BootstrapRequest, context: Context) -> pb.BootstrapResponse:
        tokens = await self._auth.bootstrap(
            request.bootstrap_token, request.username, request.password, peer_address(context)
        )
        return pb.BootstrapResponse(user=tokens.principal, tokens=_pair(tokens))

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.LoginResponse:
        note(f"users/{request.username}")
        tokens = await self._auth.login(
            request.username, request.password, request.one_time_code, peer_address(context)
        )
        return pb.LoginResponse(user=tokens.principal, tokens=_pair(tokens))

    async def RefreshToken(self, request: pb.RefreshTokenRequest, context: Context) -> pb.RefreshTokenResponse:
        tokens = await self._logins.refresh(request.refresh_token, request.request_id)
        return pb.RefreshTokenResponse(tokens=_pair(tokens))

    async def ExchangeAssertion(
        self, request: pb.ExchangeAssertionRequest, context: Context
    ) -> pb.ExchangeAssertionResponse:
        tokens = await self._assertions.exchange(request.assertion, peer_address(context))
        return pb.ExchangeAssertionResponse(principal=tokens.principal, tokens=_pair(tokens))

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> pb.LogoutResponse:
        ended = await self._logins.logout(current_user(), all_sessions=request.all_sessions)
        return pb.LogoutResponse(ended_sessions=ended)

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> pb.ChangePasswordResponse:
        ended = await self._auth.change_password(
            current_user(), request.current_password, request.new_password, request.one_time_code
        )
        return pb.ChangePasswordResponse(ended_sessions=ended)

    async def GetLoginNonce(self, request: pb.GetLoginNonceRequest, context: Context) -> pb.GetLoginNonceResponse:
        nonce, expires = self._identities.begin()
        stamp = timestamp_pb2.Timestamp()
        stamp.FromDatetime(expires)
        return pb.GetLoginNonceResponse(nonce=nonce, expire_time=stamp)

    async def ExchangeIdentityToken(
        self, request: pb.ExchangeIdentityTokenRequest, context: Context
    ) -> pb.ExchangeIdentityTokenResponse:
        tokens = await self._identities.exchange(request.nonce, request.id_token, peer_address(context))
        return pb.ExchangeIdentityTokenResponse(user=tokens.principal, tokens=_pair(tokens))

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Context) -> pb.ResetPasswordResponse:
        return pb.ResetPasswordResponse(user=await self._auth.reset_password(request.reset_token, request.new_password))

    async def GetPrincipal(self, request: pb.GetPrincipalRequest, context: Context) -> pb.GetPrincipalResponse:
        principal = current_principal()
        roles = sorted(principal.roles) if isinstance(principal, UserPrincipal) else ()
        return pb.GetPrincipalResponse(
            name=principal.name,
            organization=principal.organization or "",
            roles=roles,
            collaborations=sorted(principal.collaborations),
        )


def _provider(config: IdentityProviderConfig | None) -> pb.IdentityProvider | None:
    if config is None:
        return None
    return pb.IdentityProvider(issuer=config.issuer, client_id=config.client_id, scopes=config.scopes)


def _pair(tokens: Tokens) -> pb.TokenPair:
    access, refresh = duration_pb2.Duration(), duration_pb2.Duration()
    access.FromTimedelta(tokens.access_lifetime)
    refresh.FromTimedelta(tokens.refresh_lifetime)
    note(tokens.principal)
    return pb.TokenPair(
        access_token=tokens.access,
        access_expires_in=access,
        refresh_token=tokens.refresh,
        refresh_expires_in=refresh if tokens.refresh else None,
    )
