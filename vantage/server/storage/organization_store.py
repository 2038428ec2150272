"""Organizations and their nodes: who belongs where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    and_,
    bindparam,
    delete,
    exists,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from vantage.common.errors import Reason, error
from vantage.server.domain.etags import etag_of
from vantage.server.domain.membership import MEMBERS, Standing
from vantage.server.domain.permissions import Owner, Reach
from vantage.server.storage import schema, settings_store
from vantage.server.storage.reach_filter import in_reach

_organization = schema.organization.c
_member = schema.member.c
_node = schema.node.c
_serves = schema.node_collaboration.c
_SERVING = (
    select(schema.node.c.name, schema.node.c.organization, schema.node_collaboration.c.collaboration)
    .join(schema.node_collaboration, schema.node_collaboration.c.node == schema.node.c.name)
    .join(
        schema.member,
        and_(
            _member.organization == schema.node.c.organization,
            _member.collaboration == schema.node_collaboration.c.collaboration,
            _member.state == int(Standing.ACTIVE),
        ),
    )
    .where(
        tuple_(schema.node.c.organization, schema.node_collaboration.c.collaboration).in_(
            bindparam("wanted", expanding=True)
        )
    )
    .order_by(schema.node.c.name)
)
_JOINED = _member.state.in_([int(each) for each in MEMBERS])


@dataclass(frozen=True)
class Organization:
    """An organization as stored."""

    name: str
    display_name: str
    ca_certificates: tuple[str, ...]
    created: datetime

    @property
    def etag(self) -> str:
        """Changes with what an update can change."""
        return etag_of(self.display_name, self.ca_certificates)


@dataclass(frozen=True)
class Node:
    """A node as stored."""

    name: str
    organization: str
    collaborations: tuple[str, ...]
    created: datetime
    active: tuple[str, ...] = ()
    """Those of its collaborations whose membership its organization has not suspended."""

    @property
    def owner(self) -> Owner:
        """To whom it belongs."""
        return Owner(organization=self.organization, collaborations=frozenset(self.collaborations))

    @property
    def etag(self) -> str:
        """Changes with what an update can change."""
        return etag_of(self.collaborations)


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
    settings_store.trust_changed(connection)


def certificates(connection: Connection, organization: str) -> list[str]:
    """Authority certificates of an organization; none when it does not exist."""
    table = schema.organization_certificate.c
    statement = select(table.pem).where(table.organization == organization).order_by(table.position)
    return list(connection.execute(statement).scalars())


def all_certificates(connection: Connection) -> list[str]:
    """Authority certificates of all organizations."""
    return list(connection.execute(select(schema.organization_certificate.c.pem)).scalars())


def organization_owner(connection: Connection, name: str) -> Owner:
    """To whom an organization belongs: itself, and the collaborations that it is a member of."""
    return Owner(organization=name, collaborations=frozenset(memberships(connection, name)))


def get_organization(connection: Connection, name: str) -> Organization | None:
    """An organization by name."""
    found = _organizations(connection, _organization.name == name, 1)
    return found[0] if found else None


def list_organizations(connection: Connection, reach: Reach, after: str | None, limit: int) -> list[Organization]:
    """Organizations in reach, by name."""
    condition = in_reach(
        reach,
        organization=_organization.name,
        collaboration=lambda wanted: exists().where(
            _member.organization == _organization.name, _member.collaboration.in_(wanted), _JOINED
        ),
    )
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
    """Collaborations that an organization is a member of: it has accepted; it may have suspended."""
    return list(standings(connection, organization, MEMBERS))


def standings(connection: Connection, organization: str, wanted: Iterable[Standing]) -> Sequence[str]:
    """Collaborations in which an organization stands so."""
    return (
        connection.execute(
            select(_member.collaboration)
            .where(_member.organization == organization, _member.state.in_([int(each) for each in wanted]))
            .order_by(_member.collaboration)
        )
        .scalars()
        .all()
    )


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
    _serve(connection, node.name, node.organization, node.collaborations)


def set_collaborations(connection: Connection, node: Node, collaborations: Sequence[str]) -> None:
    """Replace what a node serves.

    Raises:
        InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
    """
    connection.execute(delete(schema.node_collaboration).where(_serves.node == node.name))
    _serve(connection, node.name, node.organization, collaborations)


def _serve(connection: Connection, node: str, organization: str, collaborations: Sequence[str]) -> None:
    joined = set(memberships(connection, organization))
    for collaboration in collaborations:
        if collaboration not in joined:
            raise error(
                Reason.ORGANIZATION_NOT_MEMBER,
                f"{organization} is not a member of {collaboration}: it must be invited to the collaboration and "
                "accept first",
                organization=organization,
                collaboration=collaboration,
            )
    if collaborations:
        connection.execute(
            insert(schema.node_collaboration), [{"node": node, "collaboration": each} for each in collaborations]
        )


def set_display_name(connection: Connection, name: str, display_name: str) -> None:
    """Rename an organization, for people."""
    connection.execute(update(schema.organization).where(_organization.name == name).values(display_name=display_name))


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
    conditions = [
        in_reach(
            reach,
            organization=_node.organization,
            collaboration=lambda wanted: exists().where(_serves.node == _node.name, _serves.collaboration.in_(wanted)),
        )
    ]
    if organization is not None:
        conditions.append(_node.organization == organization)
    if collaboration is not None:
        conditions.append(exists().where(_serves.node == _node.name, _serves.collaboration == collaboration))
    if after is not None:
        conditions.append(_node.name > after)
    return _nodes(connection, and_(*conditions), limit)


def serving(connection: Connection, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], list[str]]:
    """Nodes of active members that serve collaborations: (organization, collaboration) -> names."""
    found: dict[tuple[str, str], list[str]] = {}
    for row in connection.execute(_SERVING, {"wanted": sorted(wanted)}):
        found.setdefault((row.organization, row.collaboration), []).append(row.name)
    return found


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
    active = _grouped(
        connection.execute(
            select(_serves.node, _serves.collaboration)
            .join(schema.node, _node.name == _serves.node)
            .join(
                schema.member,
                and_(_member.collaboration == _serves.collaboration, _member.organization == _node.organization),
            )
            .where(_serves.node.in_([row.name for row in rows]), _member.state == int(Standing.ACTIVE))
            .order_by(_serves.collaboration)
        )
    )
    return [
        Node(
            row.name,
            row.organization,
            tuple(found.get(row.name, ())),
            row.created,
            tuple(active.get(row.name, ())),
        )
        for row in rows
    ]


def _grouped(pairs: Iterable[Any]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups
