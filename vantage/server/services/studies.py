"""Studies: named subsets of a collaboration's members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain import audit, display_names
from vantage.server.domain.etags import check_etag
from vantage.server.domain.permissions import Operation, Owner, Resource, reach
from vantage.server.domain.principals import Principal, UserPrincipal
from vantage.server.services.access import missing, require, require_new
from vantage.server.storage import collaboration_store, pages
from vantage.server.storage import study_store as store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.pages import Page
from vantage.server.storage.study_store import Study

MAX_ORGANIZATIONS = 1_000


@dataclass(frozen=True)
class StudyChange:
    """What to change of a study; None leaves it."""

    display_name: str | None = None
    organizations: Sequence[str] | None = None


class Studies:
    """Use cases of studies."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(
        self,
        user: UserPrincipal,
        collaboration: str,
        study_id: str,
        display_name: str,
        organizations: Sequence[str],
    ) -> Study:
        """Create a study."""
        names.parse(collaboration, "collaborations", field="collaboration")
        name = str(names.parse(f"{collaboration}/studies/{study_id}", "collaborations/studies", field="study_id"))
        audit.note(name, organizations=" ".join(organizations))
        study = Study(
            name,
            collaboration,
            display_names.checked(display_name) or study_id,
            _checked(organizations),
            user.name,
            self._clock.now(),
        )

        def unit(connection: Connection) -> None:
            parent = collaboration_store.get(connection, collaboration)
            # The same answer when there is no such collaboration, for whoever does not reach all.
            require_new(user, Resource.STUDY, Owner() if parent is None else parent.owner)
            if parent is None:
                raise missing(collaboration)
            store.create(connection, study)

        await self._database.write(unit)
        return study

    async def get(self, principal: Principal, name: str) -> Study:
        """One study."""
        names.parse(name, "collaborations/studies")
        return await self._database.read(lambda connection: _get(connection, principal, Operation.VIEW, name))

    async def list_page(self, user: UserPrincipal, page_size: int, token: str, collaboration: str) -> Page[Study]:
        """One page of the studies in reach."""
        query = f"studies {collaboration}"
        size, after = pages.page_size(page_size), pages.decode(token, query)
        reached = reach(user, Resource.STUDY, Operation.VIEW)
        rows = await self._database.read(
            lambda connection: store.list_studies(connection, reached, collaboration or None, after, size + 1)
        )
        return pages.cut(rows, size, query, lambda each: each.name)

    async def update(self, user: UserPrincipal, name: str, change: StudyChange, etag: str) -> Study:
        """Change a study."""
        names.parse(name, "collaborations/studies")
        audit.note(name, organizations=" ".join(change.organizations or ()))

        def unit(connection: Connection) -> Study:
            study = _get(connection, user, Operation.EDIT, name)
            check_etag(etag, study.etag, name)
            changed = replace(
                study,
                display_name=study.display_name
                if change.display_name is None
                else display_names.checked(change.display_name),
                organizations=study.organizations if change.organizations is None else _checked(change.organizations),
            )
            store.replace(connection, changed)
            return _get(connection, user, Operation.EDIT, name)

        return await self._database.write(unit)

    async def delete(self, user: UserPrincipal, name: str) -> None:
        """Delete a study without active tasks."""
        names.parse(name, "collaborations/studies")
        audit.note(name)

        def unit(connection: Connection) -> None:
            _get(connection, user, Operation.DELETE, name)
            store.remove(connection, name)

        await self._database.write(unit)


def _get(connection: Connection, principal: Principal, operation: Operation, name: str) -> Study:
    found = store.get(connection, name)
    require(principal, Resource.STUDY, operation, name, None if found is None else found.owner)
    if found is None:
        raise missing(name)
    return found


def _checked(organizations: Sequence[str]) -> tuple[str, ...]:
    if not 1 <= len(organizations) <= MAX_ORGANIZATIONS:
        raise error(
            Reason.INVALID_ARGUMENT, f"a study has 1 to {MAX_ORGANIZATIONS} organizations", field="organizations"
        )
    return tuple(sorted({str(names.parse(each, "organizations", field="organizations")) for each in organizations}))
