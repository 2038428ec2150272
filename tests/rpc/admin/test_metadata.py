"""What a caller puts around a call never makes the server fail; grpcurl gets the answers that Python gets."""

from __future__ import annotations

import asyncio
import json

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vantage.api.admin.v1 import role_service_pb2
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc

from .conftest import Hospitals

HEADERS = ("authorization", "x-request-id", "x-session", "grpc-trace-bin", "authorization-bin", "traceparent")
text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=200)
values = st.one_of(
    text, text.map("Bearer {}".format), st.sampled_from(["Bearer", "bearer  x", "Bearer a.b.c", "Basic eA=="])
)


async def test_fuzzed_metadata_is_refused_and_nothing_more(hospitals: Hospitals) -> None:
    loop = asyncio.get_running_loop()

    async def call(metadata: tuple[tuple[str, str | bytes], ...]) -> Reason | None:
        try:
            await hospitals.roles.ListRoles(role_service_pb2.ListRolesRequest(), metadata=metadata, timeout=10)
        except grpc.aio.AioRpcError as problem:
            return error_from_rpc(problem).reason
        return None

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(st.tuples(st.sampled_from(HEADERS), values), max_size=5))
    def fuzz(pairs: list[tuple[str, str]]) -> None:
        metadata = tuple((key, value.encode() if key.endswith("-bin") else value) for key, value in pairs)
        found = asyncio.run_coroutine_threadsafe(call(metadata), loop).result(30)
        assert found in (Reason.UNAUTHENTICATED, Reason.TOKEN_INVALID), metadata

    await asyncio.to_thread(fuzz)


async def grpcurl(hospitals: Hospitals, who: str, method: str, request: dict[str, object]) -> tuple[int, str]:
    """Exit code and what was written, of a real client of another make."""
    certificate = hospitals.server.server.data / "tls.crt"
    program = await asyncio.create_subprocess_exec(
        "grpcurl",
        "-cacert",
        str(certificate),
        "-H",
        f"authorization: {dict(hospitals.tokens[who])['authorization']}",
        "-d",
        json.dumps(request),
        hospitals.server.address,
        f"vantage.api.admin.v1.{method}",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await program.communicate()
    assert program.returncode is not None
    return program.returncode, output.decode()


@pytest.mark.parametrize(
    ("who", "method", "request_", "expected"),
    [
        ("root", "UserService/GetUser", {"name": "users/anna"}, "organizations/clara"),
        ("anna", "UserService/GetUser", {"name": "users/anna"}, "organizations/clara"),
        ("hugo", "UserService/GetUser", {"name": "users/anna"}, "NotFound"),
        ("hugo", "UserService/GetUser", {"name": "users/nobody"}, "NotFound"),
        ("anna", "OrganizationService/CreateOrganization", {"organization_id": "new"}, "PermissionDenied"),
        (
            "anna",
            "OrganizationService/UpdateOrganization",
            {"organization": {"name": "organizations/hilda"}},
            "NotFound",
        ),
        ("anna", "AuditService/GetAuditLog", {}, "PermissionDenied"),
        ("root", "AuditService/GetAuditLog", {}, "PUBLIC KEY"),
    ],
)
async def test_a_sample_through_grpcurl(
    hospitals: Hospitals, who: str, method: str, request_: dict[str, object], expected: str
) -> None:
    code, output = await grpcurl(hospitals, who, method, request_)
    assert expected in output
    assert (code == 0) == (expected not in ("NotFound", "PermissionDenied"))
