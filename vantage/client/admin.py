"""Organizations, users, collaborations and nodes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import user_credential_service_pb2 as user_credential_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.client import converters
from vantage.client.caller import Caller
from vantage.client.models import Collaboration, Credentials, InvitedUser, Node, Organization, User
from vantage.client.short_names import bare, full, full_node, full_role

PAGE_SIZE = 200


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


PageT = TypeVar("PageT", bound=_Page)


async def pages(fetch: Callable[[str], Awaitable[PageT]]) -> AsyncIterator[PageT]:
    """All pages of a list."""
    token = ""
    while True:
        page = await fetch(token)
        yield page
        token = page.next_page_token
        if not token:
            return


def mask_of(**fields: object) -> FieldMask:
    """Names the fields to change: those that are given."""
    return FieldMask(paths=[field for field, value in fields.items() if value is not None])


class AsyncOrganizations:
    """Organizations: members of collaborations, owners of users and nodes, each a root of trust."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(self, name: str, display_name: str = "", ca_certificates: Sequence[str] = ()) -> Organization:
        """Create an organization.

        Args:
            name: last part of its resource name: 2 to 40 lower-case letters, digits and hyphens.
            display_name: for people.
            ca_certificates: certificates of its certificate authority, PEM; may be empty until it has nodes.

        Raises:
            ConflictError: ALREADY_EXISTS.
            InvalidArgumentError: CERTIFICATE_INVALID, or the name will not do.
        """
        request = organization_pb.CreateOrganizationRequest(
            organization_id=bare("organizations", name), display_name=display_name, ca_certificates=ca_certificates
        )
        answer = await self._caller.unary(lambda stubs: stubs.organizations.CreateOrganization, request)
        return converters.organization(answer.organization)

    async def get(self, name: str) -> Organization:
        """One organization.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = organization_pb.GetOrganizationRequest(name=full("organizations", name))
        answer = await self._caller.unary(lambda stubs: stubs.organizations.GetOrganization, request, repeatable=True)
        return converters.organization(answer.organization)

    async def list(self) -> AsyncIterator[Organization]:
        """The organizations that you may see, by name."""

        async def fetch(token: str) -> organization_pb.ListOrganizationsResponse:
            request = organization_pb.ListOrganizationsRequest(page_size=PAGE_SIZE, page_token=token)
            return await self._caller.unary(
                lambda stubs: stubs.organizations.ListOrganizations, request, repeatable=True
            )

        async for page in pages(fetch):
            for each in page.organizations:
                yield converters.organization(each)

    async def update(self, name: str, display_name: str | None = None, etag: str = "") -> Organization:
        """Change an organization.

        Args:
            name: which.
            display_name: for people; None leaves it.
            etag: of the version that you saw; empty for no check.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: ETAG_MISMATCH.
        """
        wanted = organization_pb.Organization(
            name=full("organizations", name), display_name=display_name or "", etag=etag
        )
        request = organization_pb.UpdateOrganizationRequest(
            organization=wanted, update_mask=mask_of(display_name=display_name)
        )
        answer = await self._caller.unary(
            lambda stubs: stubs.organizations.UpdateOrganization, request, repeatable=True
        )
        return converters.organization(answer.organization)

    async def delete(self, name: str) -> None:
        """Delete an organization without users, nodes and memberships.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: IN_USE.
        """
        request = organization_pb.DeleteOrganizationRequest(name=full("organizations", name))
        await self._caller.unary(lambda stubs: stubs.organizations.DeleteOrganization, request)

    async def set_ca_certificates(self, name: str, ca_certificates: Sequence[str]) -> Organization:
        """Replace the certificates of an organization's certificate authority.

        Args:
            name: the organization.
            ca_certificates: all of them, PEM, at most 5.

        Raises:
            NotFoundError: there is none, or you may not see it.
            InvalidArgumentError: CERTIFICATE_INVALID.
        """
        request = organization_pb.SetCaCertificatesRequest(
            name=full("organizations", name), ca_certificates=ca_certificates
        )
        answer = await self._caller.unary(lambda stubs: stubs.organizations.SetCaCertificates, request, repeatable=True)
        return converters.organization(answer.organization)


class AsyncUsers:
    """Users of organizations."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self,
        name: str,
        password: str,
        organization: str = "",
        roles: Iterable[str] = (),
        display_name: str = "",
    ) -> User:
        """Create a user.

        Args:
            name: login name.
            password: at least 12 characters.
            organization: to which they belong; empty for a user of the server itself.
            roles: what they may do; you must hold every permission of them.
            display_name: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            InvalidArgumentError: PASSWORD_TOO_WEAK, or a name will not do.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not create users there.
        """
        request = user_pb.CreateUserRequest(
            user_id=bare("users", name),
            organization=full("organizations", organization, field="organization") if organization else "",
            roles=[full_role(each, field="roles") for each in roles],
            display_name=display_name,
            password=password,
        )
        answer = await self._caller.unary(lambda stubs: stubs.users.CreateUser, request)
        return converters.user(answer.user)

    async def invite(
        self, name: str, organization: str = "", roles: Iterable[str] = (), display_name: str = ""
    ) -> InvitedUser:
        """Create a person who sets their password themselves: nobody else ever knows it.

        Args:
            name: login name.
            organization: to which they belong; empty for a user of the server itself.
            roles: what they may do; you must hold every permission of them.
            display_name: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not create users there.
        """
        request = user_pb.CreateUserRequest(
            user_id=bare("users", name),
            organization=full("organizations", organization, field="organization") if organization else "",
            roles=[full_role(each, field="roles") for each in roles],
            display_name=display_name,
        )
        answer = await self._caller.unary(lambda stubs: stubs.users.CreateUser, request)
        return InvitedUser(converters.user(answer.user), answer.reset_token)

    async def get(self, name: str) -> User:
        """One user.

        Raises:
            NotFoundError: there is none, or you may not see them.
        """
        request = user_pb.GetUserRequest(name=full("users", name))
        answer = await self._caller.unary(lambda stubs: stubs.users.GetUser, request, repeatable=True)
        return converters.user(answer.user)

    async def list(self, organization: str = "") -> AsyncIterator[User]:
        """The users that you may see, by name.

        Args:
            organization: only those of this one.
        """
        owner = full("organizations", organization, field="organization") if organization else ""

        async def fetch(token: str) -> user_pb.ListUsersResponse:
            request = user_pb.ListUsersRequest(page_size=PAGE_SIZE, page_token=token, organization=owner)
            return await self._caller.unary(lambda stubs: stubs.users.ListUsers, request, repeatable=True)

        async for page in pages(fetch):
            for each in page.users:
                yield converters.user(each)

    async def create_service_account(
        self, name: str, organization: str, roles: Iterable[str] = (), display_name: str = ""
    ) -> User:
        """Create a user for a program, which logs in with a key that its organization certifies.

        Args:
            name: login name.
            organization: to which it belongs.
            roles: what it may do; you must hold every permission of them.
            display_name: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not create users there.
        """
        request = user_pb.CreateUserRequest(
            user_id=bare("users", name),
            organization=full("organizations", organization, field="organization"),
            roles=[full_role(each, field="roles") for each in roles],
            display_name=display_name,
            kind=user_pb.USER_KIND_SERVICE_ACCOUNT,
        )
        answer = await self._caller.unary(lambda stubs: stubs.users.CreateUser, request)
        return converters.user(answer.user)

    async def credentials(self, name: str) -> Credentials:
        """How a user can log in, and their sessions.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them.
        """
        request = user_credential_pb.GetUserCredentialsRequest(user=full("users", name))
        answer = await self._caller.unary(
            lambda stubs: stubs.user_credentials.GetUserCredentials, request, repeatable=True
        )
        return converters.credentials(answer.credentials, answer.sessions)

    async def issue_password_reset(self, name: str) -> str:
        """A token with which a user sets a password, once, within three days.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them, or they may more than you.
        """
        request = user_credential_pb.IssuePasswordResetRequest(user=full("users", name))
        answer = await self._caller.unary(lambda stubs: stubs.user_credentials.IssuePasswordReset, request)
        return answer.reset_token

    async def revoke_sessions(self, name: str) -> int:
        """End all sessions of a user at once; returns how many ended.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them, or they may more than you.
        """
        request = user_credential_pb.RevokeSessionsRequest(user=full("users", name))
        answer = await self._caller.unary(lambda stubs: stubs.user_credentials.RevokeSessions, request)
        return answer.ended_sessions

    async def remove_one_time_codes(self, name: str) -> int:
        """Remove the one-time codes of a user who lost them, and end their sessions; returns how many ended.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them, or they may more than you.
        """
        request = user_credential_pb.RemoveOneTimeCodesRequest(user=full("users", name))
        answer = await self._caller.unary(lambda stubs: stubs.user_credentials.RemoveOneTimeCodes, request)
        return answer.ended_sessions

    async def link_identity(self, name: str, subject: str) -> None:
        """Let a user log in with an identity at the server's provider.

        Args:
            name: the user.
            subject: their id at the provider.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them, or they may more than you.
            ConflictError: ALREADY_EXISTS, the identity is linked to another user.
        """
        request = user_credential_pb.LinkUserIdentityRequest(user=full("users", name), subject=subject)
        await self._caller.unary(lambda stubs: stubs.user_credentials.LinkUserIdentity, request)

    async def unlink_identity(self, name: str, issuer: str, subject: str) -> int:
        """Let a user log in with an identity no more; returns how many sessions that began with one ended.

        Args:
            name: the user.
            issuer: as ``credentials`` tells.
            subject: as ``credentials`` tells.

        Raises:
            NotFoundError: there is none, or you may not see them, or it is not linked to them.
            PermissionDeniedError: you may not edit them, or they may more than you.
        """
        request = user_credential_pb.UnlinkUserIdentityRequest(user=full("users", name), issuer=issuer, subject=subject)
        answer = await self._caller.unary(lambda stubs: stubs.user_credentials.UnlinkUserIdentity, request)
        return answer.ended_sessions

    async def update(
        self, name: str, display_name: str | None = None, roles: Iterable[str] | None = None, etag: str = ""
    ) -> User:
        """Change a user.

        Args:
            name: which.
            display_name: for people; None leaves it.
            roles: all of them; None leaves them.
            etag: of the version that you saw; empty for no check.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: ETAG_MISMATCH.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not change them.
        """
        wanted = user_pb.User(name=full("users", name), display_name=display_name or "", etag=etag)
        wanted.roles.extend(full_role(each, field="roles") for each in roles or ())
        request = user_pb.UpdateUserRequest(user=wanted, update_mask=mask_of(display_name=display_name, roles=roles))
        answer = await self._caller.unary(lambda stubs: stubs.users.UpdateUser, request, repeatable=True)
        return converters.user(answer.user)

    async def delete(self, name: str) -> None:
        """Delete a user and end their sessions.

        Raises:
            NotFoundError: there is none, or you may not see them.
        """
        request = user_pb.DeleteUserRequest(name=full("users", name))
        await self._caller.unary(lambda stubs: stubs.users.DeleteUser, request)


class AsyncCollaborations:
    """Collaborations: organizations that agreed to compute together."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(self, name: str, organizations: Iterable[str] = (), display_name: str = "") -> Collaboration:
        """Create a collaboration and invite organizations.

        Args:
            name: last part of its resource name.
            organizations: whom to invite; those that you speak for are members at once.
            display_name: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            NotFoundError: an organization does not exist, or you may not see it.
        """
        request = collaboration_pb.CreateCollaborationRequest(
            collaboration_id=bare("collaborations", name),
            display_name=display_name,
            organizations=[full("organizations", each, field="organizations") for each in organizations],
        )
        answer = await self._caller.unary(lambda stubs: stubs.collaborations.CreateCollaboration, request)
        return converters.collaboration(answer.collaboration)

    async def get(self, name: str) -> Collaboration:
        """One collaboration.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = collaboration_pb.GetCollaborationRequest(name=full("collaborations", name))
        answer = await self._caller.unary(lambda stubs: stubs.collaborations.GetCollaboration, request, repeatable=True)
        return converters.collaboration(answer.collaboration)

    async def list(self) -> AsyncIterator[Collaboration]:
        """The collaborations that you may see, by name."""

        async def fetch(token: str) -> collaboration_pb.ListCollaborationsResponse:
            request = collaboration_pb.ListCollaborationsRequest(page_size=PAGE_SIZE, page_token=token)
            return await self._caller.unary(
                lambda stubs: stubs.collaborations.ListCollaborations, request, repeatable=True
            )

        async for page in pages(fetch):
            for each in page.collaborations:
                yield converters.collaboration(each)

    async def update(self, name: str, display_name: str | None = None, etag: str = "") -> Collaboration:
        """Change a collaboration.

        Args:
            name: which.
            display_name: for people; None leaves it.
            etag: of the version that you saw; empty for no check.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: ETAG_MISMATCH.
        """
        wanted = collaboration_pb.Collaboration(
            name=full("collaborations", name), display_name=display_name or "", etag=etag
        )
        request = collaboration_pb.UpdateCollaborationRequest(
            collaboration=wanted, update_mask=mask_of(display_name=display_name)
        )
        answer = await self._caller.unary(
            lambda stubs: stubs.collaborations.UpdateCollaboration, request, repeatable=True
        )
        return converters.collaboration(answer.collaboration)

    async def delete(self, name: str) -> None:
        """Delete a collaboration without active tasks.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: IN_USE.
        """
        request = collaboration_pb.DeleteCollaborationRequest(name=full("collaborations", name))
        await self._caller.unary(lambda stubs: stubs.collaborations.DeleteCollaboration, request)

    async def add_member(self, name: str, organization: str) -> Collaboration:
        """Invite an organization to a collaboration; harmless when it is invited or a member.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = collaboration_pb.AddMemberRequest(
            name=full("collaborations", name), organization=full("organizations", organization, field="organization")
        )
        answer = await self._caller.unary(lambda stubs: stubs.collaborations.AddMember, request, repeatable=True)
        return converters.collaboration(answer.collaboration)

    async def remove_member(self, name: str, organization: str) -> Collaboration:
        """Remove an organization from a collaboration; harmless when it is no member.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = collaboration_pb.RemoveMemberRequest(
            name=full("collaborations", name), organization=full("organizations", organization, field="organization")
        )
        answer = await self._caller.unary(lambda stubs: stubs.collaborations.RemoveMember, request, repeatable=True)
        return converters.collaboration(answer.collaboration)


class AsyncNodes:
    """Nodes of organizations."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(self, name: str, organization: str = "", collaborations: Iterable[str] = ()) -> Node:
        """Admit a node. It proves who it is with a certificate that its organization issues.

        Args:
            name: of the node; with ``organization`` its last part, otherwise also ``clara/clara-1`` or the full name.
            organization: that it belongs to.
            collaborations: that it serves.

        Raises:
            ConflictError: ALREADY_EXISTS.
            NotFoundError: organization or collaboration does not exist, or you may not see it.
            InvalidArgumentError: ORGANIZATION_NOT_MEMBER, the organization is not in a collaboration.
        """
        owner = full("organizations", organization, field="organization") if organization else ""
        resource = full_node(name, owner, field="name")
        request = node_pb.CreateNodeRequest(
            organization=owner or resource.rpartition("/nodes/")[0],
            node_id=resource.rpartition("/")[2],
            collaborations=[full("collaborations", each, field="collaborations") for each in collaborations],
        )
        answer = await self._caller.unary(lambda stubs: stubs.nodes.CreateNode, request)
        return converters.node(answer.node)

    async def get(self, name: str) -> Node:
        """One node.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = node_pb.GetNodeRequest(name=full_node(name, field="name"))
        answer = await self._caller.unary(lambda stubs: stubs.nodes.GetNode, request, repeatable=True)
        return converters.node(answer.node)

    async def list(self, organization: str = "", collaboration: str = "") -> AsyncIterator[Node]:
        """The nodes that you may see, by name.

        Args:
            organization: only those of this one.
            collaboration: only those that serve this one.
        """
        owner = full("organizations", organization, field="organization") if organization else ""
        served = full("collaborations", collaboration, field="collaboration") if collaboration else ""

        async def fetch(token: str) -> node_pb.ListNodesResponse:
            request = node_pb.ListNodesRequest(
                page_size=PAGE_SIZE, page_token=token, organization=owner, collaboration=served
            )
            return await self._caller.unary(lambda stubs: stubs.nodes.ListNodes, request, repeatable=True)

        async for page in pages(fetch):
            for each in page.nodes:
                yield converters.node(each)

    async def update(self, name: str, collaborations: Iterable[str] | None = None, etag: str = "") -> Node:
        """Change which collaborations a node serves.

        Args:
            name: which.
            collaborations: all of them; None leaves them.
            etag: of the version that you saw; empty for no check.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: ETAG_MISMATCH.
            InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
        """
        wanted = node_pb.Node(name=full_node(name, field="name"), etag=etag)
        wanted.collaborations.extend(
            full("collaborations", each, field="collaborations") for each in collaborations or ()
        )
        request = node_pb.UpdateNodeRequest(node=wanted, update_mask=mask_of(collaborations=collaborations))
        answer = await self._caller.unary(lambda stubs: stubs.nodes.UpdateNode, request, repeatable=True)
        return converters.node(answer.node)

    async def delete(self, name: str) -> None:
        """Delete a node and end its session.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = node_pb.DeleteNodeRequest(name=full_node(name, field="name"))
        await self._caller.unary(lambda stubs: stubs.nodes.DeleteNode, request)
