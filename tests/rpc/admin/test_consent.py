"""Organizations answer for themselves: invited, member, suspended, gone. On a whole server."""

from __future__ import annotations

import uuid

from vantage.api.admin.v1 import collaboration_service_pb2 as pb
from vantage.api.admin.v1 import membership_service_pb2 as membership_pb
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.api.admin.v1 import study_service_pb2 as study_pb
from vantage.api.task.v1 import task_pb2
from vantage.api.task.v1 import task_service_pb2 as task_service_pb
from vantage.common.errors import Reason

from .conftest import Hospitals, reason

LUNGS = "collaborations/lungs"
CLARA, HILDA, BEATRIX = "organizations/clara", "organizations/hilda", "organizations/beatrix"
IMAGE = "registry.example:5000/summary@sha256:" + "ab" * 32


async def invite(hospitals: Hospitals, *organizations: str, by: str = "root") -> pb.Collaboration:
    request = pb.CreateCollaborationRequest(collaboration_id="lungs", organizations=organizations)
    answer = await hospitals.collaborations.CreateCollaboration(request, metadata=hospitals.tokens[by])
    return answer.collaboration


async def accept(hospitals: Hospitals, *admins: str) -> None:
    for admin in admins:
        request = membership_pb.AcceptInvitationRequest(collaboration=LUNGS)
        await hospitals.memberships.AcceptInvitation(request, metadata=hospitals.tokens[admin])


def ask(*organizations: str, study: str = "") -> task_service_pb.CreateTaskRequest:
    spec = task_pb2.TaskSpec(
        collaboration=LUNGS,
        image=IMAGE,
        function="summary",
        study=study,
        targets=[task_pb2.Target(organization=each) for each in organizations],
    )
    return task_service_pb.CreateTaskRequest(request_id=str(uuid.uuid4()), spec=spec)


async def test_an_invited_organization_sees_the_invitation_and_nothing_else(hospitals: Hospitals) -> None:
    made = await invite(hospitals, CLARA, HILDA)
    assert list(made.organizations) == []
    assert [each.state for each in made.members] == [pb.MEMBERSHIP_STATE_INVITED] * 2
    anna = hospitals.tokens["anna"]
    read = hospitals.collaborations.GetCollaboration(pb.GetCollaborationRequest(name=LUNGS), metadata=anna)
    assert await reason(read) is Reason.NOT_FOUND
    listed = await hospitals.collaborations.ListCollaborations(pb.ListCollaborationsRequest(), metadata=anna)
    assert list(listed.collaborations) == []
    seen = await hospitals.memberships.ListInvitations(membership_pb.ListInvitationsRequest(), metadata=anna)
    [invitation] = seen.invitations
    assert (invitation.organization, invitation.collaboration, invitation.invited_by) == (CLARA, LUNGS, "users/root")
    assert [each.organization for each in invitation.members] == [HILDA]
    node = node_pb.CreateNodeRequest(organization=CLARA, node_id="clara-1", collaborations=[LUNGS])
    assert await reason(hospitals.nodes.CreateNode(node, metadata=anna)) is Reason.ORGANIZATION_NOT_MEMBER
    assert await reason(hospitals.tasks.CreateTask(ask(CLARA), metadata=anna)) is Reason.PERMISSION_DENIED


async def test_nobody_else_answers_not_even_root(hospitals: Hospitals) -> None:
    await invite(hospitals, CLARA)
    request = membership_pb.AcceptInvitationRequest(collaboration=LUNGS, organization=CLARA)
    refused = hospitals.memberships.AcceptInvitation(request, metadata=hospitals.tokens["root"])
    assert await reason(refused) is Reason.PERMISSION_DENIED
    for who, organization in (("hugo", CLARA), ("hugo", HILDA)):
        request = membership_pb.AcceptInvitationRequest(collaboration=LUNGS, organization=organization)
        refused = hospitals.memberships.AcceptInvitation(request, metadata=hospitals.tokens[who])
        assert await reason(refused) is Reason.NOT_FOUND
    await hospitals.add_user("rosa", "clara", "researcher", by="anna")
    request = membership_pb.AcceptInvitationRequest(collaboration=LUNGS)
    refused = hospitals.memberships.AcceptInvitation(request, metadata=hospitals.tokens["rosa"])
    assert await reason(refused) is Reason.PERMISSION_DENIED


async def test_whoever_invites_their_own_organization_has_agreed(hospitals: Hospitals) -> None:
    await hospitals.add_user("carl", "clara", "collaboration-admin", "organization-admin")
    made = await invite(hospitals, CLARA, HILDA, by="carl")
    assert list(made.organizations) == [CLARA]
    assert {each.organization: each.state for each in made.members} == {
        CLARA: pb.MEMBERSHIP_STATE_ACTIVE,
        HILDA: pb.MEMBERSHIP_STATE_INVITED,
    }


async def test_accept_decline_leave_and_each_twice(hospitals: Hospitals) -> None:
    await invite(hospitals, CLARA, HILDA)
    await accept(hospitals, "anna", "anna")
    members, hugo, anna = hospitals.memberships, hospitals.tokens["hugo"], hospitals.tokens["anna"]
    await members.DeclineInvitation(membership_pb.DeclineInvitationRequest(collaboration=LUNGS), metadata=hugo)
    again = members.DeclineInvitation(membership_pb.DeclineInvitationRequest(collaboration=LUNGS), metadata=hugo)
    assert await reason(again) is Reason.NOT_FOUND
    seen = await hospitals.collaborations.GetCollaboration(pb.GetCollaborationRequest(name=LUNGS), metadata=anna)
    assert list(seen.collaboration.organizations) == [CLARA]
    decline = members.DeclineInvitation(membership_pb.DeclineInvitationRequest(collaboration=LUNGS), metadata=anna)
    assert await reason(decline) is Reason.IN_USE
    task = (await hospitals.tasks.CreateTask(ask(CLARA), metadata=anna)).task
    await members.LeaveCollaboration(membership_pb.LeaveCollaborationRequest(collaboration=LUNGS), metadata=anna)
    read = hospitals.collaborations.GetCollaboration(pb.GetCollaborationRequest(name=LUNGS), metadata=anna)
    assert await reason(read) is Reason.NOT_FOUND
    ended = await hospitals.tasks.GetTask(task_service_pb.GetTaskRequest(name=task.name), metadata=anna)
    assert ended.task.runs[0].failure.reason == "ORGANIZATION_NOT_MEMBER"
    assert ended.task.state == task_pb2.TASK_STATE_FAILED


async def test_a_suspended_member_asks_nothing_and_is_asked_nothing(hospitals: Hospitals) -> None:
    await invite(hospitals, CLARA, HILDA)
    await accept(hospitals, "anna", "hugo")
    hugo, anna = hospitals.tokens["hugo"], hospitals.tokens["anna"]
    node = node_pb.CreateNodeRequest(organization=HILDA, node_id="hilda-1", collaborations=[LUNGS])
    await hospitals.nodes.CreateNode(node, metadata=hugo)
    suspend = membership_pb.SuspendMembershipRequest(collaboration=LUNGS)
    for _ in range(2):
        answer = await hospitals.memberships.SuspendMembership(suspend, metadata=hugo)
        assert answer.member.state == pb.MEMBERSHIP_STATE_SUSPENDED
    await hospitals.collaborations.GetCollaboration(pb.GetCollaborationRequest(name=LUNGS), metadata=hugo)
    assert await reason(hospitals.tasks.CreateTask(ask(HILDA), metadata=anna)) is Reason.MEMBERSHIP_SUSPENDED
    assert await reason(hospitals.tasks.CreateTask(ask(CLARA), metadata=hugo)) is Reason.MEMBERSHIP_SUSPENDED
    name = node_pb.GetNodeRequest(name=f"{HILDA}/nodes/hilda-1")
    seen = (await hospitals.nodes.GetNode(name, metadata=hugo)).node
    assert (list(seen.collaborations), list(seen.active_collaborations)) == ([LUNGS], [])
    resume = membership_pb.ResumeMembershipRequest(collaboration=LUNGS)
    await hospitals.memberships.ResumeMembership(resume, metadata=hugo)
    await hospitals.tasks.CreateTask(ask(HILDA), metadata=anna)
    seen = (await hospitals.nodes.GetNode(name, metadata=hugo)).node
    assert list(seen.active_collaborations) == [LUNGS]


async def test_a_task_of_a_study_asks_organizations_of_the_study(hospitals: Hospitals) -> None:
    await invite(hospitals, CLARA, HILDA, BEATRIX)
    await accept(hospitals, "anna", "hugo")
    root, anna = hospitals.tokens["root"], hospitals.tokens["anna"]
    outside = study_pb.CreateStudyRequest(collaboration=LUNGS, study_id="pilot", organizations=[CLARA, BEATRIX])
    assert await reason(hospitals.studies.CreateStudy(outside, metadata=root)) is Reason.ORGANIZATION_NOT_MEMBER
    await accept(hospitals, "bea")
    request = study_pb.CreateStudyRequest(collaboration=LUNGS, study_id="pilot", organizations=[CLARA, HILDA])
    study = (await hospitals.studies.CreateStudy(request, metadata=root)).study
    assert await reason(hospitals.studies.CreateStudy(request, metadata=anna)) is Reason.PERMISSION_DENIED
    made = (await hospitals.tasks.CreateTask(ask(HILDA, study=study.name), metadata=anna)).task
    assert made.spec.study == study.name
    for asked, who, expected in (
        (ask(BEATRIX, study=study.name), "anna", Reason.ORGANIZATION_NOT_MEMBER),
        (ask(CLARA, study=study.name), "bea", Reason.NOT_FOUND),
        (ask(CLARA, study=f"{LUNGS}/studies/none"), "anna", Reason.NOT_FOUND),
        (ask(CLARA, study="collaborations/other/studies/pilot"), "anna", Reason.INVALID_ARGUMENT),
    ):
        assert await reason(hospitals.tasks.CreateTask(asked, metadata=hospitals.tokens[who])) is expected
    delete = study_pb.DeleteStudyRequest(name=study.name)
    assert await reason(hospitals.studies.DeleteStudy(delete, metadata=root)) is Reason.IN_USE
    await hospitals.tasks.CancelTask(task_service_pb.CancelTaskRequest(name=made.name), metadata=anna)
    await hospitals.studies.DeleteStudy(delete, metadata=root)


async def test_whoever_leaves_is_out_of_the_studies(hospitals: Hospitals) -> None:
    await invite(hospitals, CLARA, HILDA)
    await accept(hospitals, "anna", "hugo")
    request = study_pb.CreateStudyRequest(collaboration=LUNGS, study_id="pilot", organizations=[CLARA, HILDA])
    root = hospitals.tokens["root"]
    study = (await hospitals.studies.CreateStudy(request, metadata=root)).study
    remove = pb.RemoveMemberRequest(name=LUNGS, organization=HILDA)
    await hospitals.collaborations.RemoveMember(remove, metadata=root)
    left = (await hospitals.studies.GetStudy(study_pb.GetStudyRequest(name=study.name), metadata=root)).study
    assert list(left.organizations) == [CLARA]
    assert left.etag != study.etag
