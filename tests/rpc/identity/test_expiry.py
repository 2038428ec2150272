"""Tokens end when they said they would."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.common.clock import ManualClock
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.testing.server import bearer, running_server


async def test_expired_tokens_are_refused_and_the_refresh_token_outlives_the_access_token(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 11, 1, tzinfo=UTC))
    async with running_server(tmp_path / "server", clock=clock) as server:
        auth = auth_service_pb2_grpc.AuthServiceStub(server.channel())
        me = auth_service_pb2.GetPrincipalRequest()
        tokens = await server.bootstrap()
        clock.advance(timedelta(minutes=14))
        await auth.GetPrincipal(me, metadata=bearer(tokens))
        clock.advance(timedelta(minutes=1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await auth.GetPrincipal(me, metadata=bearer(tokens))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert error_from_rpc(caught.value).reason is Reason.TOKEN_EXPIRED
        refresh = auth_service_pb2.RefreshTokenRequest(refresh_token=tokens.refresh_token)
        tokens = (await auth.RefreshToken(refresh)).tokens
        await auth.GetPrincipal(me, metadata=bearer(tokens))
        clock.advance(timedelta(days=14))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await auth.RefreshToken(auth_service_pb2.RefreshTokenRequest(refresh_token=tokens.refresh_token))
        assert error_from_rpc(caught.value).reason is Reason.TOKEN_EXPIRED
