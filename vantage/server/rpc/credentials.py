"""Transport of CredentialService and UserCredentialService."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from google.protobuf import timestamp_pb2

from vantage.api.admin.v1 import user_credential_service_pb2 as admin_pb
from vantage.api.admin.v1 import user_credential_service_pb2_grpc
from vantage.api.identity.v1 import credential_pb2, credential_service_pb2_grpc
from vantage.api.identity.v1 import credential_service_pb2 as pb
from vantage.server.rpc.context import current_user
from vantage.server.rpc.paging import fitting
from vantage.server.services.credentials import Credentials, Overview
from vantage.server.services.identities import Identities
from vantage.server.services.logins import Logins
from vantage.server.services.user_credentials import UserCredentials
from vantage.server.storage.credential_store import Identity
from vantage.server.storage.user_store import LoginSession

Context = Any


class CredentialServicer(credential_service_pb2_grpc.CredentialServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, credentials: Credentials, identities: Identities, logins: Logins) -> None:
        self._credentials = credentials
        self._identities = identities
        self._logins = logins

    async def GetCredentials(self, request: pb.GetCredentialsRequest, context: Context) -> pb.GetCredentialsResponse:
        return pb.GetCredentialsResponse(credentials=_credentials(await self._credentials.get(current_user())))

    async def BeginOneTimeCodes(
        self, request: pb.BeginOneTimeCodesRequest, context: Context
    ) -> pb.BeginOneTimeCodesResponse:
        begun = await self._credentials.begin(current_user(), request.password)
        return pb.BeginOneTimeCodesResponse(secret=begun.secret, uri=begun.uri)

    async def ConfirmOneTimeCodes(
        self, request: pb.ConfirmOneTimeCodesRequest, context: Context
    ) -> pb.ConfirmOneTimeCodesResponse:
        codes = await self._credentials.confirm(current_user(), request.one_time_code)
        return pb.ConfirmOneTimeCodesResponse(recovery_codes=codes)

    async def DisableOneTimeCodes(
        self, request: pb.DisableOneTimeCodesRequest, context: Context
    ) -> pb.DisableOneTimeCodesResponse:
        await self._credentials.disable(current_user(), request.password, request.one_time_code)
        return pb.DisableOneTimeCodesResponse()

    async def RenewRecoveryCodes(
        self, request: pb.RenewRecoveryCodesRequest, context: Context
    ) -> pb.RenewRecoveryCodesResponse:
        codes = await self._credentials.renew_recovery_codes(current_user(), request.password, request.one_time_code)
        return pb.RenewRecoveryCodesResponse(recovery_codes=codes)

    async def LinkIdentity(self, request: pb.LinkIdentityRequest, context: Context) -> pb.LinkIdentityResponse:
        linked = await self._identities.link(
            current_user(), request.nonce, request.id_token, request.password, request.one_time_code
        )
        return pb.LinkIdentityResponse(identity=_identity(linked))

    async def UnlinkIdentity(self, request: pb.UnlinkIdentityRequest, context: Context) -> pb.UnlinkIdentityResponse:
        ended = await self._identities.unlink(current_user(), request.issuer, request.subject)
        return pb.UnlinkIdentityResponse(ended_sessions=ended)

    async def ListSessions(self, request: pb.ListSessionsRequest, context: Context) -> pb.ListSessionsResponse:
        user = current_user()
        page = await self._logins.list_own(user, request.page_size, request.page_token)
        sessions, token = fitting(page, lambda each: _session(each, user.session_id))
        return pb.ListSessionsResponse(sessions=sessions, next_page_token=token)

    async def EndSession(self, request: pb.EndSessionRequest, context: Context) -> pb.EndSessionResponse:
        await self._logins.end_own(current_user(), request.session_id)
        return pb.EndSessionResponse()


class UserCredentialServicer(user_credential_service_pb2_grpc.UserCredentialServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, credentials: UserCredentials) -> None:
        self._credentials = credentials

    async def GetUserCredentials(
        self, request: admin_pb.GetUserCredentialsRequest, context: Context
    ) -> admin_pb.GetUserCredentialsResponse:
        caller = current_user()
        found, sessions = await self._credentials.get(caller, request.user)
        return admin_pb.GetUserCredentialsResponse(
            credentials=_credentials(found), sessions=[_session(each, caller.session_id) for each in sessions]
        )

    async def IssuePasswordReset(
        self, request: admin_pb.IssuePasswordResetRequest, context: Context
    ) -> admin_pb.IssuePasswordResetResponse:
        token, expires = await self._credentials.issue_reset(current_user(), request.user)
        return admin_pb.IssuePasswordResetResponse(reset_token=token, expire_time=_time(expires))

    async def RemoveOneTimeCodes(
        self, request: admin_pb.RemoveOneTimeCodesRequest, context: Context
    ) -> admin_pb.RemoveOneTimeCodesResponse:
        ended = await self._credentials.remove_one_time_codes(current_user(), request.user)
        return admin_pb.RemoveOneTimeCodesResponse(ended_sessions=ended)

    async def LinkUserIdentity(
        self, request: admin_pb.LinkUserIdentityRequest, context: Context
    ) -> admin_pb.LinkUserIdentityResponse:
        linked = await self._credentials.link_identity(current_user(), request.user, request.subject)
        return admin_pb.LinkUserIdentityResponse(identity=_identity(linked))

    async def UnlinkUserIdentity(
        self, request: admin_pb.UnlinkUserIdentityRequest, context: Context
    ) -> admin_pb.UnlinkUserIdentityResponse:
        ended = await self._credentials.unlink_identity(current_user(), request.user, request.issuer, request.subject)
        return admin_pb.UnlinkUserIdentityResponse(ended_sessions=ended)

    async def RevokeSessions(
        self, request: admin_pb.RevokeSessionsRequest, context: Context
    ) -> admin_pb.RevokeSessionsResponse:
        ended = await self._credentials.revoke_sessions(current_user(), request.user)
        return admin_pb.RevokeSessionsResponse(ended_sessions=ended)


def _credentials(found: Overview) -> credential_pb2.Credentials:
    return credential_pb2.Credentials(
        user=found.user,
        has_password=found.has_password,
        one_time_codes_enabled=found.one_time_codes,
        recovery_codes_left=found.recovery_codes_left,
        identities=[_identity(each) for each in found.identities],
    )


def _identity(each: Identity) -> credential_pb2.Identity:
    return credential_pb2.Identity(issuer=each.issuer, subject=each.subject, link_time=_time(each.created))


def _session(each: LoginSession, current: str) -> credential_pb2.LoginSession:
    return credential_pb2.LoginSession(
        id=each.id,
        method=credential_pb2.LoginMethod.ValueType(each.method.value),
        peer=each.peer,
        create_time=_time(each.created),
        refresh_time=None if each.refreshed is None else _time(each.refreshed),
        expire_time=_time(each.expires),
        current=each.id == current,
    )


def _time(moment: datetime) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromDatetime(moment)
    return stamp
