"""Collaborations and their members."""

from __future__ import annotations

from collections.abc import Sequence

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain.permissions import Operation, Owner, Resource, reach
from vantage.server.domain.principals import Principal, UserPrincipal
from vantage.server.services.access import missing, require, require_new
from vantage.server.services.directory import Directory
from vantage.server.storage import organization_store as store
from vantage.server.storage import pages
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.organization_store import Collaboration

MAX_MEMBERS = 1_000


class Collaborations:
    """Use cases of collaborations."""

    def __init__(self, database: Database, directory: Directory, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock

    async def create(
        self, user: UserPrincipal, collaboration_id: str, display_name: str, organizations: Sequence[str]
    ) -> Collaboration:
        """Create a collaboration with members."""
        name = str(names.parse(f"collaborations/{collaboration_id}", "collaborations", field="collaboration_id"))
        if len(organizations) > MAX_MEMBERS:
            raise error(Reason.INVALID_ARGUMENT, f"at most {MAX_MEMBERS} members", field="organizations")
        members = sorted({str(names.parse(each, "organizations", field="organizations")) for each in organizations})
        require_new(user, Resource.COLLABORATION, Owner())
        made = Collaboration(name, display_name or collaboration_id, tuple(members), user.name, self._clock.now())
        await self._database.write(lambda connection: store.create_collaboration(connection, made))
        self._directory.forget()
        return made

    async def get(self, principal: Principal, name: str) -> Collaboration:
        """One collaboration."""
        names.parse(name, "collaborations")
        return await self._database.read(lambda connection: _get(connection, principal, Operation.VIEW, name))

    async def list_page(self, user: UserPrincipal, page_size: int, token: str) -> tuple[Sequence[Collaboration], str]:
        """One page of the collaborations in reach."""
        size, after = pages.page_size(page_size), pages.decode(token, "collaborations")
        reached = reach(user, Resource.COLLABORATION, Operation.VIEW)
        rows = await self._database.read(
            lambda connection: store.list_collaborations(connection, reached, after, size + 1)
        )
        return pages.cut(rows, size, "collaborations", lambda each: each.name)

    async def delete(self, user: UserPrincipal, name: str) -> None:
        """Delete a collaboration that was never used."""
        names.parse(name, "collaborations")

        def unit(connection: Connection) -> None:
            _get(connection, user, Operation.DELETE, name)
            store.delete_collaboration(connection, name)

        await self._database.write(unit)
        self._directory.forget()

    async def set_member(self, user: UserPrincipal, name: str, organization: str, *, member: bool) -> Collaboration:
        """Make an organization a member, or end its membership."""
        names.parse(name, "collaborations")
        names.parse(organization, "organizations", field="organization")

        def unit(connection: Connection) -> Collaboration:
            _get(connection, user, Operation.EDIT, name)
            change = store.add_member if member else store.remove_member
            change(connection, name, organization)
            return _get(connection, user, Operation.EDIT, name)

        changed = await self._database.write(unit)
        self._directory.forget()
        return changed


def _get(connection: Connection, principal: Principal, operation: Operation, name: str) -> Collaboration:
    found = store.get_collaboration(connection, name)
    require(principal, Resource.COLLABORATION, operation, name, None if found is None else found.owner)
    if found is None:
        raise missing(name)
    return found
