"""Pull tokens of the server, for registries that trust it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import grpc

from vantage.api.node.v1 import registry_service_pb2 as pb
from vantage.api.node.v1 import registry_service_pb2_grpc
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, UnauthenticatedError, VantageError, error
from vantage.common.rpc import error_from_rpc
from vantage.node.config import NodeConfig
from vantage.node.connection import Connection, FatalError
from vantage.node.identity import Identity

_TIMEOUT = 20.0


class ServerTokens:
    """Asks the server for a token each time a registry wants one; keeps ``registry_auth.Tokens``."""

    def __init__(self) -> None:
        self._connection: Connection | None = None

    @classmethod
    @asynccontextmanager
    async def of(cls, config: NodeConfig) -> AsyncIterator[Self]:
        """Those of a node's server, for a command beside the node.

        Raises:
            VantageError: a registry needs them, and the node's identity is not usable.
        """
        made = cls()
        if not any(each.server_tokens for each in config.registries):
            yield made
            return
        connection = Connection(config.server, Identity.load(config.identity, SystemClock()), SystemClock())
        made.through(connection)
        try:
            yield made
        finally:
            await connection.close()

    def through(self, connection: Connection) -> None:
        """From now on ask by this connection."""
        self._connection = connection

    async def __call__(self, registry: str, repository: str) -> str:
        """A token to pull from a repository.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE, the server gives none or cannot be asked now.
        """
        if self._connection is None:
            raise error(Reason.REGISTRY_UNAVAILABLE, f"tokens for {registry} come from the server: start the node")
        try:
            stub = registry_service_pb2_grpc.RegistryServiceStub(await self._connection.channel())
            answer = await stub.GetPullToken(
                pb.GetPullTokenRequest(registry=registry, repository=repository),
                metadata=await self._connection.metadata(),
                timeout=_TIMEOUT,
            )
        except grpc.aio.AioRpcError as problem:
            cause = error_from_rpc(problem)
            if isinstance(cause, UnauthenticatedError):
                self._connection.token_refused()
            raise _unavailable(registry, cause.message) from problem
        except FatalError as problem:
            # Whether the node ends for this is decided elsewhere.
            raise _unavailable(registry, str(problem)) from problem
        return answer.token


def _unavailable(registry: str, why: str) -> VantageError:
    return error(
        Reason.REGISTRY_UNAVAILABLE, f"the registry {registry} cannot be used without a token: {why}", registry=registry
    )
