"""Transport of UserService."""

from __future__ import annotations

from typing import Any

from vantage.api.admin.v1 import user_service_pb2 as pb
from vantage.api.admin.v1 import user_service_pb2_grpc
from vantage.common.errors import Reason, error
from vantage.server.domain.principals import UserKind
from vantage.server.rpc.admin.common import changed_fields, time_to_proto
from vantage.server.rpc.context import current_user
from vantage.server.rpc.paging import fitting
from vantage.server.services.users import UserChange, Users
from vantage.server.storage.user_store import User

Context = Any


class UserServicer(user_service_pb2_grpc.UserServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, users: Users) -> None:
        self._users = users

    async def CreateUser(self, request: pb.CreateUserRequest, context: Context) -> pb.CreateUserResponse:
        made, reset_token = await self._users.create(
            current_user(),
            request.user_id,
            request.organization,
            request.roles,
            request.display_name,
            request.password,
            _kind(request.kind),
        )
        return pb.CreateUserResponse(user=user_to_proto(made), reset_token=reset_token)

    async def GetUser(self, request: pb.GetUserRequest, context: Context) -> pb.GetUserResponse:
        return pb.GetUserResponse(user=user_to_proto(await self._users.get(current_user(), request.name)))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Context) -> pb.ListUsersResponse:
        page = await self._users.list_page(current_user(), request.page_size, request.page_token, request.organization)
        users, token = fitting(page, user_to_proto)
        return pb.ListUsersResponse(users=users, next_page_token=token)

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Context) -> pb.UpdateUserResponse:
        wanted = request.user
        fields = changed_fields(request.update_mask, wanted, ("display_name", "roles"))
        change = UserChange(
            wanted.display_name if "display_name" in fields else None,
            tuple(wanted.roles) if "roles" in fields else None,
        )
        changed = await self._users.update(current_user(), wanted.name, change, wanted.etag)
        return pb.UpdateUserResponse(user=user_to_proto(changed))

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Context) -> pb.DeleteUserResponse:
        await self._users.delete(current_user(), request.name)
        return pb.DeleteUserResponse()


def _kind(kind: int) -> UserKind:
    try:
        return UserKind(kind or UserKind.PERSON.value)
    except ValueError:
        raise error(Reason.INVALID_ARGUMENT, "kind must be a known kind of users", field="kind") from None


def user_to_proto(each: User) -> pb.User:
    """A user to send."""
    return pb.User(
        name=each.name,
        organization=each.organization or "",
        roles=each.roles,
        display_name=each.display_name,
        create_time=time_to_proto(each.created),
        etag=each.etag,
        kind=pb.UserKind.ValueType(each.kind.value),
    )
