"""Collaborations: who makes and changes them, and whom they invite."""

from __future__ import annotations

from collections.abc import Sequence

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain import audit, display_names
from vantage.server.domain.etags import check_etag
from vantage.server.domain.membership import Member, Standing, may_answer
from vantage.server.domain.permissions import Operation, Owner, Resource, reach
from vantage.server.domain.principals import Principal, UserPrincipal
from vantage.server.services.access import missing, require, require_new
from vantage.server.services.commits import Commits
from vantage.server.services.directory import Directory
from vantage.server.services.sessions import Sessions
from vantage.server.storage import collaboration_store as store
from vantage.server.storage import lifecycle, pages
from vantage.server.storage.collaboration_store import Collaboration
from vantage.server.storage.database import Connection
from vantage.server.storage.lifecycle import Changes
from vantage.server.storage.pages import Page

MAX_MEMBERS = 1_000


class Collaborations:
    """Use cases of collaborations.

    Args:
        commits: where units of work are committed.
        directory: forgets who may do what after a change.
        sessions: nodes that must learn of a change.
        clock: the time.
        trial: whether whoever may edit all organizations may speak for them.
    """

    def __init__(
        self, commits: Commits, directory: Directory, sessions: Sessions, clock: Clock, *, trial: bool
    ) -> None:
        self._commits = commits
        self._database = commits.database
        self._directory = directory
        self._sessions = sessions
        self._clock = clock
        self._trial = trial

    async def create(
        self, user: UserPrincipal, collaboration_id: str, display_name: str, organizations: Sequence[str]
    ) -> Collaboration:
        """Create a collaboration and invite organizations."""
        name = str(names.parse(f"collaborations/{collaboration_id}", "collaborations", field="collaboration_id"))
        if len(organizations) > MAX_MEMBERS:
            raise error(Reason.INVALID_ARGUMENT, f"at most {MAX_MEMBERS} members", field="organizations")
        invited = sorted({str(names.parse(each, "organizations", field="organizations")) for each in organizations})
        audit.note(name, organizations=" ".join(invited))
        require_new(user, Resource.COLLABORATION, Owner(creator=user.name))
        members = tuple(self._invited(user, each) for each in invited)
        made = Collaboration(
            name, display_names.checked(display_name) or collaboration_id, members, user.name, self._clock.now()
        )
        await self._database.write(lambda connection: store.create(connection, made))
        self._directory.forget()
        return made

    async def get(self, principal: Principal, name: str) -> Collaboration:
        """One collaboration."""
        names.parse(name, "collaborations")
        return await self._database.read(lambda connection: _get(connection, principal, Operation.VIEW, name))

    async def list_page(self, user: UserPrincipal, page_size: int, token: str) -> Page[Collaboration]:
        """One page of the collaborations in reach."""
        size, after = pages.page_size(page_size), pages.decode(token, "collaborations")
        reached = reach(user, Resource.COLLABORATION, Operation.VIEW)
        rows = await self._database.read(
            lambda connection: store.list_collaborations(connection, reached, after, size + 1)
        )
        return pages.cut(rows, size, "collaborations", lambda each: each.name)

    async def update(self, user: UserPrincipal, name: str, display_name: str | None, etag: str) -> Collaboration:
        """Change the display name."""
        names.parse(name, "collaborations")
        audit.note(name, change="" if display_name is None else "display_name")

        def unit(connection: Connection) -> Collaboration:
            found = _get(connection, user, Operation.EDIT, name)
            check_etag(etag, found.etag, name)
            if display_name is not None:
                store.set_display_name(connection, name, display_names.checked(display_name))
            return _get(connection, user, Operation.EDIT, name)

        return await self._database.write(unit)

    async def delete(self, user: UserPrincipal, name: str) -> None:
        """Delete a collaboration that was never used."""
        names.parse(name, "collaborations")
        audit.note(name)

        def unit(connection: Connection) -> None:
            _get(connection, user, Operation.DELETE, name)
            store.remove(connection, name)

        await self._database.write(unit)
        self._directory.forget()

    async def invite(self, user: UserPrincipal, name: str, organization: str) -> Collaboration:
        """Invite an organization; it is a member at once when the user speaks for it."""
        names.parse(name, "collaborations")
        names.parse(organization, "organizations", field="organization")
        audit.note(name, organization=organization)
        member = self._invited(user, organization)

        def unit(connection: Connection) -> Collaboration:
            found = _get(connection, user, Operation.EDIT, name)
            if len(found.members) >= MAX_MEMBERS:
                raise error(Reason.INVALID_ARGUMENT, f"at most {MAX_MEMBERS} members", field="organization")
            store.invite(connection, name, member)
            return _get(connection, user, Operation.EDIT, name)

        changed = await self._database.write(unit)
        self._directory.forget()
        return changed

    async def remove_member(self, user: UserPrincipal, name: str, organization: str) -> Collaboration:
        """Take an invitation back, or end a membership with its open runs."""
        names.parse(name, "collaborations")
        names.parse(organization, "organizations", field="organization")
        audit.note(name, organization=organization)

        def unit(connection: Connection, changes: Changes) -> tuple[Collaboration, Sequence[str]]:
            _get(connection, user, Operation.EDIT, name)
            store.remove_member(connection, name, organization)
            lifecycle.withdraw(connection, changes, organization, name, self._clock.now())
            return _get(connection, user, Operation.EDIT, name), store.nodes_of(connection, organization)

        changed, nodes = await self._commits.commit(unit)
        self._directory.forget()
        self._sessions.refresh(nodes)
        return changed

    def _invited(self, user: UserPrincipal, organization: str) -> Member:
        speaks = may_answer(user, organization, trial=self._trial).allowed
        return Member(organization, Standing.ACTIVE if speaks else Standing.INVITED, user.name, self._clock.now())


def _get(connection: Connection, principal: Principal, operation: Operation, name: str) -> Collaboration:
    found = store.get(connection, name)
    require(principal, Resource.COLLABORATION, operation, name, None if found is None else found.owner)
    if found is None:
        raise missing(name)
    return found
