"""Users: made and changed by somebody who holds every right that they give or touch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain import audit, display_names
from vantage.server.domain.etags import check_etag
from vantage.server.domain.passwords import Passwords
from vantage.server.domain.permissions import Operation, Owner, Permission, Resource, may_grant, reach
from vantage.server.domain.principals import UserKind, UserPrincipal
from vantage.server.services.access import missing, require, require_new
from vantage.server.services.credentials import new_reset
from vantage.server.services.directory import Directory
from vantage.server.storage import key_store, organization_store, pages, role_store, user_store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.pages import Page
from vantage.server.storage.user_store import User

ROOT_ROLE = "roles/root"
MAX_ROLES = 20


@dataclass(frozen=True)
class UserChange:
    """What to change of a user; None leaves it."""

    display_name: str | None = None
    roles: Sequence[str] | None = None


class Users:
    """Use cases of users."""

    def __init__(self, database: Database, directory: Directory, passwords: Passwords, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._passwords = passwords
        self._clock = clock

    async def create(
        self,
        caller: UserPrincipal,
        user_id: str,
        organization: str,
        roles: Sequence[str],
        display_name: str,
        password: str,
        kind: UserKind,
    ) -> tuple[User, str]:
        """Create a user; returns also a reset token for a person without a password, otherwise an empty text.

        Raises:
            VantageError: ROLE_EXCEEDS_OWN, PASSWORD_TOO_WEAK, ALREADY_EXISTS, NOT_FOUND, PERMISSION_DENIED.
        """
        name = str(names.parse(f"users/{user_id}", "users", field="user_id"))
        if organization:
            names.parse(organization, "organizations", field="organization")
        audit.note(name, organization=organization, roles=" ".join(roles))
        home = organization or None
        require_new(caller, Resource.USER, Owner(organization=home))
        # Before the costly hash, and again in the transaction: a role may change meanwhile.
        await self._database.read(lambda connection: _check_roles(connection, caller, roles, home))
        _check_kind(kind, organization, password)
        hashed = await self._passwords.hash_new(password, user_id) if password else ""
        shown = display_names.checked(display_name) or user_id
        user = User(name, home, shown, hashed, tuple(sorted(set(roles))), self._clock.now(), kind)

        def unit(connection: Connection) -> str:
            if organization and organization_store.get_organization(connection, organization) is None:
                raise error(Reason.NOT_FOUND, f"{organization} does not exist: create it first")
            _check_roles(connection, caller, roles, home)
            if user_store.left_something(connection, name):
                # Whoever made a thing may see it and more: it must not become that of another person.
                raise error(
                    Reason.ALREADY_EXISTS,
                    f"there are tasks or other things of a former {name}: choose another user name",
                )
            user_store.create(connection, user)
            return "" if hashed or kind is not UserKind.PERSON else new_reset(connection, name, user.created)[0]

        return user, await self._database.write(unit)

    async def get(self, caller: UserPrincipal, name: str) -> User:
        """One user."""
        names.parse(name, "users")
        return await self._database.read(lambda connection: _get(connection, caller, Operation.VIEW, name))

    async def list_page(self, caller: UserPrincipal, page_size: int, token: str, organization: str) -> Page[User]:
        """One page of the users in reach."""
        query = f"users {organization}"
        size, after = pages.page_size(page_size), pages.decode(token, query)
        reached = reach(caller, Resource.USER, Operation.VIEW)
        rows = await self._database.read(
            lambda connection: user_store.list_users(connection, reached, organization or None, after, size + 1)
        )
        return pages.cut(rows, size, query, lambda each: each.name)

    async def update(self, caller: UserPrincipal, name: str, change: UserChange, etag: str) -> User:
        """Change a user.

        Raises:
            VantageError: ROLE_EXCEEDS_OWN, ETAG_MISMATCH, IN_USE, NOT_FOUND, PERMISSION_DENIED.
        """
        names.parse(name, "users")
        audit.note(name, roles=" ".join(change.roles or ()), change=_changed(change))

        def unit(connection: Connection) -> User:
            user = _get(connection, caller, Operation.EDIT, name)
            check_etag(etag, user.etag, name)
            check_governed(connection, caller, user)
            roles = user.roles if change.roles is None else tuple(sorted(set(change.roles)))
            if change.roles is not None:
                _check_roles(connection, caller, roles, user.organization)
                if ROOT_ROLE not in roles:
                    _keep_a_root(connection, user)
            shown = user.display_name if change.display_name is None else display_names.checked(change.display_name)
            user_store.set_details(connection, name, shown, roles)
            return _get(connection, caller, Operation.EDIT, name)

        changed = await self._database.write(unit)
        self._directory.forget()
        return changed

    async def delete(self, caller: UserPrincipal, name: str) -> None:
        """Delete a user and end their sessions at once. Nobody deletes one who may more than they."""
        names.parse(name, "users")
        audit.note(name)

        def unit(connection: Connection) -> None:
            user = _get(connection, caller, Operation.DELETE, name)
            check_governed(connection, caller, user)
            _keep_a_root(connection, user)
            user_store.remove(connection, name)
            if user.organization is not None:
                key_store.remove(connection, f"{user.organization}/{name}")

        await self._database.write(unit)
        self._directory.forget()


def _check_kind(kind: UserKind, organization: str, password: str) -> None:
    if kind is not UserKind.SERVICE_ACCOUNT:
        return
    if password:
        raise error(
            Reason.INVALID_ARGUMENT,
            "a service account has no password: it logs in with a key that its organization certifies",
            field="password",
        )
    if not organization:
        raise error(
            Reason.INVALID_ARGUMENT,
            "a service account belongs to an organization, which certifies its key",
            field="organization",
        )


def _get(connection: Connection, caller: UserPrincipal, operation: Operation, name: str) -> User:
    found = user_store.get(connection, name)
    require(caller, Resource.USER, operation, name, None if found is None else found.owner)
    if found is None:
        raise missing(name)
    return found


def _check_roles(
    connection: Connection, caller: UserPrincipal, roles: Collection[str], organization: str | None
) -> None:
    """Whether the caller may give these roles to a user of the organization.

    Raises:
        VantageError: INVALID_ARGUMENT, also for roles that the caller may not see; ROLE_EXCEEDS_OWN.
    """
    if len(roles) > MAX_ROLES:
        raise error(Reason.INVALID_ARGUMENT, f"a user has at most {MAX_ROLES} roles", field="roles")
    known = role_store.get_many(connection, roles)
    for name in roles:
        role = known.get(name)
        # An organization's role means nothing elsewhere; and for others it does not exist.
        if role is None or not role.assignable or role.organization not in (None, organization):
            raise error(
                Reason.INVALID_ARGUMENT,
                f"there is no role {name[:120]!r} for users of {organization or 'the server itself'}: list the roles",
                field="roles",
            )
    granted = may_grant(caller, _permissions(connection, roles), organization)
    if not granted.allowed:
        raise error(Reason.ROLE_EXCEEDS_OWN, f"the roles cannot be given: {granted.reason}")


def check_governed(connection: Connection, caller: UserPrincipal, user: User) -> None:
    """Let nobody change, delete or become a user who may more than they.

    Raises:
        PermissionDeniedError: ROLE_EXCEEDS_OWN.
    """
    if not may_grant(caller, _permissions(connection, user.roles), user.organization).allowed:
        raise error(Reason.ROLE_EXCEEDS_OWN, f"{user.name} has permissions that you lack: ask a root user")


def _keep_a_root(connection: Connection, user: User) -> None:
    if ROOT_ROLE in user.roles and len(role_store.holders(connection, ROOT_ROLE, 2)) < 2:
        raise error(Reason.IN_USE, f"{user.name} is the last root user: make another one first")


def _permissions(connection: Connection, roles: Collection[str]) -> frozenset[Permission]:
    return frozenset(
        permission for role in role_store.get_many(connection, roles).values() for permission in role.permissions
    )


def _changed(change: UserChange) -> str:
    return " ".join(field for field, value in vars(change).items() if value is not None)
