"""Transport of OrganizationService."""

from __future__ import annotations

from typing import Any

from vantage.api.admin.v1 import organization_service_pb2 as pb
from vantage.api.admin.v1 import organization_service_pb2_grpc
from vantage.server.rpc.admin.common import changed_fields, time_to_proto
from vantage.server.rpc.context import current_principal, current_user
from vantage.server.rpc.paging import fitting
from vantage.server.services.organizations import Organizations
from vantage.server.storage.organization_store import Organization

Context = Any


class OrganizationServicer(organization_service_pb2_grpc.OrganizationServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, organizations: Organizations) -> None:
        self._organizations = organizations

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: Context
    ) -> pb.CreateOrganizationResponse:
        made = await self._organizations.create(
            current_user(), request.organization_id, request.display_name, request.ca_certificates
        )
        return pb.CreateOrganizationResponse(organization=organization_to_proto(made))

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Context) -> pb.GetOrganizationResponse:
        found = await self._organizations.get(current_principal(), request.name)
        return pb.GetOrganizationResponse(organization=organization_to_proto(found))

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        page = await self._organizations.list_page(current_user(), request.page_size, request.page_token)
        organizations, token = fitting(page, organization_to_proto)
        return pb.ListOrganizationsResponse(organizations=organizations, next_page_token=token)

    async def UpdateOrganization(
        self, request: pb.UpdateOrganizationRequest, context: Context
    ) -> pb.UpdateOrganizationResponse:
        wanted = request.organization
        fields = changed_fields(request.update_mask, wanted, ("display_name",))
        changed = await self._organizations.update(
            current_user(), wanted.name, wanted.display_name if "display_name" in fields else None, wanted.etag
        )
        return pb.UpdateOrganizationResponse(organization=organization_to_proto(changed))

    async def DeleteOrganization(
        self, request: pb.DeleteOrganizationRequest, context: Context
    ) -> pb.DeleteOrganizationResponse:
        await self._organizations.delete(current_user(), request.name)
        return pb.DeleteOrganizationResponse()

    async def SetCaCertificates(
        self, request: pb.SetCaCertificatesRequest, context: Context
    ) -> pb.SetCaCertificatesResponse:
        changed = await self._organizations.set_certificates(current_user(), request.name, request.ca_certificates)
        return pb.SetCaCertificatesResponse(organization=organization_to_proto(changed))


def organization_to_proto(each: Organization) -> pb.Organization:
    """An organization to send."""
    return pb.Organization(
        name=each.name,
        display_name=each.display_name,
        ca_certificates=each.ca_certificates,
        create_time=time_to_proto(each.created),
        etag=each.etag,
    )
