"""A whole server that is no trial: two hospitals with admins, a root user, everything over the wire."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from vantage.api.admin.v1 import (
    audit_service_pb2_grpc,
    collaboration_service_pb2_grpc,
    membership_service_pb2_grpc,
    node_service_pb2_grpc,
    organization_service_pb2_grpc,
    role_service_pb2_grpc,
    study_service_pb2_grpc,
    user_service_pb2_grpc,
)
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import auth_service_pb2_grpc
from vantage.api.task.v1 import task_service_pb2_grpc
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.server.config import ServerConfig
from vantage.testing.server import PASSWORD, RunningServer, bearer, running_server

Token = tuple[tuple[str, str], ...]


class Hospitals:
    """Stubs of all services, and tokens by user name."""

    def __init__(self, server: RunningServer, root: Token) -> None:
        channel = server.channel()
        self.server = server
        self.tokens: dict[str, Token] = {"root": root}
        self.auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        self.organizations = organization_service_pb2_grpc.OrganizationServiceStub(channel)
        self.users = user_service_pb2_grpc.UserServiceStub(channel)
        self.collaborations = collaboration_service_pb2_grpc.CollaborationServiceStub(channel)
        self.memberships = membership_service_pb2_grpc.MembershipServiceStub(channel)
        self.studies = study_service_pb2_grpc.StudyServiceStub(channel)
        self.nodes = node_service_pb2_grpc.NodeServiceStub(channel)
        self.roles = role_service_pb2_grpc.RoleServiceStub(channel)
        self.audit = audit_service_pb2_grpc.AuditServiceStub(channel)
        self.tasks = task_service_pb2_grpc.TaskServiceStub(channel)

    async def add_organization(self, name: str) -> None:
        request = organization_pb.CreateOrganizationRequest(organization_id=name)
        await self.organizations.CreateOrganization(request, metadata=self.tokens["root"])

    async def add_user(self, name: str, organization: str, *roles: str, by: str = "root") -> None:
        request = user_pb.CreateUserRequest(
            user_id=name,
            organization=f"organizations/{organization}" if organization else "",
            roles=[role if "/" in role else f"roles/{role}" for role in roles],
            password=PASSWORD,
        )
        await self.users.CreateUser(request, metadata=self.tokens[by])
        login = await self.auth.Login(auth_pb.LoginRequest(username=name, password=PASSWORD))
        self.tokens[name] = bearer(login.tokens)


async def reason(call: Any) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason


@pytest.fixture
async def hospitals(tmp_path: Path) -> AsyncIterator[Hospitals]:
    config = ServerConfig(stop_grace_seconds=1)
    async with running_server(tmp_path / "server", config=config) as server:
        made = Hospitals(server, bearer(await server.bootstrap()))
        for name, admin in (("clara", "anna"), ("hilda", "hugo"), ("beatrix", "bea")):
            await made.add_organization(name)
            await made.add_user(admin, name, "organization-admin")
        yield made
