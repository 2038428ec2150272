"""Custom roles."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from vantage.common.errors import Reason, error
from vantage.server.domain.permissions import Operation, Permission, Reach, Resource, Scope
from vantage.server.domain.roles import BUILTIN, Role
from vantage.server.storage import schema
from vantage.server.storage.reach_filter import in_reach

_role = schema.role.c
_permission = schema.role_permission.c


def create(connection: Connection, role: Role) -> None:
    """Insert a role.

    Raises:
        ConflictError: ALREADY_EXISTS.
        NotFoundError: its organization does not exist.
    """
    if (
        role.organization is not None
        and not connection.execute(select(exists().where(schema.organization.c.name == role.organization))).scalar_one()
    ):
        raise error(Reason.NOT_FOUND, f"{role.organization} does not exist: create it first")
    try:
        connection.execute(
            insert(schema.role).values(
                name=role.name,
                organization=role.organization,
                description=role.description,
                creator=role.creator,
                created=role.created,
            )
        )
    except IntegrityError:
        raise error(Reason.ALREADY_EXISTS, f"{role.name} exists already: choose another id") from None
    _set_permissions(connection, role)


def replace(connection: Connection, role: Role) -> None:
    """Write description and permissions."""
    connection.execute(update(schema.role).where(_role.name == role.name).values(description=role.description))
    connection.execute(delete(schema.role_permission).where(_permission.role == role.name))
    _set_permissions(connection, role)


def remove(connection: Connection, name: str) -> None:
    """Delete a role that nobody holds.

    Raises:
        ConflictError: IN_USE.
    """
    if holders(connection, name, 1):
        raise error(Reason.IN_USE, f"{name} is held by users: take it from them first")
    connection.execute(delete(schema.role).where(_role.name == name))


def holders(connection: Connection, name: str, limit: int) -> list[str]:
    """Users that hold a role."""
    table = schema.user_role.c
    return list(
        connection.execute(select(table.user).where(table.role == name).order_by(table.user).limit(limit)).scalars()
    )


def get(connection: Connection, name: str) -> Role | None:
    """A role by name, also one that comes with the server."""
    if name in BUILTIN:
        return BUILTIN[name]
    found = _load(connection, _role.name == name, 1)
    return found[0] if found else None


def get_many(connection: Connection, names: Collection[str]) -> dict[str, Role]:
    """Roles by name; those that do not exist are left out."""
    found = {name: BUILTIN[name] for name in names if name in BUILTIN}
    custom = [name for name in names if name not in BUILTIN]
    if custom:
        found |= {role.name: role for role in _load(connection, _role.name.in_(custom), len(custom))}
    return found


def list_roles(connection: Connection, reach: Reach, after: str | None, limit: int) -> list[Role]:
    """Custom roles in reach, and those of the server itself, by name."""
    condition = or_(
        _role.organization.is_(None), in_reach(reach, organization=_role.organization, creator=_role.creator)
    )
    if after is not None:
        condition = and_(condition, _role.name > after)
    return _load(connection, condition, limit)


def _set_permissions(connection: Connection, role: Role) -> None:
    rows = {
        (each.resource.value, each.operation.value): int(each.scope)
        for each in sorted(role.permissions, key=lambda each: each.scope)  # the widest wins
    }
    if rows:
        connection.execute(
            insert(schema.role_permission),
            [
                {"role": role.name, "resource": resource, "operation": operation, "scope": scope}
                for (resource, operation), scope in rows.items()
            ],
        )


def _load(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[Role]:
    rows = connection.execute(
        select(_role.name, _role.organization, _role.description, _role.creator, _role.created)
        .where(condition)
        .order_by(_role.name)
        .limit(limit)
    ).all()
    permissions: dict[str, set[Permission]] = {}
    for role, resource, operation, scope in connection.execute(
        select(_permission.role, _permission.resource, _permission.operation, _permission.scope).where(
            _permission.role.in_([row.name for row in rows])
        )
    ):
        permissions.setdefault(role, set()).add(Permission(Resource(resource), Operation(operation), Scope(scope)))
    return [
        Role(
            row.name,
            row.description,
            frozenset(permissions.get(row.name, ())),
            row.organization,
            row.creator,
            row.created,
        )
        for row in rows
    ]
