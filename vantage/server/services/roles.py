"""Roles: nobody makes, changes or takes away what they do not hold themselves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain import audit
from vantage.server.domain.etags import check_etag, etag_of
from vantage.server.domain.permissions import Operation, Owner, Permission, Reach, Resource, may_grant, reach
from vantage.server.domain.principals import UserPrincipal
from vantage.server.domain.roles import BUILTIN, Role
from vantage.server.services.access import missing, require_new
from vantage.server.services.directory import Directory
from vantage.server.storage import pages, role_store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.pages import Page

MAX_DESCRIPTION = 1_000


@dataclass(frozen=True)
class RoleChange:
    """What to change of a role; None leaves it."""

    description: str | None = None
    permissions: frozenset[Permission] | None = None


def role_etag(role: Role) -> str:
    """Changes with what an update can change."""
    return etag_of(role.description, sorted(map(str, role.permissions)))


class Roles:
    """Use cases of roles."""

    def __init__(self, database: Database, directory: Directory, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock

    async def create(
        self,
        user: UserPrincipal,
        organization: str,
        role_id: str,
        description: str,
        permissions: frozenset[Permission],
    ) -> Role:
        """Create a role of an organization, or of the server when none is named.

        Raises:
            VantageError: ROLE_EXCEEDS_OWN, ALREADY_EXISTS, NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT.
        """
        prefix = f"{names.parse(organization, 'organizations', field='organization')}/" if organization else ""
        kind = "organizations/roles" if organization else "roles"
        name = str(names.parse(f"{prefix}roles/{role_id}", kind, field="role_id"))
        audit.note(name, permissions=_text(permissions))
        role = Role(name, _checked(description), permissions, organization or None, user.name, self._clock.now())
        # Not by the creator: whoever may create "own" roles makes none for the server or for others with it.
        require_new(user, Resource.ROLE, Owner(organization=role.organization))
        _check_held(user, permissions, role)
        if name in BUILTIN:
            raise error(Reason.ALREADY_EXISTS, f"{name} comes with the server: choose another id")
        await self._database.write(lambda connection: role_store.create(connection, role))
        return role

    async def get(self, user: UserPrincipal, name: str) -> Role:
        """One role."""
        _parse(name)
        return await self._database.read(lambda connection: _get(connection, user, Operation.VIEW, name))

    async def list_page(self, user: UserPrincipal, page_size: int, token: str) -> Page[Role]:
        """One page of the roles in reach, with those that come with the server."""
        size, after = pages.page_size(page_size), pages.decode(token, "roles")
        reached = reach(user, Resource.ROLE, Operation.VIEW)
        custom = await self._database.read(
            lambda connection: role_store.list_roles(connection, reached, after, size + 1)
        )
        builtin = [role for name, role in BUILTIN.items() if after is None or name > after]
        rows = sorted((*custom, *builtin), key=lambda role: role.name)[: size + 1]
        return pages.cut(rows, size, "roles", lambda each: each.name)

    async def update(self, user: UserPrincipal, name: str, change: RoleChange, etag: str) -> Role:
        """Change a role; counts from the next call of whoever holds it.

        Raises:
            VantageError: ROLE_EXCEEDS_OWN, ETAG_MISMATCH, NOT_FOUND, PERMISSION_DENIED, INVALID_ARGUMENT.
        """
        _parse(name)
        audit.note(name, permissions=_text(change.permissions or ()))

        def unit(connection: Connection) -> Role:
            role = _changeable(connection, user, Operation.EDIT, name)
            check_etag(etag, role_etag(role), name)
            changed = replace(
                role,
                description=role.description if change.description is None else _checked(change.description),
                permissions=role.permissions if change.permissions is None else change.permissions,
            )
            _check_held(user, changed.permissions, role)
            role_store.replace(connection, changed)
            return _get(connection, user, Operation.EDIT, name)

        changed = await self._database.write(unit)
        self._directory.forget()
        return changed

    async def delete(self, user: UserPrincipal, name: str) -> None:
        """Delete a role that nobody holds."""
        _parse(name)
        audit.note(name)

        def unit(connection: Connection) -> None:
            _changeable(connection, user, Operation.DELETE, name)
            role_store.remove(connection, name)

        await self._database.write(unit)
        self._directory.forget()


def visible(role: Role, reached: Reach) -> bool:
    """Roles of the server itself are there for everybody who may view roles; others are seen where they are reached."""
    return not reached.empty and (role.organization is None or reached.covers(role.owner))


def _get(connection: Connection, user: UserPrincipal, operation: Operation, name: str) -> Role:
    role = role_store.get(connection, name)
    seen = role is not None and visible(role, reach(user, Resource.ROLE, Operation.VIEW))
    if operation is Operation.VIEW and role is not None and seen:
        return role
    if role is not None and operation is not Operation.VIEW:
        if reach(user, Resource.ROLE, operation).covers(role.owner):
            return role
        if seen:
            raise error(
                Reason.PERMISSION_DENIED,
                f"you see {name} but none of your roles permits to {operation.name.lower()} it",
            )
    raise missing(name)


def _changeable(connection: Connection, user: UserPrincipal, operation: Operation, name: str) -> Role:
    role = _get(connection, user, operation, name)
    if role.builtin:
        raise error(Reason.PERMISSION_DENIED, f"{name} comes with the server and cannot be changed: make another role")
    # Others may hold it: whoever lacks a part of it may not decide over it.
    _check_held(user, role.permissions, role)
    return role


def _check_held(user: UserPrincipal, permissions: frozenset[Permission], role: Role) -> None:
    """Whether the user holds it all; a role of the server may be given to users of any organization."""
    granted = may_grant(user, permissions, role.organization, anywhere=role.organization is None)
    if not granted.allowed:
        raise error(Reason.ROLE_EXCEEDS_OWN, f"{role.name}: {granted.reason}")


def _parse(name: str) -> None:
    names.parse(name, "organizations/roles" if name.startswith("organizations/") else "roles")


def _checked(description: str) -> str:
    if len(description) > MAX_DESCRIPTION:
        raise error(
            Reason.INVALID_ARGUMENT, f"description has at most {MAX_DESCRIPTION} characters", field="description"
        )
    return description


def _text(permissions: Iterable[Permission]) -> str:
    return ", ".join(sorted(map(str, permissions)))
