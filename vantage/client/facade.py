"""The client's nouns without ``await``. Generated from the asynchronous ones by scripts/sync_client. Do not edit."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from vantage.client.admin import AsyncCollaborations, AsyncNodes, AsyncOrganizations, AsyncUsers
from vantage.client.auth import AsyncAuth
from vantage.client.governance import AsyncAudit, AsyncRoles, AsyncStudies
from vantage.client.handles import AsyncTaskHandle
from vantage.client.images import AsyncImages
from vantage.client.keyring import KeyFiles, Keyring
from vantage.client.keys import AsyncKeys
from vantage.client.loop import LoopThread
from vantage.client.memberships import AsyncMemberships
from vantage.client.models import (
    Answer,
    AuditEntry,
    AuditLog,
    AuthoritiesChanged,
    Collaboration,
    Credentials,
    Delegate,
    DeviceCode,
    Enrolment,
    Event,
    Invitation,
    InvitedUser,
    LoginSession,
    Member,
    Node,
    OnFailure,
    Organization,
    OrganizationTrust,
    Permission,
    Principal,
    Question,
    Result,
    RevocationsChanged,
    Role,
    ServerInfo,
    Study,
    Target,
    Task,
    TaskState,
    User,
)
from vantage.client.tasks import AsyncTasks
from vantage.client.trust import AsyncTrust
from vantage.common.declaration import Declaration


class Organizations:
    """Organizations: members of collaborations, owners of users and nodes, each a root of trust."""

    def __init__(self, inner: AsyncOrganizations, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def create(self, name: str, display_name: str = "", ca_certificates: Sequence[str] = ()) -> Organization:
        """Create an organization.

        Args:
            name: last part of its resource name: 2 to 40 lower-case letters, digits and hyphens.
            display_name: for people.
            ca_certificates: certificates of its certificate authority, PEM; may be empty until it has nodes.

        Raises:
            ConflictError: ALREADY_EXISTS.
            InvalidArgumentError: CERTIFICATE_INVALID, or the name will not do.
        """
        return self._loop.run(self._inner.create(name, display_name, ca_certificates))

    def get(self, name: str) -> Organization:
        """One organization.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.get(name))

    def list(self) -> Iterator[Organization]:
        """The organizations that you may see, by name."""
        return self._loop.iterate(self._inner.list())

    def update(self, name: str, display_name: str | None = None, etag: str = "") -> Organization:
        """Change an organization.

        Args:
            name: which.
            display_name: for people; None leaves it.
            etag: of the version that you saw; empty for no check.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: ETAG_MISMATCH.
        """
        return self._loop.run(self._inner.update(name, display_name, etag))

    def delete(self, name: str) -> None:
        """Delete an organization without users, nodes and memberships.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: IN_USE.
        """
        self._loop.run(self._inner.delete(name))

    def set_ca_certificates(self, name: str, ca_certificates: Sequence[str]) -> Organization:
        """Replace the certificates of an organization's certificate authority.

        Args:
            name: the organization.
            ca_certificates: all of them, PEM, at most 5.

        Raises:
            NotFoundError: there is none, or you may not see it.
            InvalidArgumentError: CERTIFICATE_INVALID.
        """
        return self._loop.run(self._inner.set_ca_certificates(name, ca_certificates))


class Users:
    """Users of organizations."""

    def __init__(self, inner: AsyncUsers, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def create(
        self, name: str, password: str, organization: str = "", roles: Iterable[str] = (), display_name: str = ""
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
        return self._loop.run(self._inner.create(name, password, organization, roles, display_name))

    def invite(
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
        return self._loop.run(self._inner.invite(name, organization, roles, display_name))

    def get(self, name: str) -> User:
        """One user.

        Raises:
            NotFoundError: there is none, or you may not see them.
        """
        return self._loop.run(self._inner.get(name))

    def list(self, organization: str = "") -> Iterator[User]:
        """The users that you may see, by name.

        Args:
            organization: only those of this one.
        """
        return self._loop.iterate(self._inner.list(organization))

    def create_service_account(
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
        return self._loop.run(self._inner.create_service_account(name, organization, roles, display_name))

    def credentials(self, name: str) -> Credentials:
        """How a user can log in, and their sessions.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them.
        """
        return self._loop.run(self._inner.credentials(name))

    def issue_password_reset(self, name: str) -> str:
        """A token with which a user sets a password, once, within three days.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them, or they may more than you.
        """
        return self._loop.run(self._inner.issue_password_reset(name))

    def revoke_sessions(self, name: str) -> int:
        """End all sessions of a user at once; returns how many ended.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them, or they may more than you.
        """
        return self._loop.run(self._inner.revoke_sessions(name))

    def remove_one_time_codes(self, name: str) -> int:
        """Remove the one-time codes of a user who lost them, and end their sessions; returns how many ended.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them, or they may more than you.
        """
        return self._loop.run(self._inner.remove_one_time_codes(name))

    def link_identity(self, name: str, subject: str) -> None:
        """Let a user log in with an identity at the server's provider.

        Args:
            name: the user.
            subject: their id at the provider.

        Raises:
            NotFoundError: there is none, or you may not see them.
            PermissionDeniedError: you may not edit them, or they may more than you.
            ConflictError: ALREADY_EXISTS, the identity is linked to another user.
        """
        self._loop.run(self._inner.link_identity(name, subject))

    def unlink_identity(self, name: str, issuer: str, subject: str) -> int:
        """Let a user log in with an identity no more; returns how many sessions that began with one ended.

        Args:
            name: the user.
            issuer: as ``credentials`` tells.
            subject: as ``credentials`` tells.

        Raises:
            NotFoundError: there is none, or you may not see them, or it is not linked to them.
            PermissionDeniedError: you may not edit them, or they may more than you.
        """
        return self._loop.run(self._inner.unlink_identity(name, issuer, subject))

    def update(
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
        return self._loop.run(self._inner.update(name, display_name, roles, etag))

    def delete(self, name: str) -> None:
        """Delete a user and end their sessions.

        Raises:
            NotFoundError: there is none, or you may not see them.
        """
        self._loop.run(self._inner.delete(name))


class Collaborations:
    """Collaborations: organizations that agreed to compute together."""

    def __init__(self, inner: AsyncCollaborations, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def create(self, name: str, organizations: Iterable[str] = (), display_name: str = "") -> Collaboration:
        """Create a collaboration and invite organizations.

        Args:
            name: last part of its resource name.
            organizations: whom to invite; those that you speak for are members at once.
            display_name: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            NotFoundError: an organization does not exist, or you may not see it.
        """
        return self._loop.run(self._inner.create(name, organizations, display_name))

    def get(self, name: str) -> Collaboration:
        """One collaboration.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.get(name))

    def list(self) -> Iterator[Collaboration]:
        """The collaborations that you may see, by name."""
        return self._loop.iterate(self._inner.list())

    def update(self, name: str, display_name: str | None = None, etag: str = "") -> Collaboration:
        """Change a collaboration.

        Args:
            name: which.
            display_name: for people; None leaves it.
            etag: of the version that you saw; empty for no check.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: ETAG_MISMATCH.
        """
        return self._loop.run(self._inner.update(name, display_name, etag))

    def delete(self, name: str) -> None:
        """Delete a collaboration without active tasks.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: IN_USE.
        """
        self._loop.run(self._inner.delete(name))

    def add_member(self, name: str, organization: str) -> Collaboration:
        """Invite an organization to a collaboration; harmless when it is invited or a member.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.add_member(name, organization))

    def remove_member(self, name: str, organization: str) -> Collaboration:
        """Remove an organization from a collaboration; harmless when it is no member.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.remove_member(name, organization))


class Nodes:
    """Nodes of organizations."""

    def __init__(self, inner: AsyncNodes, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def create(self, name: str, organization: str = "", collaborations: Iterable[str] = ()) -> Node:
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
        return self._loop.run(self._inner.create(name, organization, collaborations))

    def get(self, name: str) -> Node:
        """One node.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.get(name))

    def list(self, organization: str = "", collaboration: str = "") -> Iterator[Node]:
        """The nodes that you may see, by name.

        Args:
            organization: only those of this one.
            collaboration: only those that serve this one.
        """
        return self._loop.iterate(self._inner.list(organization, collaboration))

    def update(self, name: str, collaborations: Iterable[str] | None = None, etag: str = "") -> Node:
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
        return self._loop.run(self._inner.update(name, collaborations, etag))

    def delete(self, name: str) -> None:
        """Delete a node and end its session.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        self._loop.run(self._inner.delete(name))


class Auth:
    """Logs in and out. Tokens go to the client's token store and are renewed from there."""

    def __init__(self, inner: AsyncAuth, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def server_info(self) -> ServerInfo:
        """What the server tells everybody: versions, limits, whether it waits for its first user."""
        return self._loop.run(self._inner.server_info())

    def bootstrap(self, bootstrap_token: str, username: str, password: str) -> str:
        """Create the server's first user, with role root, and log in.

        Args:
            bootstrap_token: what ``vantage server init`` printed; works once.
            username: login name.
            password: at least 12 characters.

        Returns:
            users/{user}.

        Raises:
            UnauthenticatedError: BOOTSTRAP_TOKEN_INVALID, wrong or used already.
            InvalidArgumentError: PASSWORD_TOO_WEAK.
        """
        return self._loop.run(self._inner.bootstrap(bootstrap_token, username, password))

    def login(self, username: str, password: str, one_time_code: str = "") -> str:
        """Log in with a password.

        Args:
            username: login name.
            password: its password.
            one_time_code: one-time code or recovery code, when enrolled.

        Returns:
            users/{user}.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, also for unknown users; ONE_TIME_CODE_REQUIRED, the password was
                right: call again with the code.
            LimitExceededError: LOCKED_OUT, after too many wrong passwords or codes.
        """
        return self._loop.run(self._inner.login(username, password, one_time_code))

    def login_at_provider(
        self, show: Callable[[DeviceCode], None] | None = None, open_browser: Callable[[str], None] | None = None
    ) -> str:
        """Log in at the server's identity provider: with a browser on this machine, or on any device.

        Args:
            show: tells the user where to go; for the device flow.
            open_browser: opens a page; for the flow with a browser on this machine, which is taken when this is given.

        Returns:
            users/{user}.

        Raises:
            InvalidArgumentError: IDENTITY_PROVIDER_MISSING.
            UnauthenticatedError: CREDENTIALS_INVALID, the user refused or took too long; IDENTITY_TOKEN_INVALID.
            PermissionDeniedError: IDENTITY_UNKNOWN, nobody is linked to this identity.
            UnavailableError: IDENTITY_PROVIDER_UNAVAILABLE.
        """
        return self._loop.run(self._inner.login_at_provider(show, open_browser))

    def link_identity(
        self,
        password: str,
        one_time_code: str = "",
        show: Callable[[DeviceCode], None] | None = None,
        open_browser: Callable[[str], None] | None = None,
    ) -> str:
        """Let the caller log in with an identity at the server's provider from now on.

        Args:
            password: the caller's; empty when they have none.
            one_time_code: when enrolled.
            show: as for ``login_at_provider``.
            open_browser: as for ``login_at_provider``.

        Returns:
            The subject that was linked.

        Raises:
            ConflictError: ALREADY_EXISTS, it is linked to another user.
            UnauthenticatedError: as for ``login`` and ``login_at_provider``.
        """
        return self._loop.run(self._inner.link_identity(password, one_time_code, show, open_browser))

    def unlink_identity(self, issuer: str, subject: str) -> int:
        """Let the caller log in with an identity no more; returns how many sessions that began with one ended.

        Args:
            issuer: as ``credentials`` tells.
            subject: as ``credentials`` tells.

        Raises:
            NotFoundError: it is not linked to the caller.
        """
        return self._loop.run(self._inner.unlink_identity(issuer, subject))

    def begin_one_time_codes(self, password: str) -> Enrolment:
        """Begin to enrol one-time codes; nothing changes until they are confirmed.

        Args:
            password: the caller's.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID.
            ConflictError: ENROLMENT_STATE, enrolled already.
        """
        return self._loop.run(self._inner.begin_one_time_codes(password))

    def confirm_one_time_codes(self, one_time_code: str) -> builtins.list[str]:
        """Ask for a code at each log-in from now on, and end the caller's other sessions.

        Args:
            one_time_code: that the app shows.

        Returns:
            Recovery codes, each of which replaces a code once.

        Raises:
            InvalidArgumentError: ONE_TIME_CODE_INVALID.
            ConflictError: ENROLMENT_STATE, not begun, or confirmed already.
        """
        return self._loop.run(self._inner.confirm_one_time_codes(one_time_code))

    def disable_one_time_codes(self, password: str, one_time_code: str) -> None:
        """Ask for codes no more.

        Args:
            password: the caller's.
            one_time_code: or a recovery code.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID.
            ConflictError: ENROLMENT_STATE, not enrolled.
        """
        self._loop.run(self._inner.disable_one_time_codes(password, one_time_code))

    def renew_recovery_codes(self, password: str, one_time_code: str) -> builtins.list[str]:
        """Replace all recovery codes.

        Args:
            password: the caller's.
            one_time_code: or a recovery code.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID.
            ConflictError: ENROLMENT_STATE, not enrolled.
        """
        return self._loop.run(self._inner.renew_recovery_codes(password, one_time_code))

    def sessions(self) -> builtins.list[LoginSession]:
        """The caller's sessions, the latest first; at most 500."""
        return self._loop.run(self._inner.sessions())

    def credentials(self) -> Credentials:
        """How the caller can log in, and their sessions."""
        return self._loop.run(self._inner.credentials())

    def end_session(self, session_id: str) -> None:
        """End one of the caller's sessions; its tokens stop to work at once.

        Args:
            session_id: as ``sessions`` tells.

        Raises:
            NotFoundError: the caller has no such session.
        """
        self._loop.run(self._inner.end_session(session_id))

    def reset_password(self, reset_token: str, new_password: str) -> str:
        """Set a password with a token that an admin issued.

        Args:
            reset_token: works once.
            new_password: at least 12 characters.

        Returns:
            users/{user}, who can now log in.

        Raises:
            UnauthenticatedError: RESET_TOKEN_INVALID.
            InvalidArgumentError: PASSWORD_TOO_WEAK.
        """
        return self._loop.run(self._inner.reset_password(reset_token, new_password))

    def logout(self, all_sessions: bool = False) -> int:
        """End the session at the server and forget its tokens.

        Args:
            all_sessions: end all sessions of the user, not just this one.

        Returns:
            How many sessions ended.

        Raises:
            UnauthenticatedError: nobody is logged in.
        """
        return self._loop.run(self._inner.logout(all_sessions))

    def change_password(self, current_password: str, new_password: str, one_time_code: str = "") -> int:
        """Change the password and end the user's other sessions.

        Args:
            current_password: the password so far.
            new_password: at least 12 characters.
            one_time_code: when enrolled.

        Returns:
            How many other sessions ended.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, the current password is wrong.
            InvalidArgumentError: PASSWORD_TOO_WEAK.
        """
        return self._loop.run(self._inner.change_password(current_password, new_password, one_time_code))

    def whoami(self) -> Principal:
        """Who is logged in, with roles and collaborations.

        Raises:
            UnauthenticatedError: nobody is logged in.
        """
        return self._loop.run(self._inner.whoami())


class Roles:
    """Roles: named sets of permissions."""

    def __init__(self, inner: AsyncRoles, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def create(
        self, name: str, permissions: Iterable[Permission], organization: str = "", description: str = ""
    ) -> Role:
        """Create a role.

        Args:
            name: last part of its resource name.
            permissions: what it permits; you must hold all of it.
            organization: whose users may hold it; empty for a role of the server.
            description: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not create roles there.
        """
        return self._loop.run(self._inner.create(name, permissions, organization, description))

    def get(self, name: str) -> Role:
        """One role.

        Args:
            name: ``researcher``, or ``clara/auditor`` for one of an organization.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.get(name))

    def list(self) -> Iterator[Role]:
        """The roles that you may see with their permissions, by name."""
        return self._loop.iterate(self._inner.list())

    def update(
        self, name: str, description: str | None = None, permissions: Iterable[Permission] | None = None, etag: str = ""
    ) -> Role:
        """Change a role; whoever holds it has the new permissions at once.

        Args:
            name: which.
            description: for people; None leaves it.
            permissions: all of them; None leaves them.
            etag: of the version that you saw; empty for no check.

        Raises:
            ConflictError: ETAG_MISMATCH.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not change it.
        """
        return self._loop.run(self._inner.update(name, description, permissions, etag))

    def delete(self, name: str) -> None:
        """Delete a role that nobody holds.

        Raises:
            ConflictError: IN_USE.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not delete it.
        """
        self._loop.run(self._inner.delete(name))


class Studies:
    """Studies: named subsets of a collaboration's members."""

    def __init__(self, inner: AsyncStudies, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def create(self, name: str, organizations: Iterable[str], collaboration: str = "", display_name: str = "") -> Study:
        """Create a study.

        Args:
            name: of the study; with ``collaboration`` its last part, otherwise ``lungs/pilot`` or the full name.
            organizations: members of the collaboration that are part of it.
            collaboration: that it belongs to.
            display_name: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
        """
        return self._loop.run(self._inner.create(name, organizations, collaboration, display_name))

    def get(self, name: str) -> Study:
        """One study.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.get(name))

    def list(self, collaboration: str = "") -> Iterator[Study]:
        """The studies that you may see, by name.

        Args:
            collaboration: only those of this one.
        """
        return self._loop.iterate(self._inner.list(collaboration))

    def update(
        self, name: str, display_name: str | None = None, organizations: Iterable[str] | None = None, etag: str = ""
    ) -> Study:
        """Change a study.

        Args:
            name: which.
            display_name: for people; None leaves it.
            organizations: all of them; None leaves them.
            etag: of the version that you saw; empty for no check.

        Raises:
            ConflictError: ETAG_MISMATCH.
            InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
        """
        return self._loop.run(self._inner.update(name, display_name, organizations, etag))

    def delete(self, name: str) -> None:
        """Delete a study without active tasks.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: IN_USE.
        """
        self._loop.run(self._inner.delete(name))


class Audit:
    """The server's audit: who asked what, and what was decided."""

    def __init__(self, inner: AsyncAudit, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def list(
        self,
        principal: str = "",
        organization: str = "",
        event: str = "",
        target: str = "",
        decision: str = "",
        after: datetime | None = None,
        before: datetime | None = None,
    ) -> Iterator[AuditEntry]:
        """Entries that you may see, newest first.

        Args:
            principal: only by this user or node.
            organization: only by users and nodes of this organization.
            event: only this one, e.g. ``UserService.CreateUser``.
            target: only about this resource, or what lies in it.
            decision: only ``allowed``, ``denied`` or ``failed``.
            after: only from then on.
            before: only before then.
        """
        return self._loop.iterate(self._inner.list(principal, organization, event, target, decision, after, before))

    def export(self) -> Iterator[bytes]:
        """The hash-chained log in parts, with a signed checkpoint at its end, for ``vantage audit verify``.

        Raises:
            PermissionDeniedError: you may not see all of it.
        """
        return self._loop.iterate(self._inner.export())

    def log(self) -> AuditLog:
        """Head, length and key of the log: kept elsewhere, they prove later that nothing was changed since.

        Raises:
            PermissionDeniedError: you may not see all of it.
        """
        return self._loop.run(self._inner.log())


class TaskHandle:
    """A task at the server. Made by ``run`` and ``attach``; it goes on whether somebody holds a handle or not."""

    def __init__(self, inner: AsyncTaskHandle, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    @property
    def name(self) -> str:
        """tasks/{task}."""
        return self._inner.name

    @property
    def state(self) -> TaskState:
        """Where the task is in its life, as far as this side knows: ``refresh`` asks."""
        return self._inner.state

    @property
    def task(self) -> Task:
        """The task as it was when the server told of it last."""
        return self._inner.task

    def refresh(self) -> Task:
        """Ask the server how the task is."""
        return self._loop.run(self._inner.refresh())

    def cancel(self) -> Task:
        """Cancel the task and all that it started; harmless when it has ended."""
        return self._loop.run(self._inner.cancel())

    def events(self) -> Iterator[Event]:
        """What happens to the task, from a snapshot to its end; goes on by itself after lost connections.

        Progress and log lines that come while a connection is lost are lost with it; nothing else is.

        Raises:
            VantageError: the server does not give the events.
        """
        return self._loop.iterate(self._inner.events())

    def results(
        self, timeout: float | None = None, sealed: bool = False, unverified: bool = False, into: Path | None = None
    ) -> builtins.list[Result]:
        """Wait for the end and return what each organization answered, in the order in which they were asked.

        An organization without an answer has a ``failure`` instead; it raises nothing. With keys, each answer is
        verified before it is opened: what does not pass has the failure RESULT_UNVERIFIED.

        Args:
            timeout: seconds to wait; for ever when None.
            sealed: verify the answers and leave them sealed: each value is the content of an ``age`` file.
            unverified: take the server's word for a task for which you have signed no order.
            into: directory for the answers, as files named after their organizations: each value is a path, and memory
                stays bounded whatever the size.

        Raises:
            UnavailableError: DEADLINE_EXCEEDED, the task has not ended in time; it goes on.
            TrustError: RESULT_UNVERIFIED, the server tells of other organizations than were asked.
        """
        return self._loop.run(self._inner.results(timeout, sealed, unverified, into))

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the answer of the only organization that was asked.

        Args:
            timeout: seconds to wait; for ever when None.

        Raises:
            InvalidArgumentError: several organizations were asked: use ``results``.
            VantageError: there is no answer; the class and the reason say why.
            UnavailableError: DEADLINE_EXCEEDED, the task has not ended in time; it goes on.
        """
        return self._loop.run(self._inner.result(timeout))


class Images:
    """Asks registries, without the server."""

    def __init__(self, inner: AsyncImages, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def declaration(self, image: str) -> Declaration:
        """What an image says of itself: its functions, their arguments and data.

        Args:
            image: by digest.

        Raises:
            RefusedError: IMAGE_NOT_FOUND, IMAGE_DECLARATION_INVALID.
            UnavailableError: REGISTRY_UNAVAILABLE.
        """
        return self._loop.run(self._inner.declaration(image))

    def resolve(self, image: str) -> str:
        """The image that a tag names now, by digest.

        Args:
            image: ``REGISTRY/REPOSITORY:TAG``; without a tag, ``latest``.

        Raises:
            RefusedError: IMAGE_NOT_FOUND.
            UnavailableError: REGISTRY_UNAVAILABLE.
        """
        return self._loop.run(self._inner.resolve(image))

    def declaration_if_known(self, image: str) -> Declaration | None:
        """What an image says of itself, or None when it cannot be told soon; never raises for a registry's sake.

        Raises:
            InvalidArgumentError: IMAGE_NOT_BY_DIGEST.
        """
        return self._loop.run(self._inner.declaration_if_known(image))


class Keys:
    """Lists of keys that payloads are sealed to."""

    def __init__(self, inner: AsyncKeys, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def publish(self, files: KeyFiles, keyring: Keyring) -> int:
        """Sign the list of the user's keys anew, tell it to the server, and return its version.

        Raises:
            RefusedError: KEYS_INVALID, the server does not believe it.
            PermissionDeniedError: CERTIFICATE_UNTRUSTED, the organization's authority is not known to the server.
        """
        return self._loop.run(self._inner.publish(files, keyring))

    def published_version(self, holder: str) -> int:
        """Version of the list of a holder that the server passes on; 0 for none that you may see."""
        return self._loop.run(self._inner.published_version(holder))


class Memberships:
    """What an organization answers to collaborations: only its own users can, with the permission to edit it."""

    def __init__(self, inner: AsyncMemberships, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def invitations(self) -> Iterator[Invitation]:
        """Open invitations of your organization, with who else is in the collaboration."""
        return self._loop.iterate(self._inner.invitations())

    def accept(self, collaboration: str, organization: str = "") -> Member:
        """Become a member; harmless when it is one.

        Args:
            collaboration: that invited.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such invitation.
            PermissionDeniedError: you do not speak for the organization.
        """
        return self._loop.run(self._inner.accept(collaboration, organization))

    def decline(self, collaboration: str, organization: str = "") -> None:
        """Say no to an invitation, which is then gone.

        Args:
            collaboration: that invited.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such invitation.
            ConflictError: IN_USE, it is a member already: leave instead.
        """
        self._loop.run(self._inner.decline(collaboration, organization))

    def suspend(self, collaboration: str, organization: str = "") -> Member:
        """Take no part for a while: nothing new is asked of the organization, what runs goes on.

        Args:
            collaboration: in which it is a member.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such membership.
            ConflictError: IN_USE, it is no member yet.
        """
        return self._loop.run(self._inner.suspend(collaboration, organization))

    def resume(self, collaboration: str, organization: str = "") -> Member:
        """Take part again; harmless when it does.

        Args:
            collaboration: in which it is a member.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such membership.
            ConflictError: IN_USE, it is no member yet.
        """
        return self._loop.run(self._inner.resume(collaboration, organization))

    def leave(self, collaboration: str, organization: str = "") -> None:
        """End the membership: the organization's open runs are cancelled.

        Args:
            collaboration: in which it is a member.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such membership.
        """
        self._loop.run(self._inner.leave(collaboration, organization))


class Tasks:
    """Tasks: questions to the organizations of a collaboration."""

    def __init__(self, inner: AsyncTasks, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def run(
        self,
        image: str,
        function: str,
        arguments: Mapping[str, Any] | Path | None = None,
        collaboration: str = "",
        organizations: Iterable[str] = (),
        targets: Iterable[Target] = (),
        datasets: Mapping[str, str] | None = None,
        title: str = "",
        timeout: timedelta | None = None,
        request_id: str | None = None,
        study: str = "",
        delegate: Delegate | bool = True,
        files: Mapping[str, Any] | None = None,
        quorum: int = 0,
        on_failure: OnFailure = OnFailure.CONTINUE,
        max_runtime: timedelta | None = None,
        max_attempts: int | None = None,
    ) -> TaskHandle:
        """Ask organizations to run a function of an image. The task is durable when this returns.

        Function, arguments and data parameters are checked against what the image declares, when its registry can be
        reached from here; the nodes check them in any case.

        Args:
            image: by digest.
            function: that the image declares.
            arguments: parameter -> value, or a file with a JSON object.
            collaboration: within which is asked.
            organizations: who is asked; any node of each.
            targets: who is asked, where nodes, arguments or datasets differ; in addition to ``organizations``.
            datasets: data parameter of the function -> dataset of the node; one that answers queries as
                ``NAME:QUERY?PARAMETER=VALUE&...``, of which the server learns the name alone.
            title: for people.
            timeout: time limit of the whole task, waiting included; the server's when None.
            request_id: UUID; the same one never creates a second task, but attaches to the first.
            study: within which of the collaboration is asked; the whole collaboration when empty.
            delegate: what the algorithm may ask of others in your name: anything within the collaboration or study;
                less by a ``Delegate``, nothing with False.
            files: data parameter of the function -> what it reads in place of a dataset of the node: a file of yours
                (.csv, .parquet, .arrow; any other for a parameter that takes a path), a ``pandas.DataFrame``, a
                ``pyarrow.Table``, or bytes (for a parameter that takes a path). They travel like the arguments, sealed
                to the nodes, of any size.
            quorum: how many answers suffice: the runs that are open then are cancelled, with QUORUM_REACHED, and the
                task succeeds; 0 for all.
            on_failure: whether the others go on when an organization gives no answer.
            max_runtime: of the algorithm in one run, in whole seconds; for as long as the nodes allow when None.
            max_attempts: how often a run is given to a node, 1 to 10, when nodes are lost or something around the
                algorithm does not work; the server's, 3, when None.

        Raises:
            InvalidArgumentError: something is not as it must be; ORGANIZATION_NOT_MEMBER, IMAGE_NOT_BY_DIGEST,
                FUNCTION_UNKNOWN, ARGUMENTS_INVALID.
            PermissionDeniedError: you may not ask in this collaboration.
            NotFoundError: there is no such collaboration.
            RefusedError: KEYS_INVALID or KEYS_STALE, an organization's keys are not to be believed.
        """
        return TaskHandle(
            self._loop.run(
                self._inner.run(
                    image,
                    function,
                    arguments,
                    collaboration,
                    organizations,
                    targets,
                    datasets,
                    title,
                    timeout,
                    request_id,
                    study,
                    delegate,
                    files,
                    quorum,
                    on_failure,
                    max_runtime,
                    max_attempts,
                )
            ),
            self._loop,
        )

    def run_many(self, questions: Iterable[Question]) -> Iterator[Answer]:
        """Ask many questions over one stream, which is several times as fast as asking one by one.

        Lost connections are made again, and no question is asked twice. A question that the server does not take is
        answered with its failure, and the others go on.

        Args:
            questions: taken as there is room; at most 500 are under way at once.

        Returns:
            The answers, in the order in which they come to be.

        Raises:
            VantageError: the server takes no questions from you at all.
        """
        return self._loop.iterate(self._inner.run_many(questions))

    def get(self, name: str) -> Task:
        """One task with its runs.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.get(name))

    def attach(self, name: str) -> TaskHandle:
        """A handle of a task that was created before.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return TaskHandle(self._loop.run(self._inner.attach(name)), self._loop)

    def list(
        self,
        collaboration: str = "",
        states: Sequence[TaskState] = (),
        creator: str = "",
        created_after: datetime | None = None,
    ) -> Iterator[Task]:
        """The tasks that you may see, newest first, without results.

        Args:
            collaboration: only those of this one.
            states: only those in one of these.
            creator: only those of this user, or of this node.
            created_after: only those created then or later.
        """
        return self._loop.iterate(self._inner.list(collaboration, states, creator, created_after))

    def cancel(self, name: str) -> Task:
        """Cancel a task and all that it started; harmless when it has ended.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.run(self._inner.cancel(name))

    def watch(self, name: str, after_sequence: int = 0) -> Iterator[Event]:
        """The events of a task until its end; goes on by itself after lost connections.

        Args:
            name: of the task.
            after_sequence: of the last event that you have.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        return self._loop.iterate(self._inner.watch(name, after_sequence))


class Trust:
    """Authorities of organizations and their revocation lists, as the server passes them on."""

    def __init__(self, inner: AsyncTrust, loop: LoopThread) -> None:
        self._inner = inner
        self._loop = loop

    def add_authority(self, organization: str, certificate: str) -> AuthoritiesChanged:
        """Add a certificate of an organization's authority; harmless when it is there.

        Args:
            organization: whose.
            certificate: PEM.

        Raises:
            NotFoundError: there is no such organization, or you may not see it.
            InvalidArgumentError: CERTIFICATE_INVALID, it is none of this organization, or there are five.
        """
        return self._loop.run(self._inner.add_authority(organization, certificate))

    def remove_authority(self, organization: str, fingerprint: str) -> AuthoritiesChanged:
        """Remove one; what it vouched for ends at once.

        Args:
            organization: whose.
            fingerprint: of the certificate.

        Raises:
            NotFoundError: there is no such organization, or you may not see it.
        """
        return self._loop.run(self._inner.remove_authority(organization, fingerprint))

    def set_revocations(self, organization: str, revocation_list: bytes) -> RevocationsChanged:
        """Replace the revocation list of an organization; what is on it ends at once.

        Args:
            organization: whose.
            revocation_list: PEM or DER.

        Raises:
            NotFoundError: there is no such organization, or you may not see it.
            InvalidArgumentError: REVOCATION_LIST_INVALID.
            ConflictError: REVOCATION_LIST_OUTDATED, a newer one is in use.
        """
        return self._loop.run(self._inner.set_revocations(organization, revocation_list))

    def bundle(self) -> builtins.list[OrganizationTrust]:
        """Authorities and revocation lists of your organization and of those that you work with. Nothing of it is
        proven: give it to a ``TrustStore``.

        Raises:
            PermissionDeniedError: you may not view organizations.
        """
        return self._loop.run(self._inner.bundle())
