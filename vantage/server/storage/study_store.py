"""Studies: named subsets of a collaboration's members."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError

from vantage.common.errors import Reason, error
from vantage.server.domain.etags import etag_of
from vantage.server.domain.membership import Standing
from vantage.server.domain.permissions import Owner, Reach
from vantage.server.domain.tasks import TaskState
from vantage.server.storage import schema, task_schema
from vantage.server.storage.reach_filter import in_reach

_study = schema.study.c
_part = schema.study_organization.c


@dataclass(frozen=True)
class Study:
    """A study as stored."""

    name: str
    collaboration: str
    display_name: str
    organizations: tuple[str, ...]
    creator: str
    created: datetime

    @property
    def owner(self) -> Owner:
        """To whom it belongs: to its collaboration."""
        return Owner(collaborations=frozenset({self.collaboration}), creator=self.creator)

    @property
    def etag(self) -> str:
        """Changes with what an update can change."""
        return etag_of(self.display_name, self.organizations)


def create(connection: Connection, study: Study) -> None:
    """Insert a study.

    Raises:
        ConflictError: ALREADY_EXISTS.
        InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
    """
    try:
        connection.execute(
            insert(schema.study).values(
                name=study.name,
                collaboration=study.collaboration,
                display_name=study.display_name,
                creator=study.creator,
                created=study.created,
            )
        )
    except IntegrityError:
        raise error(Reason.ALREADY_EXISTS, f"{study.name} exists already: choose another id") from None
    _set_organizations(connection, study)


def replace(connection: Connection, study: Study) -> None:
    """Write display name and organizations.

    Raises:
        InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
    """
    connection.execute(update(schema.study).where(_study.name == study.name).values(display_name=study.display_name))
    connection.execute(delete(schema.study_organization).where(_part.study == study.name))
    _set_organizations(connection, study)


def get(connection: Connection, name: str) -> Study | None:
    """A study by name."""
    found = _load(connection, _study.name == name, 1)
    return found[0] if found else None


def organizations(connection: Connection, name: str) -> frozenset[str]:
    """Organizations of a study; empty when there is none of that name."""
    return frozenset(connection.execute(select(_part.organization).where(_part.study == name)).scalars())


def list_studies(
    connection: Connection, reach: Reach, collaboration: str | None, after: str | None, limit: int
) -> list[Study]:
    """Studies in reach, by name."""
    condition = in_reach(reach, collaboration=_study.collaboration, creator=_study.creator)
    if collaboration is not None:
        condition = and_(condition, _study.collaboration == collaboration)
    if after is not None:
        condition = and_(condition, _study.name > after)
    return _load(connection, condition, limit)


def remove(connection: Connection, name: str) -> None:
    """Delete a study without active tasks.

    Raises:
        ConflictError: IN_USE.
    """
    task = task_schema.task.c
    if connection.execute(select(exists().where(task.study == name, task.state == int(TaskState.ACTIVE)))).scalar_one():
        raise error(Reason.IN_USE, f"{name} has active tasks: cancel them or wait for their end")
    connection.execute(delete(schema.study).where(_study.name == name))


def _set_organizations(connection: Connection, study: Study) -> None:
    member = schema.member.c
    joined = set(
        connection.execute(
            select(member.organization).where(
                member.collaboration == study.collaboration, member.state != int(Standing.INVITED)
            )
        ).scalars()
    )
    for organization in study.organizations:
        if organization not in joined:
            raise error(
                Reason.ORGANIZATION_NOT_MEMBER,
                f"{organization} is not a member of {study.collaboration}: a study is a subset of the members",
                organization=organization,
                collaboration=study.collaboration,
            )
    connection.execute(
        insert(schema.study_organization),
        [{"study": study.name, "organization": each} for each in study.organizations],
    )


def _load(connection: Connection, condition: ColumnElement[bool], limit: int) -> list[Study]:
    rows = connection.execute(
        select(_study.name, _study.collaboration, _study.display_name, _study.creator, _study.created)
        .where(condition)
        .order_by(_study.name)
        .limit(limit)
    ).all()
    parts: dict[str, list[str]] = {}
    for study, organization in connection.execute(
        select(_part.study, _part.organization)
        .where(_part.study.in_([row.name for row in rows]))
        .order_by(_part.organization)
    ):
        parts.setdefault(study, []).append(organization)
    return [
        Study(row.name, row.collaboration, row.display_name, tuple(parts.get(row.name, ())), row.creator, row.created)
        for row in rows
    ]
