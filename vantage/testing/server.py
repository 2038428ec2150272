"""A whole server in this process: real socket, TLS, port chosen by the system."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from argon2 import PasswordHasher

from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.common.clock import Clock
from vantage.common.rpc import ServerTrust, open_channel
from vantage.server.app import Server, build_server, initialize
from vantage.server.certificate import CERTIFICATE_FILE, fingerprint
from vantage.server.config import ServerConfig

ROOT = "root"
PASSWORD = "correct horse battery staple"  # noqa: S105  # of throw-away servers
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
"""Each password costs 0.1 s on purpose, on every core; where it is not what is tested, it costs nothing."""


class RunningServer:
    """A server that listens.

    Attributes:
        address: ``host:port``.
        mtls_address: that of mutual TLS; empty when the configuration names none.
        trust: how a client recognises it; None without TLS.
        fingerprint: of its certificate.
        bootstrap_token: for the first user; empty when the data directory existed.
    """

    def __init__(self, server: Server, bootstrap_token: str, *, tls: bool) -> None:
        self.server = server
        self.address = server.address
        self.mtls_address = server.mtls_address
        self.fingerprint = fingerprint(server.data)
        self.bootstrap_token = bootstrap_token
        self.trust = ServerTrust.from_pem((server.data / CERTIFICATE_FILE).read_bytes()) if tls else None
        self._channels: list[grpc.aio.Channel] = []

    def channel(self) -> grpc.aio.Channel:
        """A new channel, closed with the server."""
        channel = open_channel(self.address, self.trust, options=[("grpc.use_local_subchannel_pool", 1)])
        self._channels.append(channel)
        return channel

    async def bootstrap(self, username: str = ROOT, password: str = PASSWORD) -> auth_service_pb2.TokenPair:
        """Create the first user, with role root, and return their tokens."""
        stub = auth_service_pb2_grpc.AuthServiceStub(self.channel())
        answer = await stub.Bootstrap(
            auth_service_pb2.BootstrapRequest(
                bootstrap_token=self.bootstrap_token, username=username, password=password
            )
        )
        return answer.tokens

    async def close_channels(self) -> None:
        """Close what ``channel`` opened."""
        for channel in self._channels:
            await channel.close()
        self._channels = []


@asynccontextmanager
async def running_server(
    data: Path,
    *,
    tls: bool = True,
    clock: Clock | None = None,
    config: ServerConfig | None = None,
    hasher: PasswordHasher | None = CHEAP,
) -> AsyncIterator[RunningServer]:
    """Start a server over a data directory, which is made when it is not there, and stop it in the end.

    Args:
        data: its directory.
        tls: with or without.
        clock: instead of the system's.
        config: instead of a default.
        hasher: of passwords; None for that of real servers.
    """
    token = (
        ""
        if (data / "server.yaml").exists()
        else initialize(data, config or ServerConfig(stop_grace_seconds=1, trial=True))
    )
    server = build_server(data, listen="127.0.0.1:0", tls=tls, clock=clock, config=config, hasher=hasher)
    await server.start()
    running = RunningServer(server, token, tls=tls)
    try:
        yield running
    finally:
        await running.close_channels()
        await server.stop()


def bearer(tokens: auth_service_pb2.TokenPair) -> tuple[tuple[str, str], ...]:
    """Metadata of a call by whoever holds the tokens."""
    return (("authorization", f"Bearer {tokens.access_token}"),)
