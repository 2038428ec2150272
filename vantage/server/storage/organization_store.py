"""Organizations, collaborations and nodes: who belongs where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, false, insert, or_, select, true
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError

from vantage.common.errors import Reason, error
from vantage.server.domain.permissions import Owner, Reach
from vantage.server.storage import schema

_organization = schema.organization.c
_member = schema.member.c
_collaboration = schema.collaboration.c
_node = schema.node.c
_serves = schema.node_collaboration.c


@dataclass(frozen=True)
class Organization:
    """An organization as stored."""

    name: str
    display_name: str
    ca_certificates: tuple[str, ...]
    created: datetime


@dataclass(frozen=True)
class Collaboration:
    """A collaboration as stored."""

    name: str
    display_name: str
    organizations: tuple[str, ...]
    creator: str
    created: datetime

    @property
    def owner(self) -> Owner:
        """To whom it belongs."""
        return Owner(collaborations=frozenset({self.name}), creator=self.creator)


@dataclass(frozen=True)
class Node:
    """A node as stored."""

    name: str
    organization: str
    collaborations: tuple[str, ...]
    created: datetime

    @property
    def owner(self) -> Owner:
        """To whom it belongs."""
        return Owner(organization=self.organization, collaborations=frozenset(self.collaborations))


def create_organization(connection: Connection, organization: Organization) -> None:
    """Insert an organization.

    Raises:
        ConflictError: ALREADY_EXISTS.
    """
    try:
        connection.execute(
            insert(schema.organization).values(
                name=organization.name, display_name=organization.display_name, created=organization.created
            )
        )
    except IntegrityError:
        raise error(Reason.ALREADY_EXISTS, f"{organization.name} exists already: choose another id") from None
    set_certificates(connection, organization.name, organization.ca_certificates)


def set_certificates(connection: Connection, organization: str, pems: Sequence[str]) -> None:
    """Replace the authority certificates of an organization."""
    table = schema.organization_certificate
    connection.execute(delete(table).where(table.c.organization == organization))
    if pems:
        connection.execute(
            insert(table),
            [{"organization": organization, "position": index, "pem": pem} for index, pem in enumerate(pems)],
        )


def certificates(connection: Connection, organization: str) -> list[str]:
    """Authority certificates of an organization; none when it does not exist."""
    table = schema.organization_certificate.c
    statement = select(table.pem).where(table.organization == organization).order_by(table.position)
    return list(connection.execute(statement).scalars())


def organization_owner(connection: Connection, name: str) -> Owner:
    """To whom an organization belongs: itself, and the collaborations that it is a member of."""
    return Owner(organization=name, collaborations=frozenset(memberships(connection, name)))


def get_organization(connection: Connection, name: str) -> Organization | None:
    """An organization by name."""
    found = _organizations(connection, _organization.name == name, 1)
    return found[0] if found else None


def list_organizations(connection: Connection, reach: Reach, after: str | None, limit: int) -> list[Organization]:
    """Organizations in reach, by name."""
    shared = exists().where(_member.organization == _organization.name, _member.collaboration.in_(reach.collaborations))
    own = _organization.name == reach.organization if reach.organization is not None else false()
    condition = true() if reach.everything else or_(own, shared)
    if after is not None:
        condition = and_(condition, _organization.name > after)
    return _organizations(connection, condition, limit)


def delete_organization(connection: Connection, name: str) -> None:
    """Delete an organization that nothing refers to.

    Raises:
        ConflictError: IN_USE.
    """
    try:
        connection.execute(delete(schema.organization).where(_organization.name == name))
    except IntegrityError:
        raise error(
            Reason.IN_USE, f"{name} has users, nodes, memberships or tasks: remove those that can be removed first"
        ) from None


def memberships(connection: Connection, organization: str) -> list[str]:
    """Collaborations that an organization is a member of."""
    return list(
        connection.execute(
            select(_member.collaboration).where(_member.organization == organization).order_by(_member.collaboration)
        ).scalars()
    )


def create_collaboration(connection: Connection, collaboration: Collaboration) -> None:
    """Insert a collaboration with members.

    Raises:
        ConflictError: ALREADY_EXISTS.
        NotFoundError: a member does not exist.
    """
    try:
        connection.execute(
            insert(schema.collaboration).values(
                name=collaboration.name,
                display_name=collaboration.display_name,
                creator=collaboration.creator,
                created=collaboration.created,
            )
        )
    except IntegrityError:
        raise error(Reason.ALREADY_EXISTS, f"{collaboration.name} exists already: choose another id") from None
    for organization in collaboration.organizations:
        add_member(connection, collaboration.name, organization)


def add_member(connection: Connection, collaboration: str, organization: str) -> None:
    """Make an organization a member; harmless when it is one.

    Raises:
        NotFoundError: the organization does not exist.
    """
    try:
        connection.execute(
            upsert(schema.member)
            .values(collaboration=collaboration, organization=organization)
            .on_conflict_do_nothing()
        )
    except IntegrityError:
        raise error(Reason.NOT_FOUND, f"{organization} does not exist: create it first") from None


def remove_member(connection: Connection, collaboration: str, organization: str) -> None:
    """End a membership and what the organization's nodes serve of it; harmless when there is none."""
    connection.execute(
        delete(schema.member).where(_member.collaboration == collaboration, _member.organization == organization)
    )
    nodes = select(_node.name).where(_node.organization == organization)
    connection.execute(
        delete(schema.node_collaboration).where(_serves.collaboration == collaboration, _serves.node.in_(nodes))
    )


def get_collaboration(connection: Connection, name: str) -> Collaboration | None:
    """A collaboration by name."""
    found = _collaborations(connection, _collaboration.name == name, 1)
    return found[0] if found else None


def list_collaborations(connection: Connection, reach: Reach, after: str | None, limit: int) -> list[Collaboration]:
    """Collaborations in reach, by name."""
    made = _collaboration.creator == reach.creator if reach.creator is not None else false()
    condition = true() if reach.everything else or_(_collaboration.name.in_(reach.collaborations), made)
    if after is not None:
        condition = and_(condition, _collaboration.name > after)
    return _collaborations(connection, condition, limit)


def delete_collaboration(connection: Connection, name: str) -> None:
    """Delete a collaboration that nothing refers to.

    Raises:
        ConflictError: IN_USE.
    """
    try:
        connection.execute(delete(schema.collaboration).where(_collaboration.name == name))
    except IntegrityError:
        raise error(Reason.IN_USE, f"{name} has tasks: a collaboration that was used stays for the record") from None


def create_node(connection: Connection, node: Node) -> None:
    """Insert a node.

    Raises:
        ConflictError: ALREADY_EXISTS.
        InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
    """
    try:
        connection.execute(
            insert(schema.node).values(name=node.name, organization=node.organization, created=node.created)
        )
    except IntegrityError:
        raise error(Reason.ALREADY_EXISTS, f"{node.name} exists already: choose another id") from None
    joined = set(memberships(connection, node.organization))
    for collaboration in node.collaborations:
        if collaboration not in joined:
            raise error(
                Reason.ORGANIZATION_NOT_MEMBER,
                f"{node.organization} is not a member of {collaboration}: add it to the collaboration first",
            )
        connection.execute(insert(schema.node_collaboration).values(node=node.name, collaboration=collaboration))


def get_node(connection: Connection, name: str) -> Node | None:
    """A node by name."""
    found = _nodes(connection, _node.name == name, 1)
    return found[0] if found else None


def list_nodes(
    connection: Connection,
    reach: Reach,
    organization: str | None,
    collaboration: str | None,
    after: str | None,
    limit: int,
) -> list[Node]:
    """Nodes in reach, by name."""
    shared = exists().where(_serves.node == _node.name, _serves.collaboration.in_(reach.collaborations))
    own = _node.organization == reach.organization if reach.organization is not None else false()
    conditions: list[ColumnElement[bool]] = [true() if reach.everything else or_(own, shared)]
    if organization is not None:
        conditions.append(_node.organization == organization)
    if collaboration is not None:
        conditions.append(exists().where(_serves.node == _node.name, _serves.collaboration == collaboration))
    if after is not None:
        conditions.append(_node.name > after)
    return _nodes(connection, and_(*conditions), limit)


def delete_node(connection: Connection, name: str) -> None:
    """Delete a node."""
    connection.execute(delete(schema.node).where(_node.name == name))


def _organizations(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[Organization]:
    rows = connection.execute(
        select(_organization.name, _organization.display_name, _organization.created)
        .where(condition)
        .order_by(_organization.name)
        .limit(limit)
    ).all()
    pems = schema.organization_certificate.c
    found = _grouped(
        connection.execute(
            select(pems.organization, pems.pem)
            .where(pems.organization.in_([row.name for row in rows]))
            .order_by(pems.position)
        )
    )
    return [Organization(row.name, row.display_name, tuple(found.get(row.name, ())), row.created) for row in rows]


def _collaborations(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[Collaboration]:
    rows = connection.execute(
        select(_collaboration.name, _collaboration.display_name, _collaboration.creator, _collaboration.created)
        .where(condition)
        .order_by(_collaboration.name)
        .limit(limit)
    ).all()
    found = _grouped(
        connection.execute(
            select(_member.collaboration, _member.organization)
            .where(_member.collaboration.in_([row.name for row in rows]))
            .order_by(_member.organization)
        )
    )
    return [
        Collaboration(row.name, row.display_name, tuple(found.get(row.name, ())), row.creator, row.created)
        for row in rows
    ]


def _nodes(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[Node]:
    rows = connection.execute(
        select(_node.name, _node.organization, _node.created).where(condition).order_by(_node.name).limit(limit)
    ).all()
    found = _grouped(
        connection.execute(
            select(_serves.node, _serves.collaboration)
            .where(_serves.node.in_([row.name for row in rows]))
            .order_by(_serves.collaboration)
        )
    )
    return [Node(row.name, row.organization, tuple(found.get(row.name, ())), row.created) for row in rows]


def _grouped(pairs: Iterable[Any]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
