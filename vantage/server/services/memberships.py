"""Consent: what an organization says of its own part in a collaboration."""

from __future__ import annotations

from collections.abc import Sequence

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain import audit
from vantage.server.domain.membership import ANSWERS, Answer, Member, may_answer
from vantage.server.domain.permissions import Operation, Resource, reach
from vantage.server.domain.principals import UserPrincipal
from vantage.server.services.access import missing
from vantage.server.services.commits import Commits
from vantage.server.services.directory import Directory
from vantage.server.services.sessions import Sessions
from vantage.server.storage import collaboration_store as store
from vantage.server.storage import lifecycle, pages
from vantage.server.storage.collaboration_store import Collaboration
from vantage.server.storage.database import Connection
from vantage.server.storage.lifecycle import Changes
from vantage.server.storage.pages import Page

Invitation = tuple[str, Collaboration]
"""Who is invited, and where to."""


class Memberships:
    """Use cases of consent; the arguments are those of ``Collaborations``."""

    def __init__(
        self, commits: Commits, directory: Directory, sessions: Sessions, clock: Clock, *, trial: bool
    ) -> None:
        self._commits = commits
        self._directory = directory
        self._sessions = sessions
        self._clock = clock
        self._trial = trial

    async def list_page(self, user: UserPrincipal, page_size: int, token: str) -> Page[Invitation]:
        """One page of the open invitations of organizations that the user may edit."""
        size, after = pages.page_size(page_size), pages.decode(token, "invitations")
        reached = reach(user, Resource.ORGANIZATION, Operation.EDIT)
        rows = await self._commits.database.read(
            lambda connection: store.invitations(connection, reached, after, size + 1)
        )
        return pages.cut(rows, size, "invitations", lambda each: f"{each[1].name} {each[0]}")

    async def answer(self, user: UserPrincipal, collaboration: str, organization: str, answer: Answer) -> Member | None:
        """Say something for an organization, or for the user's when none is named; None when it is no member any more.

        Raises:
            NotFoundError: it was not invited and is no member, or the user may not know.
            PermissionDeniedError: the user sees it and does not speak for it.
            ConflictError: IN_USE: it stands otherwise.
        """
        names.parse(collaboration, "collaborations", field="collaboration")
        organization = organization or user.organization or ""
        names.parse(organization, "organizations", field="organization")
        audit.note(collaboration, organization=organization)
        now = self._clock.now()

        def unit(connection: Connection, changes: Changes) -> tuple[Member | None, Sequence[str]]:
            member = store.get_member(connection, collaboration, organization)
            self._check(connection, user, collaboration, organization, member)
            if member is None:
                raise missing(_title(collaboration, organization))
            if (member.standing, answer) not in ANSWERS:
                raise error(
                    Reason.IN_USE,
                    f"{organization} is {member.standing.name.lower()} in {collaboration}: "
                    f"it cannot {answer.name.lower()}",
                )
            standing = ANSWERS[member.standing, answer]
            if standing is None:
                store.remove_member(connection, collaboration, organization)
                lifecycle.withdraw(connection, changes, organization, collaboration, now)
            elif standing is not member.standing:
                store.set_standing(connection, collaboration, organization, standing, now)
            return store.get_member(connection, collaboration, organization), store.nodes_of(connection, organization)

        changed, nodes = await self._commits.commit(unit)
        self._directory.forget()
        # They come back at once and learn what they serve now.
        self._sessions.refresh(nodes)
        return changed

    def _check(
        self,
        connection: Connection,
        user: UserPrincipal,
        collaboration: str,
        organization: str,
        member: Member | None,
    ) -> None:
        decision = may_answer(user, organization, trial=self._trial)
        if decision.allowed:
            return
        found = store.get(connection, collaboration)
        seen = found is not None and reach(user, Resource.COLLABORATION, Operation.VIEW).covers(found.owner)
        if member is not None and seen:
            raise error(Reason.PERMISSION_DENIED, decision.reason)
        raise missing(_title(collaboration, organization))


def _title(collaboration: str, organization: str) -> str:
    return f"the membership of {organization} in {collaboration}"
