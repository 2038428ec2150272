"""Roles, studies and the audit: who may do what, who computes with whom, and what was decided."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from datetime import datetime

from vantage.api.access.v1 import access_pb2
from vantage.api.admin.v1 import audit_service_pb2 as audit_pb
from vantage.api.admin.v1 import role_service_pb2 as role_pb
from vantage.api.admin.v1 import study_service_pb2 as study_pb
from vantage.client import converters
from vantage.client.admin import PAGE_SIZE, mask_of, pages
from vantage.client.caller import Caller
from vantage.client.models import AuditEntry, AuditLog, Permission, Role, Study
from vantage.client.short_names import bare, full, full_role, full_study
from vantage.common.errors import Reason, error


class AsyncRoles:
    """Roles: named sets of permissions."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self, name: str, permissions: Iterable[Permission], organization: str = "", description: str = ""
    ) -> Role:
        """Create a role.

        Args:
            name: last part of its resource name.
            permissions: what it permits; you must hold all of it.
            organization: whose users may hold it; empty for a role of the server.
            description: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not create roles there.
        """
        request = role_pb.CreateRoleRequest(
            organization=full("organizations", organization, field="organization") if organization else "",
            role_id=bare("roles", name),
            description=description,
            permissions=[_permission(each) for each in permissions],
        )
        answer = await self._caller.unary(lambda stubs: stubs.roles.CreateRole, request)
        return converters.role(answer.role)

    async def get(self, name: str) -> Role:
        """One role.

        Args:
            name: ``researcher``, or ``clara/auditor`` for one of an organization.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = role_pb.GetRoleRequest(name=full_role(name))
        answer = await self._caller.unary(lambda stubs: stubs.roles.GetRole, request, repeatable=True)
        return converters.role(answer.role)

    async def list(self) -> AsyncIterator[Role]:
        """The roles that you may see with their permissions, by name."""

        async def fetch(token: str) -> role_pb.ListRolesResponse:
            request = role_pb.ListRolesRequest(page_size=PAGE_SIZE, page_token=token)
            return await self._caller.unary(lambda stubs: stubs.roles.ListRoles, request, repeatable=True)

        async for page in pages(fetch):
            for each in page.roles:
                yield converters.role(each)

    async def update(
        self,
        name: str,
        description: str | None = None,
        permissions: Iterable[Permission] | None = None,
        etag: str = "",
    ) -> Role:
        """Change a role; whoever holds it has the new permissions at once.

        Args:
            name: which.
            description: for people; None leaves it.
            permissions: all of them; None leaves them.
            etag: of the version that you saw; empty for no check.

        Raises:
            ConflictError: ETAG_MISMATCH.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not change it.
        """
        wanted = role_pb.Role(name=full_role(name), description=description or "", etag=etag)
        wanted.permissions.extend(_permission(each) for each in permissions or ())
        mask = mask_of(description=description, permissions=permissions)
        request = role_pb.UpdateRoleRequest(role=wanted, update_mask=mask)
        answer = await self._caller.unary(lambda stubs: stubs.roles.UpdateRole, request, repeatable=True)
        return converters.role(answer.role)

    async def delete(self, name: str) -> None:
        """Delete a role that nobody holds.

        Raises:
            ConflictError: IN_USE.
            PermissionDeniedError: ROLE_EXCEEDS_OWN, or you may not delete it.
        """
        await self._caller.unary(lambda stubs: stubs.roles.DeleteRole, role_pb.DeleteRoleRequest(name=full_role(name)))


class AsyncStudies:
    """Studies: named subsets of a collaboration's members."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def create(
        self, name: str, organizations: Iterable[str], collaboration: str = "", display_name: str = ""
    ) -> Study:
        """Create a study.

        Args:
            name: of the study; with ``collaboration`` its last part, otherwise ``lungs/pilot`` or the full name.
            organizations: members of the collaboration that are part of it.
            collaboration: that it belongs to.
            display_name: for people.

        Raises:
            ConflictError: ALREADY_EXISTS.
            InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
        """
        parent = full("collaborations", collaboration, field="collaboration") if collaboration else ""
        resource = full_study(name, parent)
        request = study_pb.CreateStudyRequest(
            collaboration=resource.rpartition("/studies/")[0],
            study_id=resource.rpartition("/")[2],
            display_name=display_name,
            organizations=[full("organizations", each, field="organizations") for each in organizations],
        )
        answer = await self._caller.unary(lambda stubs: stubs.studies.CreateStudy, request)
        return converters.study(answer.study)

    async def get(self, name: str) -> Study:
        """One study.

        Raises:
            NotFoundError: there is none, or you may not see it.
        """
        request = study_pb.GetStudyRequest(name=full_study(name))
        answer = await self._caller.unary(lambda stubs: stubs.studies.GetStudy, request, repeatable=True)
        return converters.study(answer.study)

    async def list(self, collaboration: str = "") -> AsyncIterator[Study]:
        """The studies that you may see, by name.

        Args:
            collaboration: only those of this one.
        """
        parent = full("collaborations", collaboration, field="collaboration") if collaboration else ""

        async def fetch(token: str) -> study_pb.ListStudiesResponse:
            request = study_pb.ListStudiesRequest(page_size=PAGE_SIZE, page_token=token, collaboration=parent)
            return await self._caller.unary(lambda stubs: stubs.studies.ListStudies, request, repeatable=True)

        async for page in pages(fetch):
            for each in page.studies:
                yield converters.study(each)

    async def update(
        self,
        name: str,
        display_name: str | None = None,
        organizations: Iterable[str] | None = None,
        etag: str = "",
    ) -> Study:
        """Change a study.

        Args:
            name: which.
            display_name: for people; None leaves it.
            organizations: all of them; None leaves them.
            etag: of the version that you saw; empty for no check.

        Raises:
            ConflictError: ETAG_MISMATCH.
            InvalidArgumentError: ORGANIZATION_NOT_MEMBER.
        """
        wanted = study_pb.Study(name=full_study(name), display_name=display_name or "", etag=etag)
        wanted.organizations.extend(full("organizations", each, field="organizations") for each in organizations or ())
        mask = mask_of(display_name=display_name, organizations=organizations)
        request = study_pb.UpdateStudyRequest(study=wanted, update_mask=mask)
        answer = await self._caller.unary(lambda stubs: stubs.studies.UpdateStudy, request, repeatable=True)
        return converters.study(answer.study)

    async def delete(self, name: str) -> None:
        """Delete a study without active tasks.

        Raises:
            NotFoundError: there is none, or you may not see it.
            ConflictError: IN_USE.
        """
        request = study_pb.DeleteStudyRequest(name=full_study(name))
        await self._caller.unary(lambda stubs: stubs.studies.DeleteStudy, request)


class AsyncAudit:
    """The server's audit: who asked what, and what was decided."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def list(
        self,
        principal: str = "",
        organization: str = "",
        event: str = "",
        target: str = "",
        decision: str = "",
        after: datetime | None = None,
        before: datetime | None = None,
    ) -> AsyncIterator[AuditEntry]:
        """Entries that you may see, newest first.

        Args:
            principal: only by this user or node.
            organization: only by users and nodes of this organization.
            event: only this one, e.g. ``UserService.CreateUser``.
            target: only about this resource, or what lies in it.
            decision: only ``allowed``, ``denied`` or ``failed``.
            after: only from then on.
            before: only before then.
        """
        wanted = audit_pb.AuditFilter(
            principal=principal if "/" in principal or not principal else f"users/{principal}",
            organization=full("organizations", organization, field="organization") if organization else "",
            event=event,
            target=target,
        )
        if decision:
            try:
                wanted.decision = audit_pb.AuditDecision.Value(f"AUDIT_DECISION_{decision.upper()}")
            except ValueError:
                raise error(
                    Reason.INVALID_ARGUMENT, "decision is allowed, denied or failed", field="decision"
                ) from None
        if after is not None:
            wanted.after.FromDatetime(after)
        if before is not None:
            wanted.before.FromDatetime(before)

        async def fetch(token: str) -> audit_pb.ListAuditEntriesResponse:
            request = audit_pb.ListAuditEntriesRequest(page_size=PAGE_SIZE, page_token=token, filter=wanted)
            return await self._caller.unary(lambda stubs: stubs.audit.ListAuditEntries, request, repeatable=True)

        async for page in pages(fetch):
            for each in page.entries:
                yield converters.audit_entry(each)

    async def export(self) -> AsyncIterator[bytes]:
        """The hash-chained log in parts, with a signed checkpoint at its end, for ``vantage audit verify``.

        Raises:
            PermissionDeniedError: you may not see all of it.
        """
        call = self._caller.stream(lambda stubs: stubs.audit.ExportAudit, audit_pb.ExportAuditRequest())
        async with aclosing(call) as parts:
            async for part in parts:
                yield part.chunk

    async def log(self) -> AuditLog:
        """Head, length and key of the log: kept elsewhere, they prove later that nothing was changed since.

        Raises:
            PermissionDeniedError: you may not see all of it.
        """
        answer = await self._caller.unary(
            lambda stubs: stubs.audit.GetAuditLog, audit_pb.GetAuditLogRequest(), repeatable=True
        )
        return AuditLog(answer.head, answer.lines, answer.public_key)


def _permission(each: Permission) -> role_pb.Permission:
    try:
        return role_pb.Permission(
            resource=access_pb2.Resource.Value(f"RESOURCE_{each.resource.upper()}"),
            operation=access_pb2.Operation.Value(f"OPERATION_{each.operation.upper()}"),
            scope=role_pb.Scope.Value(f"SCOPE_{each.scope.upper()}"),
        )
    except ValueError:
        raise error(
            Reason.INVALID_ARGUMENT,
            f"{each.resource}:{each.operation}:{each.scope} is no permission: 'vantage role get root' lists resources "
            "and operations; scopes are own, organization, collaboration and global",
            field="permissions",
        ) from None
