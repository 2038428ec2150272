"""Users: made by somebody who holds every right that they give."""

from __future__ import annotations

from collections.abc import Sequence

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain.passwords import Passwords, check_strength
from vantage.server.domain.permissions import ROLES, Operation, Owner, Resource, may_grant, reach
from vantage.server.domain.principals import UserPrincipal
from vantage.server.services.access import missing, require, require_new
from vantage.server.services.directory import Directory
from vantage.server.storage import organization_store, pages, user_store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.user_store import User


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
    ) -> User:
        """Create a user.

        Raises:
            VantageError: ROLE_EXCEEDS_OWN, PASSWORD_TOO_WEAK, ALREADY_EXISTS, NOT_FOUND, PERMISSION_DENIED.
        """
        name = str(names.parse(f"users/{user_id}", "users", field="user_id"))
        if organization:
            names.parse(organization, "organizations", field="organization")
        require_new(caller, Resource.USER, Owner(organization=organization or None))
        for role in roles:
            if role not in ROLES:
                known = ", ".join(ROLES)
                raise error(Reason.INVALID_ARGUMENT, f"there is no role {role[:80]!r}: use {known}", field="roles")
        granted = may_grant(caller, roles)
        if not granted.allowed:
            raise error(Reason.ROLE_EXCEEDS_OWN, granted.reason)
        check_strength(password, user_id)
        hashed = await self._passwords.hash(password)
        user = User(
            name,
            organization or None,
            display_name or user_id,
            hashed,
            tuple(sorted(set(roles))),
            self._clock.now(),
        )

        def unit(connection: Connection) -> None:
            if organization and organization_store.get_organization(connection, organization) is None:
                raise error(Reason.NOT_FOUND, f"{organization} does not exist: create it first")
            user_store.create(connection, user)

        await self._database.write(unit)
        return user

    async def get(self, caller: UserPrincipal, name: str) -> User:
        """One user."""
        names.parse(name, "users")
        return await self._database.read(lambda connection: _get(connection, caller, Operation.VIEW, name))

    async def list_page(
        self, caller: UserPrincipal, page_size: int, token: str, organization: str
    ) -> tuple[Sequence[User], str]:
        """One page of the users in reach."""
        query = f"users {organization}"
        size, after = pages.page_size(page_size), pages.decode(token, query)
        reached = reach(caller, Resource.USER, Operation.VIEW)
        rows = await self._database.read(
            lambda connection: user_store.list_users(connection, reached, organization or None, after, size + 1)
        )
        return pages.cut(rows, size, query, lambda each: each.name)

    async def delete(self, caller: UserPrincipal, name: str) -> None:
        """Delete a user and end their sessions at once. Nobody deletes one who may more than they."""
        names.parse(name, "users")

        def unit(connection: Connection) -> None:
            user = _get(connection, caller, Operation.DELETE, name)
            if not may_grant(caller, user.roles).allowed:
                raise error(Reason.ROLE_EXCEEDS_OWN, f"{name} has permissions that you lack: ask a root user")
            user_store.remove(connection, name)

        await self._database.write(unit)
        self._directory.forget()


def _get(connection: Connection, caller: UserPrincipal, operation: Operation, name: str) -> User:
    found = user_store.get(connection, name)
    # A user is their own "creator": scope own reaches oneself.
    owner = None if found is None else Owner(organization=found.organization, creator=found.name)
    require(caller, Resource.USER, operation, name, owner)
    if found is None:
        raise missing(name)
    return found
