"""The way to a server: address, trust, channel, stubs."""

from __future__ import annotations

import asyncio
import ipaddress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import grpc

from vantage.api.admin.v1 import audit_service_pb2_grpc as audit_grpc
from vantage.api.admin.v1 import collaboration_service_pb2_grpc as collaboration_grpc
from vantage.api.admin.v1 import membership_service_pb2_grpc as membership_grpc
from vantage.api.admin.v1 import node_service_pb2_grpc as node_grpc
from vantage.api.admin.v1 import organization_service_pb2_grpc as organization_grpc
from vantage.api.admin.v1 import role_service_pb2_grpc as role_grpc
from vantage.api.admin.v1 import study_service_pb2_grpc as study_grpc
from vantage.api.admin.v1 import trust_service_pb2_grpc as trust_grpc
from vantage.api.admin.v1 import user_credential_service_pb2_grpc as user_credential_grpc
from vantage.api.admin.v1 import user_service_pb2_grpc as user_grpc
from vantage.api.identity.v1 import auth_service_pb2_grpc as auth_grpc
from vantage.api.identity.v1 import credential_service_pb2_grpc as credential_grpc
from vantage.api.identity.v1 import key_service_pb2_grpc as key_grpc
from vantage.api.task.v1 import task_service_pb2_grpc as task_grpc
from vantage.common.errors import Reason, error
from vantage.common.payload_frames import PayloadStub
from vantage.common.rpc import ServerTrust, normalize_fingerprint, open_channel, split_target


@dataclass(frozen=True)
class ServerAddress:
    """Where a server is and how it is recognised. Neither fingerprint nor ca: the authorities of the system.

    Attributes:
        address: ``host:port``.
        fingerprint: of the server's certificate, as ``vantage server init`` prints it.
        ca: file with the certificate, or the authorities of the certificate, in PEM.
        tls: False for a connection without TLS, which is allowed on loopback only.
    """

    address: str
    fingerprint: str | None = None
    ca: Path | None = None
    tls: bool = True

    def __post_init__(self) -> None:
        host, _port = split_target(self.address)
        if self.fingerprint is not None:
            object.__setattr__(self, "fingerprint", normalize_fingerprint(self.fingerprint))
        if self.fingerprint is not None and self.ca is not None:
            raise error(Reason.CONFIGURATION_INVALID, "give the server's fingerprint or a ca file, not both")
        if not self.tls and not _is_loopback(host):
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"a connection without TLS is allowed on loopback only, not to {host}: give the server's fingerprint",
            )
        if not self.tls and (self.fingerprint is not None or self.ca is not None):
            raise error(
                Reason.CONFIGURATION_INVALID, "without TLS there is no certificate: leave fingerprint and ca out"
            )


class Transport(Protocol):
    """What carries the calls of a client; replace it to carry them otherwise."""

    async def channel(self) -> grpc.aio.Channel:
        """The channel, opened on first use.

        Raises:
            VantageError: the server cannot be reached, or is not the one that is trusted.
        """
        ...

    async def close(self) -> None:
        """End all calls."""
        ...


class GrpcTransport:
    """Carries calls over one HTTP/2 connection, which is made again when it breaks.

    Args:
        server: where to, and whom to trust.
    """

    def __init__(self, server: ServerAddress) -> None:
        self._server = server
        self._channel: grpc.aio.Channel | None = None
        self._lock = asyncio.Lock()

    async def channel(self) -> grpc.aio.Channel:
        """See ``Transport``."""
        async with self._lock:
            if self._channel is None:
                self._channel = open_channel(self._server.address, await self._trust())
            return self._channel

    async def close(self) -> None:
        """See ``Transport``."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _trust(self) -> ServerTrust | None:
        server = self._server
        if not server.tls:
            return None
        if server.fingerprint is not None:
            return await ServerTrust.from_fingerprint(server.address, server.fingerprint)
        if server.ca is None:
            return ServerTrust.system()
        try:
            return ServerTrust.from_pem(await asyncio.to_thread(server.ca.read_bytes))
        except OSError as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"the ca file {server.ca} cannot be read: {problem.strerror}"
            ) from problem


class Stubs:
    """Every service over one channel."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    @cached_property
    def auth(self) -> auth_grpc.AuthServiceStub:
        return auth_grpc.AuthServiceStub(self.channel)

    @cached_property
    def credentials(self) -> credential_grpc.CredentialServiceStub:
        return credential_grpc.CredentialServiceStub(self.channel)

    @cached_property
    def user_credentials(self) -> user_credential_grpc.UserCredentialServiceStub:
        return user_credential_grpc.UserCredentialServiceStub(self.channel)

    @cached_property
    def keys(self) -> key_grpc.KeyServiceStub:
        return key_grpc.KeyServiceStub(self.channel)

    @cached_property
    def trust(self) -> trust_grpc.TrustServiceStub:
        return trust_grpc.TrustServiceStub(self.channel)

    @cached_property
    def tasks(self) -> task_grpc.TaskServiceStub:
        return task_grpc.TaskServiceStub(self.channel)

    @cached_property
    def payloads(self) -> PayloadStub:
        return PayloadStub(self.channel)

    @cached_property
    def organizations(self) -> organization_grpc.OrganizationServiceStub:
        return organization_grpc.OrganizationServiceStub(self.channel)

    @cached_property
    def users(self) -> user_grpc.UserServiceStub:
        return user_grpc.UserServiceStub(self.channel)

    @cached_property
    def collaborations(self) -> collaboration_grpc.CollaborationServiceStub:
        return collaboration_grpc.CollaborationServiceStub(self.channel)

    @cached_property
    def memberships(self) -> membership_grpc.MembershipServiceStub:
        return membership_grpc.MembershipServiceStub(self.channel)

    @cached_property
    def nodes(self) -> node_grpc.NodeServiceStub:
        return node_grpc.NodeServiceStub(self.channel)

    @cached_property
    def roles(self) -> role_grpc.RoleServiceStub:
        return role_grpc.RoleServiceStub(self.channel)

    @cached_property
    def studies(self) -> study_grpc.StudyServiceStub:
        return study_grpc.StudyServiceStub(self.channel)

    @cached_property
    def audit(self) -> audit_grpc.AuditServiceStub:
        return audit_grpc.AuditServiceStub(self.channel)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
