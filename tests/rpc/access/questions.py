"""One well-formed request per RPC, about a thing in a relation to the caller; and what lists show."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from tests.rpc.access.world import HOME, IMAGE, OWNED_BY, PARTNER, STRANGER, Caller, World
from vantage.api.admin.v1 import audit_service_pb2 as audit_pb
from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import membership_service_pb2 as membership_pb
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import role_service_pb2 as role_pb
from vantage.api.admin.v1 import study_service_pb2 as study_pb
from vantage.api.admin.v1 import trust_service_pb2 as trust_pb
from vantage.api.admin.v1 import user_credential_service_pb2 as user_credential_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import credential_service_pb2 as credential_pb
from vantage.api.identity.v1 import key_service_pb2 as key_pb
from vantage.api.node.v1 import node_session_service_pb2 as session_pb
from vantage.api.node.v1 import registry_service_pb2 as registry_pb
from vantage.api.payload.v1 import payload_service_pb2 as payload_pb
from vantage.api.relay.v1 import relay_broker_service_pb2 as broker_pb
from vantage.api.relay.v1 import relay_service_pb2 as relay_pb
from vantage.api.task.v1 import task_pb2
from vantage.api.task.v1 import task_service_pb2 as task_service_pb
from vantage.testing.server import PASSWORD

Builder = Callable[[World, Caller, str], Awaitable[Any]]
STALE = "stale"
"""An etag that no version has: whoever may change something learns that they do not know it, and it stays."""


def _named(make: str, message: Any, **fields: object) -> Builder:
    async def build(world: World, caller: Caller, relation: str) -> Any:
        return message(name=await getattr(world, make)(caller, relation), **fields)

    return build


def _of_user(message: Any, **fields: object) -> Builder:
    async def build(world: World, caller: Caller, relation: str) -> Any:
        return message(user=await world.user(caller, relation), **fields)

    return build


async def _unlink_user(world: World, caller: Caller, relation: str) -> Any:
    user = await world.user(caller, relation)
    issuer, subject = await world.identity(user, caller)
    return user_credential_pb.UnlinkUserIdentityRequest(user=user, issuer=issuer, subject=subject)


def _of_organization(message: Any, **fields: object) -> Builder:
    async def build(world: World, caller: Caller, relation: str) -> Any:
        return message(organization=await world.organization(caller, relation), **fields)

    return build


def _update(make: str, message: Any, field: str, mask: str) -> Builder:
    async def build(world: World, caller: Caller, relation: str) -> Any:
        request = message(update_mask=FieldMask(paths=[mask]))
        getattr(request, field).name = await getattr(world, make)(caller, relation)
        getattr(request, field).etag = STALE
        return request

    return build


def _fixed(make: Callable[[World], Any]) -> Builder:
    async def build(world: World, _caller: Caller, _relation: str) -> Any:
        return make(world)

    return build


async def _create_user(world: World, _caller: Caller, relation: str) -> Any:
    return user_pb.CreateUserRequest(user_id=world.id("user"), organization=OWNED_BY[relation], password=PASSWORD)


async def _create_node(world: World, _caller: Caller, relation: str) -> Any:
    return node_pb.CreateNodeRequest(organization=OWNED_BY[relation], node_id=world.id("node"))


async def _create_role(world: World, _caller: Caller, relation: str) -> Any:
    return role_pb.CreateRoleRequest(organization=OWNED_BY[relation], role_id=world.id("role"))


async def _create_study(world: World, caller: Caller, relation: str) -> Any:
    where = await world.collaboration(caller, relation)
    # In one's own collaboration nobody has accepted yet: there the right to create is seen by what is wrong then.
    organization = {"own": HOME, "other": PARTNER}.get(relation, OWNED_BY[relation])
    return study_pb.CreateStudyRequest(collaboration=where, study_id=world.id(), organizations=[organization])


def _member(message: Any) -> Builder:
    async def build(world: World, caller: Caller, relation: str) -> Any:
        return message(name=await world.collaboration(caller, relation), organization=STRANGER)

    return build


def _answer(message: Any) -> Builder:
    async def build(world: World, caller: Caller, relation: str) -> Any:
        collaboration, organization = await world.invitation(caller, relation)
        return message(collaboration=collaboration, organization=organization)

    return build


async def _spec(world: World, caller: Caller, relation: str) -> task_pb2.TaskSpec:
    target = {"other": PARTNER}.get(relation, OWNED_BY[relation])
    return task_pb2.TaskSpec(
        collaboration=await world.working(caller, relation),
        image=IMAGE,
        function="summary",
        targets=[task_pb2.Target(organization=target)],
    )


def _asked(message: Any) -> Builder:
    async def build(world: World, caller: Caller, relation: str) -> Any:
        return message(request_id=str(uuid.uuid4()), spec=await _spec(world, caller, relation))

    return build


def _upload(_world: World) -> Any:
    empty = f"sha256:{hashlib.sha256(b'').hexdigest()}"
    header = payload_pb.UploadHeader(request_id=str(uuid.uuid4()), size_bytes=0, digest=empty)
    return payload_pb.UploadPayloadRequest(header=header)


async def _keys(world: World, caller: Caller, relation: str) -> Any:
    return key_pb.GetKeysRequest(holder=await world.keys(caller, relation))


async def _node_keys(world: World, caller: Caller, relation: str) -> Any:
    return key_pb.ListNodeKeysRequest(collaboration=await world.collaboration(caller, relation))


def _lease() -> session_pb.Lease:
    return session_pb.Lease(run=f"tasks/{uuid.uuid4()}/runs/{uuid.uuid4()}", lease_id=str(uuid.uuid4()), attempt=1)


REQUESTS: dict[str, Builder] = {
    "AuthService.GetServerInfo": _fixed(lambda _: auth_pb.GetServerInfoRequest()),
    "AuthService.Bootstrap": _fixed(lambda _: auth_pb.BootstrapRequest(bootstrap_token="wrong")),
    "AuthService.Login": _fixed(lambda _: auth_pb.LoginRequest(username="nobody-here", password="wrong")),
    "AuthService.RefreshToken": _fixed(lambda _: auth_pb.RefreshTokenRequest(refresh_token="wrong")),
    "AuthService.ExchangeAssertion": _fixed(lambda _: auth_pb.ExchangeAssertionRequest(assertion="wrong")),
    "AuthService.GetLoginNonce": _fixed(lambda _: auth_pb.GetLoginNonceRequest()),
    "AuthService.ExchangeIdentityToken": _fixed(lambda _: auth_pb.ExchangeIdentityTokenRequest(id_token="wrong")),
    "AuthService.ResetPassword": _fixed(
        lambda _: auth_pb.ResetPasswordRequest(reset_token="wrong", new_password=PASSWORD)
    ),
    "CredentialService.GetCredentials": _fixed(lambda _: credential_pb.GetCredentialsRequest()),
    "CredentialService.BeginOneTimeCodes": _fixed(lambda _: credential_pb.BeginOneTimeCodesRequest(password="wrong")),
    "CredentialService.ConfirmOneTimeCodes": _fixed(
        lambda _: credential_pb.ConfirmOneTimeCodesRequest(one_time_code="000000")
    ),
    "CredentialService.DisableOneTimeCodes": _fixed(
        lambda _: credential_pb.DisableOneTimeCodesRequest(password="wrong")
    ),
    "CredentialService.RenewRecoveryCodes": _fixed(lambda _: credential_pb.RenewRecoveryCodesRequest(password="wrong")),
    "CredentialService.LinkIdentity": _fixed(lambda _: credential_pb.LinkIdentityRequest(id_token="wrong")),
    "CredentialService.UnlinkIdentity": _fixed(
        lambda _: credential_pb.UnlinkIdentityRequest(issuer="https://id.example", subject="nobody")
    ),
    "CredentialService.ListSessions": _fixed(lambda _: credential_pb.ListSessionsRequest()),
    "CredentialService.EndSession": _fixed(lambda _: credential_pb.EndSessionRequest(session_id=str(uuid.uuid4()))),
    "UserCredentialService.GetUserCredentials": _of_user(user_credential_pb.GetUserCredentialsRequest),
    "UserCredentialService.IssuePasswordReset": _of_user(user_credential_pb.IssuePasswordResetRequest),
    "UserCredentialService.RemoveOneTimeCodes": _of_user(user_credential_pb.RemoveOneTimeCodesRequest),
    "UserCredentialService.LinkUserIdentity": _of_user(user_credential_pb.LinkUserIdentityRequest, subject="somebody"),
    "UserCredentialService.UnlinkUserIdentity": _unlink_user,
    "UserCredentialService.RevokeSessions": _of_user(user_credential_pb.RevokeSessionsRequest),
    "TrustService.AddCaCertificate": _of_organization(trust_pb.AddCaCertificateRequest, ca_certificate="wrong"),
    "TrustService.RemoveCaCertificate": _of_organization(
        trust_pb.RemoveCaCertificateRequest, fingerprint=f"sha256:{'0' * 64}"
    ),
    "TrustService.SetRevocationList": _of_organization(trust_pb.SetRevocationListRequest, revocation_list=b"wrong"),
    "TrustService.GetTrustBundle": _fixed(lambda _: trust_pb.GetTrustBundleRequest()),
    "AuthService.Logout": _fixed(lambda _: auth_pb.LogoutRequest()),
    "AuthService.ChangePassword": _fixed(
        lambda _: auth_pb.ChangePasswordRequest(current_password="wrong", new_password="correct horse battery")
    ),
    "AuthService.GetPrincipal": _fixed(lambda _: auth_pb.GetPrincipalRequest()),
    "KeyService.PublishKeys": _fixed(lambda _: key_pb.PublishKeysRequest(envelope=b"{}")),
    "KeyService.GetKeys": _keys,
    "KeyService.ListNodeKeys": _node_keys,
    "OrganizationService.CreateOrganization": _fixed(
        lambda world: organization_pb.CreateOrganizationRequest(organization_id=world.id())
    ),
    "OrganizationService.GetOrganization": _named("organization", organization_pb.GetOrganizationRequest),
    "OrganizationService.ListOrganizations": _fixed(lambda _: organization_pb.ListOrganizationsRequest(page_size=500)),
    "OrganizationService.UpdateOrganization": _update(
        "organization", organization_pb.UpdateOrganizationRequest, "organization", "display_name"
    ),
    # Not accepted from anybody: the nodes of the world keep their authority.
    "OrganizationService.SetCaCertificates": _named(
        "organization", organization_pb.SetCaCertificatesRequest, ca_certificates=["wrong"]
    ),
    "OrganizationService.DeleteOrganization": _named("organization", organization_pb.DeleteOrganizationRequest),
    "UserService.CreateUser": _create_user,
    "UserService.GetUser": _named("user", user_pb.GetUserRequest),
    "UserService.ListUsers": _fixed(lambda _: user_pb.ListUsersRequest(page_size=500)),
    "UserService.UpdateUser": _update("user", user_pb.UpdateUserRequest, "user", "display_name"),
    "UserService.DeleteUser": _named("user", user_pb.DeleteUserRequest),
    "CollaborationService.CreateCollaboration": _fixed(
        lambda world: collaboration_pb.CreateCollaborationRequest(collaboration_id=world.id())
    ),
    "CollaborationService.GetCollaboration": _named("collaboration", collaboration_pb.GetCollaborationRequest),
    "CollaborationService.ListCollaborations": _fixed(
        lambda _: collaboration_pb.ListCollaborationsRequest(page_size=500)
    ),
    "CollaborationService.UpdateCollaboration": _update(
        "collaboration", collaboration_pb.UpdateCollaborationRequest, "collaboration", "display_name"
    ),
    "CollaborationService.DeleteCollaboration": _named("collaboration", collaboration_pb.DeleteCollaborationRequest),
    "CollaborationService.AddMember": _member(collaboration_pb.AddMemberRequest),
    "CollaborationService.RemoveMember": _member(collaboration_pb.RemoveMemberRequest),
    "MembershipService.ListInvitations": _fixed(lambda _: membership_pb.ListInvitationsRequest(page_size=500)),
    "MembershipService.AcceptInvitation": _answer(membership_pb.AcceptInvitationRequest),
    "MembershipService.DeclineInvitation": _answer(membership_pb.DeclineInvitationRequest),
    "MembershipService.SuspendMembership": _answer(membership_pb.SuspendMembershipRequest),
    "MembershipService.ResumeMembership": _answer(membership_pb.ResumeMembershipRequest),
    "MembershipService.LeaveCollaboration": _answer(membership_pb.LeaveCollaborationRequest),
    "StudyService.CreateStudy": _create_study,
    "StudyService.GetStudy": _named("study", study_pb.GetStudyRequest),
    "StudyService.ListStudies": _fixed(lambda _: study_pb.ListStudiesRequest(page_size=500)),
    "StudyService.UpdateStudy": _update("study", study_pb.UpdateStudyRequest, "study", "display_name"),
    "StudyService.DeleteStudy": _named("study", study_pb.DeleteStudyRequest),
    "NodeService.CreateNode": _create_node,
    "NodeService.GetNode": _named("node", node_pb.GetNodeRequest),
    "NodeService.ListNodes": _fixed(lambda _: node_pb.ListNodesRequest(page_size=500)),
    "NodeService.UpdateNode": _update("node", node_pb.UpdateNodeRequest, "node", "collaborations"),
    "NodeService.DeleteNode": _named("node", node_pb.DeleteNodeRequest),
    "RoleService.CreateRole": _create_role,
    "RoleService.GetRole": _named("role", role_pb.GetRoleRequest),
    "RoleService.ListRoles": _fixed(lambda _: role_pb.ListRolesRequest(page_size=500)),
    "RoleService.UpdateRole": _update("role", role_pb.UpdateRoleRequest, "role", "description"),
    "RoleService.DeleteRole": _named("role", role_pb.DeleteRoleRequest),
    "AuditService.ListAuditEntries": _fixed(
        lambda _: audit_pb.ListAuditEntriesRequest(page_size=500, filter=audit_pb.AuditFilter(event="Test.Entry"))
    ),
    "AuditService.ExportAudit": _fixed(lambda _: audit_pb.ExportAuditRequest()),
    "AuditService.GetAuditLog": _fixed(lambda _: audit_pb.GetAuditLogRequest()),
    "TaskService.CreateTask": _asked(task_service_pb.CreateTaskRequest),
    "TaskService.RunTask": _asked(task_service_pb.RunTaskRequest),
    "TaskService.RunTasks": _asked(task_service_pb.RunTasksRequest),
    "TaskService.GetTask": _named("task", task_service_pb.GetTaskRequest),
    "TaskService.WatchTask": _named("task", task_service_pb.WatchTaskRequest),
    "TaskService.ListTasks": _fixed(lambda _: task_service_pb.ListTasksRequest(page_size=500)),
    "TaskService.CancelTask": _named("task", task_service_pb.CancelTaskRequest),
    "PayloadService.UploadPayload": _fixed(_upload),
    "PayloadService.GetUpload": _fixed(lambda _: payload_pb.GetUploadRequest(request_id=str(uuid.uuid4()))),
    "PayloadService.DownloadPayload": _named("payload", payload_pb.DownloadPayloadRequest),
    "RegistryService.GetPullToken": _fixed(
        lambda _: registry_pb.GetPullTokenRequest(registry="registry.example:5000", repository="summary")
    ),
    "NodeSessionService.Connect": _fixed(
        lambda _: session_pb.ConnectRequest(hello=session_pb.Hello(instance_id=str(uuid.uuid4()), slots=1))
    ),
    "NodeSessionService.Sync": _fixed(
        lambda _: session_pb.SyncRequest(
            session=str(uuid.uuid4()),
            messages=[session_pb.ConnectRequest(hello=session_pb.Hello(instance_id=str(uuid.uuid4()), slots=1))],
        )
    ),
    "RelayBrokerService.OpenPair": _fixed(
        lambda _: broker_pb.OpenPairRequest(lease=_lease(), peer_run=_lease().run, pair=str(uuid.uuid4()))
    ),
    "RelayBrokerService.WatchPeers": _fixed(lambda _: broker_pb.WatchPeersRequest(lease=_lease())),
    "RelayService.Open": _fixed(lambda _: relay_pb.OpenRequest()),
    "RelayService.WatchLoad": _fixed(lambda _: relay_pb.WatchLoadRequest()),
}

LISTED: dict[str, tuple[str, str, str]] = {
    "OrganizationService.ListOrganizations": ("organization", "organizations", "name"),
    "UserService.ListUsers": ("user", "users", "name"),
    "CollaborationService.ListCollaborations": ("collaboration", "collaborations", "name"),
    "MembershipService.ListInvitations": ("invitation", "invitations", "collaboration"),
    "StudyService.ListStudies": ("study", "studies", "name"),
    "NodeService.ListNodes": ("node", "nodes", "name"),
    "RoleService.ListRoles": ("role", "roles", "name"),
    "AuditService.ListAuditEntries": ("entry", "entries", "target"),
    "TaskService.ListTasks": ("task", "tasks", "name"),
}
"""Lists: which things they show, in which field, under which name."""
