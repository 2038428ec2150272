"""Transport of the admin services."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf import timestamp_pb2

from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import (
    collaboration_service_pb2_grpc,
    node_service_pb2_grpc,
    organization_service_pb2_grpc,
    role_service_pb2_grpc,
    user_service_pb2_grpc,
)
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import role_service_pb2 as role_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.node.v1 import node_session_service_pb2 as session_pb
from vantage.server.domain.permissions import ROLES
from vantage.server.rpc.context import current_principal, current_user
from vantage.server.services.collaborations import Collaborations
from vantage.server.services.nodes import Known, Nodes
from vantage.server.services.organizations import Organizations
from vantage.server.services.users import Users
from vantage.server.storage import pages
from vantage.server.storage.organization_store import Collaboration, Organization
from vantage.server.storage.user_store import User

Context = Any


class OrganizationServicer(organization_service_pb2_grpc.OrganizationServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, organizations: Organizations) -> None:
        self._organizations = organizations

    async def CreateOrganization(
        self, request: organization_pb.CreateOrganizationRequest, context: Context
    ) -> organization_pb.CreateOrganizationResponse:
        made = await self._organizations.create(
            current_user(), request.organization_id, request.display_name, request.ca_certificates
        )
        return organization_pb.CreateOrganizationResponse(organization=_organization(made))

    async def GetOrganization(
        self, request: organization_pb.GetOrganizationRequest, context: Context
    ) -> organization_pb.GetOrganizationResponse:
        found = await self._organizations.get(current_principal(), request.name)
        return organization_pb.GetOrganizationResponse(organization=_organization(found))

    async def ListOrganizations(
        self, request: organization_pb.ListOrganizationsRequest, context: Context
    ) -> organization_pb.ListOrganizationsResponse:
        page, token = await self._organizations.list_page(current_user(), request.page_size, request.page_token)
        return organization_pb.ListOrganizationsResponse(
            organizations=[_organization(each) for each in page], next_page_token=token
        )

    async def DeleteOrganization(
        self, request: organization_pb.DeleteOrganizationRequest, context: Context
    ) -> organization_pb.DeleteOrganizationResponse:
        await self._organizations.delete(current_user(), request.name)
        return organization_pb.DeleteOrganizationResponse()

    async def SetCaCertificates(
        self, request: organization_pb.SetCaCertificatesRequest, context: Context
    ) -> organization_pb.SetCaCertificatesResponse:
        changed = await self._organizations.set_certificates(current_user(), request.name, request.ca_certificates)
        return organization_pb.SetCaCertificatesResponse(organization=_organization(changed))


class CollaborationServicer(collaboration_service_pb2_grpc.CollaborationServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, collaborations: Collaborations) -> None:
        self._collaborations = collaborations

    async def CreateCollaboration(
        self, request: collaboration_pb.CreateCollaborationRequest, context: Context
    ) -> collaboration_pb.CreateCollaborationResponse:
        made = await self._collaborations.create(
            current_user(), request.collaboration_id, request.display_name, request.organizations
        )
        return collaboration_pb.CreateCollaborationResponse(collaboration=_collaboration(made))

    async def GetCollaboration(
        self, request: collaboration_pb.GetCollaborationRequest, context: Context
    ) -> collaboration_pb.GetCollaborationResponse:
        found = await self._collaborations.get(current_principal(), request.name)
        return collaboration_pb.GetCollaborationResponse(collaboration=_collaboration(found))

    async def ListCollaborations(
        self, request: collaboration_pb.ListCollaborationsRequest, context: Context
    ) -> collaboration_pb.ListCollaborationsResponse:
        page, token = await self._collaborations.list_page(current_user(), request.page_size, request.page_token)
        return collaboration_pb.ListCollaborationsResponse(
            collaborations=[_collaboration(each) for each in page], next_page_token=token
        )

    async def DeleteCollaboration(
        self, request: collaboration_pb.DeleteCollaborationRequest, context: Context
    ) -> collaboration_pb.DeleteCollaborationResponse:
        await self._collaborations.delete(current_user(), request.name)
        return collaboration_pb.DeleteCollaborationResponse()

    async def AddMember(
        self, request: collaboration_pb.AddMemberRequest, context: Context
    ) -> collaboration_pb.AddMemberResponse:
        changed = await self._collaborations.set_member(current_user(), request.name, request.organization, member=True)
        return collaboration_pb.AddMemberResponse(collaboration=_collaboration(changed))

    async def RemoveMember(
        self, request: collaboration_pb.RemoveMemberRequest, context: Context
    ) -> collaboration_pb.RemoveMemberResponse:
        changed = await self._collaborations.set_member(
            current_user(), request.name, request.organization, member=False
        )
        return collaboration_pb.RemoveMemberResponse(collaboration=_collaboration(changed))


class NodeServicer(node_service_pb2_grpc.NodeServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes

    async def CreateNode(self, request: node_pb.CreateNodeRequest, context: Context) -> node_pb.CreateNodeResponse:
        made = await self._nodes.create(current_user(), request.organization, request.node_id, request.collaborations)
        return node_pb.CreateNodeResponse(node=_node(made))

    async def GetNode(self, request: node_pb.GetNodeRequest, context: Context) -> node_pb.GetNodeResponse:
        return node_pb.GetNodeResponse(node=_node(await self._nodes.get(current_principal(), request.name)))

    async def ListNodes(self, request: node_pb.ListNodesRequest, context: Context) -> node_pb.ListNodesResponse:
        page, token = await self._nodes.list_page(
            current_user(), request.page_size, request.page_token, request.organization, request.collaboration
        )
        return node_pb.ListNodesResponse(nodes=[_node(each) for each in page], next_page_token=token)

    async def DeleteNode(self, request: node_pb.DeleteNodeRequest, context: Context) -> node_pb.DeleteNodeResponse:
        await self._nodes.delete(current_user(), request.name)
        return node_pb.DeleteNodeResponse()


class UserServicer(user_service_pb2_grpc.UserServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, users: Users) -> None:
        self._users = users

    async def CreateUser(self, request: user_pb.CreateUserRequest, context: Context) -> user_pb.CreateUserResponse:
        made = await self._users.create(
            current_user(),
            request.user_id,
            request.organization,
            request.roles,
            request.display_name,
            request.password,
        )
        return user_pb.CreateUserResponse(user=_user(made))

    async def GetUser(self, request: user_pb.GetUserRequest, context: Context) -> user_pb.GetUserResponse:
        return user_pb.GetUserResponse(user=_user(await self._users.get(current_user(), request.name)))

    async def ListUsers(self, request: user_pb.ListUsersRequest, context: Context) -> user_pb.ListUsersResponse:
        page, token = await self._users.list_page(
            current_user(), request.page_size, request.page_token, request.organization
        )
        return user_pb.ListUsersResponse(users=[_user(each) for each in page], next_page_token=token)

    async def DeleteUser(self, request: user_pb.DeleteUserRequest, context: Context) -> user_pb.DeleteUserResponse:
        await self._users.delete(current_user(), request.name)
        return user_pb.DeleteUserResponse()


class RoleServicer(role_service_pb2_grpc.RoleServiceServicer):
    """Roles are part of the release."""

    async def ListRoles(self, request: role_pb.ListRolesRequest, context: Context) -> role_pb.ListRolesResponse:
        size, after = pages.page_size(request.page_size), pages.decode(request.page_token, "roles")
        rows = [role for name, role in sorted(ROLES.items()) if after is None or name > after]
        page, token = pages.cut(rows[: size + 1], size, "roles", lambda each: each.name)
        roles = []
        for role in page:
            message = role_pb.Role(name=role.name, description=role.description)
            for each in sorted(role.permissions, key=lambda p: (p.resource.value, p.operation.value, p.scope)):
                message.permissions.add(
                    resource=each.resource.value,
                    operation=each.operation.value,
                    scope=each.scope.value,
                )
            roles.append(message)
        return role_pb.ListRolesResponse(roles=roles, next_page_token=token)


def _time(value: datetime) -> timestamp_pb2.Timestamp:
    message = timestamp_pb2.Timestamp()
    message.FromDatetime(value)
    return message


def _organization(each: Organization) -> organization_pb.Organization:
    return organization_pb.Organization(
        name=each.name,
        display_name=each.display_name,
        ca_certificates=each.ca_certificates,
        create_time=_time(each.created),
    )


def _collaboration(each: Collaboration) -> collaboration_pb.Collaboration:
    return collaboration_pb.Collaboration(
        name=each.name,
        display_name=each.display_name,
        organizations=each.organizations,
        create_time=_time(each.created),
    )


def _node(known: Known) -> node_pb.Node:
    node, presence = known
    return node_pb.Node(
        name=node.name,
        collaborations=node.collaborations,
        online=presence.online,
        last_seen_time=None if presence.last_seen is None else _time(presence.last_seen),
        datasets=[session_pb.DatasetInfo(name=name, format=kind) for name, kind in presence.datasets],
        version=presence.version,
        create_time=_time(node.created),
    )


def _user(each: User) -> user_pb.User:
    return user_pb.User(
        name=each.name,
        organization=each.organization or "",
        roles=each.roles,
        display_name=each.display_name,
        create_time=_time(each.created),
    )
