"""Transport of CollaborationService and MembershipService."""

from __future__ import annotations

from typing import Any

from vantage.api.admin.v1 import collaboration_service_pb2 as pb
from vantage.api.admin.v1 import (
    collaboration_service_pb2_grpc,
    membership_service_pb2_grpc,
)
from vantage.api.admin.v1 import membership_service_pb2 as membership_pb
from vantage.common.errors import Reason, error
from vantage.server.domain.membership import Answer, Member
from vantage.server.rpc.admin.common import changed_fields, time_to_proto
from vantage.server.rpc.context import current_principal, current_user
from vantage.server.rpc.paging import fitting
from vantage.server.services.collaborations import Collaborations
from vantage.server.services.memberships import Invitation, Memberships
from vantage.server.storage.collaboration_store import Collaboration

Context = Any


class CollaborationServicer(collaboration_service_pb2_grpc.CollaborationServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, collaborations: Collaborations) -> None:
        self._collaborations = collaborations

    async def CreateCollaboration(
        self, request: pb.CreateCollaborationRequest, context: Context
    ) -> pb.CreateCollaborationResponse:
        made = await self._collaborations.create(
            current_user(), request.collaboration_id, request.display_name, request.organizations
        )
        return pb.CreateCollaborationResponse(collaboration=collaboration_to_proto(made))

    async def GetCollaboration(
        self, request: pb.GetCollaborationRequest, context: Context
    ) -> pb.GetCollaborationResponse:
        found = await self._collaborations.get(current_principal(), request.name)
        return pb.GetCollaborationResponse(collaboration=collaboration_to_proto(found))

    async def ListCollaborations(
        self, request: pb.ListCollaborationsRequest, context: Context
    ) -> pb.ListCollaborationsResponse:
        page = await self._collaborations.list_page(current_user(), request.page_size, request.page_token)
        collaborations, token = fitting(page, collaboration_to_proto)
        return pb.ListCollaborationsResponse(collaborations=collaborations, next_page_token=token)

    async def UpdateCollaboration(
        self, request: pb.UpdateCollaborationRequest, context: Context
    ) -> pb.UpdateCollaborationResponse:
        wanted = request.collaboration
        fields = changed_fields(request.update_mask, wanted, ("display_name",))
        changed = await self._collaborations.update(
            current_user(), wanted.name, wanted.display_name if fields else None, wanted.etag
        )
        return pb.UpdateCollaborationResponse(collaboration=collaboration_to_proto(changed))

    async def DeleteCollaboration(
        self, request: pb.DeleteCollaborationRequest, context: Context
    ) -> pb.DeleteCollaborationResponse:
        await self._collaborations.delete(current_user(), request.name)
        return pb.DeleteCollaborationResponse()

    async def AddMember(self, request: pb.AddMemberRequest, context: Context) -> pb.AddMemberResponse:
        changed = await self._collaborations.invite(current_user(), request.name, request.organization)
        return pb.AddMemberResponse(collaboration=collaboration_to_proto(changed))

    async def RemoveMember(self, request: pb.RemoveMemberRequest, context: Context) -> pb.RemoveMemberResponse:
        changed = await self._collaborations.remove_member(current_user(), request.name, request.organization)
        return pb.RemoveMemberResponse(collaboration=collaboration_to_proto(changed))


class MembershipServicer(membership_service_pb2_grpc.MembershipServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, memberships: Memberships) -> None:
        self._memberships = memberships

    async def ListInvitations(
        self, request: membership_pb.ListInvitationsRequest, context: Context
    ) -> membership_pb.ListInvitationsResponse:
        page = await self._memberships.list_page(current_user(), request.page_size, request.page_token)
        invitations, token = fitting(page, _invitation)
        return membership_pb.ListInvitationsResponse(invitations=invitations, next_page_token=token)

    async def AcceptInvitation(
        self, request: membership_pb.AcceptInvitationRequest, context: Context
    ) -> membership_pb.AcceptInvitationResponse:
        return membership_pb.AcceptInvitationResponse(member=await self._standing(request, Answer.ACCEPT))

    async def DeclineInvitation(
        self, request: membership_pb.DeclineInvitationRequest, context: Context
    ) -> membership_pb.DeclineInvitationResponse:
        await self._answer(request, Answer.DECLINE)
        return membership_pb.DeclineInvitationResponse()

    async def SuspendMembership(
        self, request: membership_pb.SuspendMembershipRequest, context: Context
    ) -> membership_pb.SuspendMembershipResponse:
        return membership_pb.SuspendMembershipResponse(member=await self._standing(request, Answer.SUSPEND))

    async def ResumeMembership(
        self, request: membership_pb.ResumeMembershipRequest, context: Context
    ) -> membership_pb.ResumeMembershipResponse:
        return membership_pb.ResumeMembershipResponse(member=await self._standing(request, Answer.RESUME))

    async def LeaveCollaboration(
        self, request: membership_pb.LeaveCollaborationRequest, context: Context
    ) -> membership_pb.LeaveCollaborationResponse:
        await self._answer(request, Answer.LEAVE)
        return membership_pb.LeaveCollaborationResponse()

    async def _answer(self, request: Any, answer: Answer) -> Member | None:
        return await self._memberships.answer(current_user(), request.collaboration, request.organization, answer)

    async def _standing(self, request: Any, answer: Answer) -> pb.Member:
        member = await self._answer(request, answer)
        if member is None:
            raise error(Reason.NOT_FOUND, f"{request.organization} is no member of {request.collaboration} any more")
        return _member(member)


def collaboration_to_proto(each: Collaboration) -> pb.Collaboration:
    """A collaboration to send."""
    return pb.Collaboration(
        name=each.name,
        display_name=each.display_name,
        organizations=each.organizations,
        create_time=time_to_proto(each.created),
        members=[_member(member) for member in each.members],
        etag=each.etag,
    )


def _member(each: Member) -> pb.Member:
    return pb.Member(
        organization=each.organization,
        state=each.standing.value,  # type: ignore[arg-type]  # the number is the contract's
        invited_by=each.invited_by,
        since=time_to_proto(each.since),
    )


def _invitation(each: Invitation) -> membership_pb.Invitation:
    organization, collaboration = each
    own = next(member for member in collaboration.members if member.organization == organization)
    return membership_pb.Invitation(
        organization=organization,
        collaboration=collaboration.name,
        display_name=collaboration.display_name,
        members=[_member(member) for member in collaboration.members if member.organization != organization],
        invited_by=own.invited_by,
        invite_time=time_to_proto(own.since),
    )
