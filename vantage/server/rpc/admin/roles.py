"""Transport of RoleService."""

from __future__ import annotations

from typing import Any

from vantage.api.admin.v1 import role_service_pb2 as pb
from vantage.api.admin.v1 import role_service_pb2_grpc
from vantage.server.domain.roles import Role
from vantage.server.rpc.admin.common import (
    changed_fields,
    permissions_from_proto,
    permissions_to_proto,
    time_to_proto,
)
from vantage.server.rpc.context import current_user
from vantage.server.rpc.paging import fitting
from vantage.server.services.roles import RoleChange, Roles, role_etag

Context = Any


class RoleServicer(role_service_pb2_grpc.RoleServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, roles: Roles) -> None:
        self._roles = roles

    async def CreateRole(self, request: pb.CreateRoleRequest, context: Context) -> pb.CreateRoleResponse:
        made = await self._roles.create(
            current_user(),
            request.organization,
            request.role_id,
            request.description,
            permissions_from_proto(request.permissions),
        )
        return pb.CreateRoleResponse(role=role_to_proto(made))

    async def GetRole(self, request: pb.GetRoleRequest, context: Context) -> pb.GetRoleResponse:
        return pb.GetRoleResponse(role=role_to_proto(await self._roles.get(current_user(), request.name)))

    async def ListRoles(self, request: pb.ListRolesRequest, context: Context) -> pb.ListRolesResponse:
        page = await self._roles.list_page(current_user(), request.page_size, request.page_token)
        roles, token = fitting(page, role_to_proto)
        return pb.ListRolesResponse(roles=roles, next_page_token=token)

    async def UpdateRole(self, request: pb.UpdateRoleRequest, context: Context) -> pb.UpdateRoleResponse:
        wanted = request.role
        fields = changed_fields(request.update_mask, wanted, ("description", "permissions"))
        change = RoleChange(
            wanted.description if "description" in fields else None,
            permissions_from_proto(wanted.permissions) if "permissions" in fields else None,
        )
        changed = await self._roles.update(current_user(), wanted.name, change, wanted.etag)
        return pb.UpdateRoleResponse(role=role_to_proto(changed))

    async def DeleteRole(self, request: pb.DeleteRoleRequest, context: Context) -> pb.DeleteRoleResponse:
        await self._roles.delete(current_user(), request.name)
        return pb.DeleteRoleResponse()


def role_to_proto(role: Role) -> pb.Role:
    """A role to send."""
    return pb.Role(
        name=role.name,
        description=role.description,
        permissions=permissions_to_proto(role.permissions),
        builtin=role.builtin,
        create_time=None if role.builtin else time_to_proto(role.created),
        etag=role_etag(role),
    )
