"""Consent: what an organization answers to collaborations."""

from __future__ import annotations

from collections.abc import AsyncIterator

from vantage.api.admin.v1 import membership_service_pb2 as pb
from vantage.client import converters
from vantage.client.admin import PAGE_SIZE, pages
from vantage.client.caller import Caller
from vantage.client.models import Invitation, Member
from vantage.client.short_names import full


class AsyncMemberships:
    """What an organization answers to collaborations: only its own users can, with the permission to edit it."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def invitations(self) -> AsyncIterator[Invitation]:
        """Open invitations of your organization, with who else is in the collaboration."""

        async def fetch(token: str) -> pb.ListInvitationsResponse:
            request = pb.ListInvitationsRequest(page_size=PAGE_SIZE, page_token=token)
            return await self._caller.unary(lambda stubs: stubs.memberships.ListInvitations, request, repeatable=True)

        async for page in pages(fetch):
            for each in page.invitations:
                yield converters.invitation(each)

    async def accept(self, collaboration: str, organization: str = "") -> Member:
        """Become a member; harmless when it is one.

        Args:
            collaboration: that invited.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such invitation.
            PermissionDeniedError: you do not speak for the organization.
        """
        names = _names(collaboration, organization)
        answer = await self._caller.unary(
            lambda stubs: stubs.memberships.AcceptInvitation,
            pb.AcceptInvitationRequest(collaboration=names[0], organization=names[1]),
            repeatable=True,
        )
        return converters.member(answer.member)

    async def decline(self, collaboration: str, organization: str = "") -> None:
        """Say no to an invitation, which is then gone.

        Args:
            collaboration: that invited.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such invitation.
            ConflictError: IN_USE, it is a member already: leave instead.
        """
        names = _names(collaboration, organization)
        await self._caller.unary(
            lambda stubs: stubs.memberships.DeclineInvitation,
            pb.DeclineInvitationRequest(collaboration=names[0], organization=names[1]),
        )

    async def suspend(self, collaboration: str, organization: str = "") -> Member:
        """Take no part for a while: nothing new is asked of the organization, what runs goes on.

        Args:
            collaboration: in which it is a member.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such membership.
            ConflictError: IN_USE, it is no member yet.
        """
        names = _names(collaboration, organization)
        answer = await self._caller.unary(
            lambda stubs: stubs.memberships.SuspendMembership,
            pb.SuspendMembershipRequest(collaboration=names[0], organization=names[1]),
            repeatable=True,
        )
        return converters.member(answer.member)

    async def resume(self, collaboration: str, organization: str = "") -> Member:
        """Take part again; harmless when it does.

        Args:
            collaboration: in which it is a member.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such membership.
            ConflictError: IN_USE, it is no member yet.
        """
        names = _names(collaboration, organization)
        answer = await self._caller.unary(
            lambda stubs: stubs.memberships.ResumeMembership,
            pb.ResumeMembershipRequest(collaboration=names[0], organization=names[1]),
            repeatable=True,
        )
        return converters.member(answer.member)

    async def leave(self, collaboration: str, organization: str = "") -> None:
        """End the membership: the organization's open runs are cancelled.

        Args:
            collaboration: in which it is a member.
            organization: that answers; yours when empty.

        Raises:
            NotFoundError: there is no such membership.
        """
        names = _names(collaboration, organization)
        await self._caller.unary(
            lambda stubs: stubs.memberships.LeaveCollaboration,
            pb.LeaveCollaborationRequest(collaboration=names[0], organization=names[1]),
        )


def _names(collaboration: str, organization: str) -> tuple[str, str]:
    return (
        full("collaborations", collaboration, field="collaboration"),
        full("organizations", organization, field="organization") if organization else "",
    )
