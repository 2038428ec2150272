"""Collaborations, and where organizations stand in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, or_, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError

from vantage.common.errors import Reason, error
from vantage.server.domain.etags import etag_of
from vantage.server.domain.membership import MEMBERS, Member, Standing
from vantage.server.domain.permissions import Owner, Reach
from vantage.server.storage import schema, settings_store, task_schema
from vantage.server.storage.reach_filter import in_reach

_collaboration = schema.collaboration.c
_member = schema.member.c


@dataclass(frozen=True)
class Collaboration:
    """A collaboration as stored; members by name of their organization, the invited ones included."""

    name: str
    display_name: str
    members: tuple[Member, ...]
    creator: str
    created: datetime

    @property
    def organizations(self) -> tuple[str, ...]:
        """Those that have accepted."""
        return tuple(each.organization for each in self.members if each.standing in MEMBERS)

    @property
    def owner(self) -> Owner:
        """To whom it belongs."""
        return Owner(collaborations=frozenset({self.name}), creator=self.creator)

    @property
    def etag(self) -> str:
        """Changes with what an update can change."""
        return etag_of(self.display_name)


def create(connection: Connection, collaboration: Collaboration) -> None:
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
    for member in collaboration.members:
        invite(connection, collaboration.name, member)


def set_display_name(connection: Connection, name: str, display_name: str) -> None:
    """Rename, for people."""
    connection.execute(
        update(schema.collaboration).where(_collaboration.name == name).values(display_name=display_name)
    )


def get(connection: Connection, name: str) -> Collaboration | None:
    """A collaboration by name."""
    found = _load(connection, _collaboration.name == name, 1)
    return found[0] if found else None


def list_collaborations(connection: Connection, reach: Reach, after: str | None, limit: int) -> list[Collaboration]:
    """Collaborations in reach, by name."""
    condition = in_reach(reach, collaboration=_collaboration.name, creator=_collaboration.creator)
    if after is not None:
        condition = and_(condition, _collaboration.name > after)
    return _load(connection, condition, limit)


def remove(connection: Connection, name: str) -> None:
    """Delete a collaboration that was never used.

    Raises:
        ConflictError: IN_USE.
    """
    if connection.execute(select(exists().where(task_schema.task.c.collaboration == name))).scalar_one():
        raise error(Reason.IN_USE, f"{name} has tasks: a collaboration that was used stays for the record")
    connection.execute(delete(schema.collaboration).where(_collaboration.name == name))


def invite(connection: Connection, collaboration: str, member: Member) -> None:
    """Add an organization as it stands; harmless when it is invited or a member already.

    Raises:
        NotFoundError: the organization does not exist.
    """
    try:
        connection.execute(
            upsert(schema.member)
            .values(
                collaboration=collaboration,
                organization=member.organization,
                state=int(member.standing),
                invited_by=member.invited_by,
                since=member.since,
            )
            .on_conflict_do_nothing()
        )
    except IntegrityError:
        raise error(Reason.NOT_FOUND, f"{member.organization} does not exist: create it first") from None
    settings_store.trust_changed(connection)


def get_member(connection: Connection, collaboration: str, organization: str) -> Member | None:
    """Where an organization stands in a collaboration, or None."""
    row = connection.execute(
        select(_member.organization, _member.state, _member.invited_by, _member.since).where(
            _member.collaboration == collaboration, _member.organization == organization
        )
    ).one_or_none()
    return None if row is None else Member(row.organization, Standing(row.state), row.invited_by, row.since)


def set_standing(
    connection: Connection, collaboration: str, organization: str, standing: Standing, since: datetime
) -> None:
    """Change where an organization stands."""
    connection.execute(
        update(schema.member)
        .where(_member.collaboration == collaboration, _member.organization == organization)
        .values(state=int(standing), since=since)
    )
    settings_store.trust_changed(connection)


def remove_member(connection: Connection, collaboration: str, organization: str) -> None:
    """End a membership or invitation, with what the organization's nodes serve of it and its place in studies."""
    connection.execute(
        delete(schema.member).where(_member.collaboration == collaboration, _member.organization == organization)
    )
    nodes = select(schema.node.c.name).where(schema.node.c.organization == organization)
    serves = schema.node_collaboration
    connection.execute(delete(serves).where(serves.c.collaboration == collaboration, serves.c.node.in_(nodes)))
    studies = select(schema.study.c.name).where(schema.study.c.collaboration == collaboration)
    part = schema.study_organization
    connection.execute(delete(part).where(part.c.organization == organization, part.c.study.in_(studies)))
    settings_store.trust_changed(connection)


def invitations(connection: Connection, reach: Reach, after: str | None, limit: int) -> list[tuple[str, Collaboration]]:
    """Open invitations to organizations in reach: (organization, collaboration), by collaboration and organization."""
    condition = and_(_member.state == int(Standing.INVITED), in_reach(reach, organization=_member.organization))
    if after is not None:
        collaboration, _, organization = after.partition(" ")
        condition = and_(
            condition,
            or_(
                _member.collaboration > collaboration,
                and_(_member.collaboration == collaboration, _member.organization > organization),
            ),
        )
    rows = connection.execute(
        select(_member.organization, _member.collaboration)
        .where(condition)
        .order_by(_member.collaboration, _member.organization)
        .limit(limit)
    ).all()
    names = {row.collaboration for row in rows}
    found = {each.name: each for each in _load(connection, _collaboration.name.in_(names), len(names) or 1)}
    return [(row.organization, found[row.collaboration]) for row in rows]


def nodes_of(connection: Connection, organization: str) -> Sequence[str]:
    """Names of an organization's nodes."""
    table = schema.node.c
    return connection.execute(select(table.name).where(table.organization == organization)).scalars().all()


def _load(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[Collaboration]:
    rows = connection.execute(
        select(_collaboration.name, _collaboration.display_name, _collaboration.creator, _collaboration.created)
        .where(condition)
        .order_by(_collaboration.name)
        .limit(limit)
    ).all()
    members: dict[str, list[Member]] = {}
    for row in connection.execute(
        select(_member.collaboration, _member.organization, _member.state, _member.invited_by, _member.since)
        .where(_member.collaboration.in_([row.name for row in rows]))
        .order_by(_member.organization)
    ):
        members.setdefault(row.collaboration, []).append(
            Member(row.organization, Standing(row.state), row.invited_by, row.since)
        )
    return [
        Collaboration(row.name, row.display_name, tuple(members.get(row.name, ())), row.creator, row.created)
        for row in rows
    ]
