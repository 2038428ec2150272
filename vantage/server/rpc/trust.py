"""Transport of TrustService."""

from __future__ import annotations

from typing import Any

from vantage.api.admin.v1 import trust_service_pb2 as pb
from vantage.api.admin.v1 import trust_service_pb2_grpc
from vantage.server.rpc.context import current_principal, current_user
from vantage.server.rpc.paging import fitting
from vantage.server.rpc.task_converters import time_to_proto
from vantage.server.services.trust import MAX_BUNDLE_BYTES, OrganizationTrust, Trust

Context = Any


class TrustServicer(trust_service_pb2_grpc.TrustServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, trust: Trust) -> None:
        self._trust = trust

    async def AddCaCertificate(
        self, request: pb.AddCaCertificateRequest, context: Context
    ) -> pb.AddCaCertificateResponse:
        pems = await self._trust.add_authority(current_user(), request.organization, request.ca_certificate)
        return pb.AddCaCertificateResponse(ca_certificates=pems)

    async def RemoveCaCertificate(
        self, request: pb.RemoveCaCertificateRequest, context: Context
    ) -> pb.RemoveCaCertificateResponse:
        pems, ended = await self._trust.remove_authority(current_user(), request.organization, request.fingerprint)
        return pb.RemoveCaCertificateResponse(ca_certificates=pems, ended_sessions=ended)

    async def SetRevocationList(
        self, request: pb.SetRevocationListRequest, context: Context
    ) -> pb.SetRevocationListResponse:
        found, ended = await self._trust.set_revocations(current_user(), request.organization, request.revocation_list)
        return pb.SetRevocationListResponse(
            number=str(found.number),
            revoked_certificates=len(found.serials),
            next_update_time=time_to_proto(found.expires),
            ended_sessions=ended,
        )

    async def GetTrustBundle(self, request: pb.GetTrustBundleRequest, context: Context) -> pb.GetTrustBundleResponse:
        version, page = await self._trust.bundle(current_principal(), request.page_size, request.page_token)
        organizations, token = fitting(page, _trust_to_proto, MAX_BUNDLE_BYTES)
        return pb.GetTrustBundleResponse(version=version, organizations=organizations, next_page_token=token)


def _trust_to_proto(trust: OrganizationTrust) -> pb.OrganizationTrust:
    return pb.OrganizationTrust(
        organization=trust.organization, ca_certificates=trust.authorities, revocation_list=trust.revocations
    )
