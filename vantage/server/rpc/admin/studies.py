"""Transport of StudyService."""

from __future__ import annotations

from typing import Any

from vantage.api.admin.v1 import study_service_pb2 as pb
from vantage.api.admin.v1 import study_service_pb2_grpc
from vantage.server.rpc.admin.common import changed_fields, time_to_proto
from vantage.server.rpc.context import current_principal, current_user
from vantage.server.rpc.paging import fitting
from vantage.server.services.studies import Studies, StudyChange
from vantage.server.storage.study_store import Study

Context = Any


class StudyServicer(study_service_pb2_grpc.StudyServiceServicer):
    """Parses, calls one use case, shapes the reply."""

    def __init__(self, studies: Studies) -> None:
        self._studies = studies

    async def CreateStudy(self, request: pb.CreateStudyRequest, context: Context) -> pb.CreateStudyResponse:
        made = await self._studies.create(
            current_user(), request.collaboration, request.study_id, request.display_name, request.organizations
        )
        return pb.CreateStudyResponse(study=study_to_proto(made))

    async def GetStudy(self, request: pb.GetStudyRequest, context: Context) -> pb.GetStudyResponse:
        return pb.GetStudyResponse(study=study_to_proto(await self._studies.get(current_principal(), request.name)))

    async def ListStudies(self, request: pb.ListStudiesRequest, context: Context) -> pb.ListStudiesResponse:
        page = await self._studies.list_page(
            current_user(), request.page_size, request.page_token, request.collaboration
        )
        studies, token = fitting(page, study_to_proto)
        return pb.ListStudiesResponse(studies=studies, next_page_token=token)

    async def UpdateStudy(self, request: pb.UpdateStudyRequest, context: Context) -> pb.UpdateStudyResponse:
        wanted = request.study
        fields = changed_fields(request.update_mask, wanted, ("display_name", "organizations"))
        change = StudyChange(
            wanted.display_name if "display_name" in fields else None,
            tuple(wanted.organizations) if "organizations" in fields else None,
        )
        changed = await self._studies.update(current_user(), wanted.name, change, wanted.etag)
        return pb.UpdateStudyResponse(study=study_to_proto(changed))

    async def DeleteStudy(self, request: pb.DeleteStudyRequest, context: Context) -> pb.DeleteStudyResponse:
        await self._studies.delete(current_user(), request.name)
        return pb.DeleteStudyResponse()


def study_to_proto(each: Study) -> pb.Study:
    """A study to send."""
    return pb.Study(
        name=each.name,
        display_name=each.display_name,
        organizations=each.organizations,
        create_time=time_to_proto(each.created),
        etag=each.etag,
    )
