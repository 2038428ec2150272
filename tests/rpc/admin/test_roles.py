"""Custom roles on a whole server: nobody makes, changes or gives what they lack."""

from __future__ import annotations

from google.protobuf.field_mask_pb2 import FieldMask

from vantage.api.access.v1 import access_pb2
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import role_service_pb2 as pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.common.errors import Reason
from vantage.testing.server import PASSWORD

from .conftest import Hospitals, reason

CLARA, HILDA = "organizations/clara", "organizations/hilda"
VIEW, CREATE, EDIT = access_pb2.OPERATION_VIEW, access_pb2.OPERATION_CREATE, access_pb2.OPERATION_EDIT


def permission(resource: str, operation: access_pb2.Operation.ValueType, scope: str) -> pb.Permission:
    return pb.Permission(
        resource=access_pb2.Resource.Value(f"RESOURCE_{resource}"),
        operation=operation,
        scope=pb.Scope.Value(f"SCOPE_{scope}"),
    )


def role(role_id: str, *permissions: pb.Permission, organization: str = CLARA) -> pb.CreateRoleRequest:
    return pb.CreateRoleRequest(organization=organization, role_id=role_id, permissions=permissions)


def user(name: str, role: str, organization: str = CLARA) -> user_pb.CreateUserRequest:
    return user_pb.CreateUserRequest(user_id=name, organization=organization, roles=[role], password=PASSWORD)


async def test_an_admin_makes_a_role_and_gives_it(hospitals: Hospitals) -> None:
    anna = hospitals.tokens["anna"]
    request = role("helpdesk", permission("USER", VIEW, "ORGANIZATION"), permission("USER", CREATE, "ORGANIZATION"))
    made = (await hospitals.roles.CreateRole(request, metadata=anna)).role
    assert made.name == f"{CLARA}/roles/helpdesk"
    await hospitals.add_user("hanna", "clara", made.name, by="anna")
    listed = await hospitals.users.ListUsers(user_pb.ListUsersRequest(), metadata=hospitals.tokens["hanna"])
    assert [each.name for each in listed.users] == ["users/anna", "users/hanna"]
    # Whoever may create users still gives nothing that they lack.
    given = hospitals.users.CreateUser(user("max", "roles/researcher"), metadata=hospitals.tokens["hanna"])
    assert await reason(given) is Reason.ROLE_EXCEEDS_OWN
    assert await reason(hospitals.roles.CreateRole(request, metadata=anna)) is Reason.ALREADY_EXISTS


async def test_nobody_makes_a_role_beyond_their_own(hospitals: Hospitals) -> None:
    anna = hospitals.tokens["anna"]
    for request, expected in (
        (role("spy", permission("USER", VIEW, "GLOBAL")), Reason.ROLE_EXCEEDS_OWN),
        (role("spy", permission("ORGANIZATION", CREATE, "OWN")), Reason.ROLE_EXCEEDS_OWN),
        (role("spy", permission("USER", VIEW, "OWN"), organization=HILDA), Reason.PERMISSION_DENIED),
        (role("spy", permission("USER", VIEW, "OWN"), organization=""), Reason.PERMISSION_DENIED),
        (role("spy", pb.Permission(resource=access_pb2.RESOURCE_USER)), Reason.INVALID_ARGUMENT),
    ):
        assert await reason(hospitals.roles.CreateRole(request, metadata=anna)) is expected


async def test_a_role_of_one_organization_is_none_elsewhere(hospitals: Hospitals) -> None:
    made = await hospitals.roles.CreateRole(role("helpdesk"), metadata=hospitals.tokens["anna"])
    name, hugo = made.role.name, hospitals.tokens["hugo"]
    assert await reason(hospitals.roles.GetRole(pb.GetRoleRequest(name=name), metadata=hugo)) is Reason.NOT_FOUND
    given = hospitals.users.CreateUser(user("max", name, HILDA), metadata=hospitals.tokens["root"])
    assert await reason(given) is Reason.INVALID_ARGUMENT
    for fixed in ("roles/node", "roles/algorithm", "roles/none"):
        given = hospitals.users.CreateUser(user("max", fixed), metadata=hospitals.tokens["root"])
        assert await reason(given) is Reason.INVALID_ARGUMENT


async def test_a_change_counts_at_once_and_gives_no_more_than_one_has(hospitals: Hospitals) -> None:
    anna, root = hospitals.tokens["anna"], hospitals.tokens["root"]
    made = (await hospitals.roles.CreateRole(role("helpdesk"), metadata=anna)).role
    await hospitals.add_user("hanna", "clara", made.name, by="anna")
    hanna = hospitals.tokens["hanna"]
    listing = hospitals.users.ListUsers(user_pb.ListUsersRequest(), metadata=hanna)
    assert await reason(listing) is Reason.PERMISSION_DENIED

    def change(*permissions: pb.Permission, etag: str = "") -> pb.UpdateRoleRequest:
        wanted = pb.Role(name=made.name, permissions=permissions, etag=etag)
        return pb.UpdateRoleRequest(role=wanted, update_mask=FieldMask(paths=["permissions"]))

    view = permission("USER", VIEW, "ORGANIZATION")
    changed = (await hospitals.roles.UpdateRole(change(view, etag=made.etag), metadata=anna)).role
    await hospitals.users.ListUsers(user_pb.ListUsersRequest(), metadata=hanna)
    stale = hospitals.roles.UpdateRole(change(etag=made.etag), metadata=anna)
    assert await reason(stale) is Reason.ETAG_MISMATCH
    assert changed.etag != made.etag
    # Neither for oneself nor for others: an admin cannot put in what they lack, nor take out what they do not hold.
    beyond = permission("USER", VIEW, "GLOBAL")
    assert await reason(hospitals.roles.UpdateRole(change(beyond), metadata=anna)) is Reason.ROLE_EXCEEDS_OWN
    await hospitals.roles.UpdateRole(change(beyond), metadata=root)
    assert await reason(hospitals.roles.UpdateRole(change(), metadata=anna)) is Reason.ROLE_EXCEEDS_OWN
    assert (
        await reason(hospitals.roles.DeleteRole(pb.DeleteRoleRequest(name=made.name), metadata=root)) is Reason.IN_USE
    )
    await hospitals.users.DeleteUser(user_pb.DeleteUserRequest(name="users/hanna"), metadata=root)
    await hospitals.roles.DeleteRole(pb.DeleteRoleRequest(name=made.name), metadata=root)


async def test_roles_that_come_with_the_server_stay(hospitals: Hospitals) -> None:
    root = hospitals.tokens["root"]
    wanted = pb.Role(name="roles/researcher", description="changed")
    change = hospitals.roles.UpdateRole(pb.UpdateRoleRequest(role=wanted), metadata=root)
    assert await reason(change) is Reason.PERMISSION_DENIED
    delete = hospitals.roles.DeleteRole(pb.DeleteRoleRequest(name="roles/viewer"), metadata=root)
    assert await reason(delete) is Reason.PERMISSION_DENIED
    again = hospitals.roles.CreateRole(role("researcher", organization=""), metadata=root)
    assert await reason(again) is Reason.ALREADY_EXISTS
    listed = (await hospitals.roles.ListRoles(pb.ListRolesRequest(), metadata=hospitals.tokens["hugo"])).roles
    assert {each.name for each in listed if each.builtin} >= {"roles/root", "roles/node", "roles/algorithm"}


async def test_what_is_given_to_other_organizations_must_be_held_globally(hospitals: Hospitals) -> None:
    """Else: make a user elsewhere with the same words, log in as them, and reach what one never reached."""
    root = hospitals.tokens["root"]
    makes_users = role("recruiter", permission("USER", CREATE, "GLOBAL"), organization="")
    await hospitals.roles.CreateRole(makes_users, metadata=root)
    await hospitals.add_user("rita", "clara", "roles/recruiter", "roles/researcher")
    rita = hospitals.tokens["rita"]
    await hospitals.users.CreateUser(user("one", "roles/researcher", CLARA), metadata=rita)
    abroad = hospitals.users.CreateUser(user("two", "roles/researcher", HILDA), metadata=rita)
    assert await reason(abroad) is Reason.ROLE_EXCEEDS_OWN


async def test_users_change_and_the_last_root_stays(hospitals: Hospitals) -> None:
    anna, root = hospitals.tokens["anna"], hospitals.tokens["root"]
    await hospitals.add_user("rosa", "clara", "viewer", by="anna")
    seen = (await hospitals.users.GetUser(user_pb.GetUserRequest(name="users/rosa"), metadata=anna)).user
    wanted = user_pb.User(name=seen.name, roles=["roles/researcher"], etag=seen.etag)
    request = user_pb.UpdateUserRequest(user=wanted, update_mask=FieldMask(paths=["roles"]))
    changed = (await hospitals.users.UpdateUser(request, metadata=anna)).user
    assert (list(changed.roles), changed.display_name) == (["roles/researcher"], seen.display_name)
    assert await reason(hospitals.users.UpdateUser(request, metadata=anna)) is Reason.ETAG_MISMATCH
    request = user_pb.UpdateUserRequest(user=wanted, update_mask=FieldMask(paths=["organization"]))
    assert await reason(hospitals.users.UpdateUser(request, metadata=anna)) is Reason.INVALID_ARGUMENT
    more = user_pb.User(name=seen.name, roles=["roles/root"])
    refused = hospitals.users.UpdateUser(user_pb.UpdateUserRequest(user=more), metadata=anna)
    assert await reason(refused) is Reason.ROLE_EXCEEDS_OWN
    delete = hospitals.users.DeleteUser(user_pb.DeleteUserRequest(name="users/root"), metadata=root)
    assert await reason(delete) is Reason.IN_USE
    less = user_pb.UpdateUserRequest(user=user_pb.User(name="users/root", roles=["roles/viewer"]))
    assert await reason(hospitals.users.UpdateUser(less, metadata=root)) is Reason.IN_USE


async def test_an_organization_changes_its_name_for_people(hospitals: Hospitals) -> None:
    anna = hospitals.tokens["anna"]
    wanted = organization_pb.Organization(name=CLARA, display_name="Clara Hospital")
    request = organization_pb.UpdateOrganizationRequest(organization=wanted)
    changed = (await hospitals.organizations.UpdateOrganization(request, metadata=anna)).organization
    assert changed.display_name == "Clara Hospital"
    again = (await hospitals.organizations.UpdateOrganization(request, metadata=anna)).organization
    assert again.etag == changed.etag
