"""What grows without bound elsewhere does not here, and what somebody made stays theirs."""

from __future__ import annotations

from datetime import UTC, datetime

import grpc
import pytest

from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.common import pki
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.testing.server import PASSWORD

from .conftest import Hospitals, reason
from .test_consent import CLARA, HILDA, accept, ask, invite


async def test_a_former_users_things_become_nobody_elses(hospitals: Hospitals) -> None:
    root = hospitals.tokens["root"]
    await invite(hospitals, CLARA, HILDA)
    await accept(hospitals, "anna", "hugo")
    await hospitals.add_user("rosa", "clara", "researcher")
    await hospitals.add_user("otto", "clara", "researcher")
    await hospitals.tasks.CreateTask(ask(CLARA, HILDA), metadata=hospitals.tokens["rosa"])
    for name in ("rosa", "otto"):
        await hospitals.users.DeleteUser(user_pb.DeleteUserRequest(name=f"users/{name}"), metadata=root)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await hospitals.add_user("rosa", "hilda", "researcher", by="hugo")
    assert error_from_rpc(caught.value).reason is Reason.ALREADY_EXISTS
    await hospitals.add_user("otto", "hilda", "researcher", by="hugo")  # left nothing


async def test_display_names_and_authorities_are_bounded(hospitals: Hospitals) -> None:
    root, long = hospitals.tokens["root"], "x" * 201
    user = user_pb.CreateUserRequest(user_id="max", display_name=long, password=PASSWORD)
    assert await reason(hospitals.users.CreateUser(user, metadata=root)) is Reason.INVALID_ARGUMENT
    user.display_name = long[1:]
    await hospitals.users.CreateUser(user, metadata=root)
    change = user_pb.UpdateUserRequest(user=user_pb.User(name="users/max", display_name=long))
    change.update_mask.paths.append("display_name")
    assert await reason(hospitals.users.UpdateUser(change, metadata=root)) is Reason.INVALID_ARGUMENT
    made = collaboration_pb.CreateCollaborationRequest(collaboration_id="long", display_name=long)
    assert await reason(hospitals.collaborations.CreateCollaboration(made, metadata=root)) is Reason.INVALID_ARGUMENT
    organization = organization_pb.CreateOrganizationRequest(organization_id="long", display_name=long)
    created = hospitals.organizations.CreateOrganization(organization, metadata=root)
    assert await reason(created) is Reason.INVALID_ARGUMENT
    key = pki.create_key()
    pem = pki.to_pem(pki.self_signed(key, "organizations/many", datetime.now(UTC)))
    organization = organization_pb.CreateOrganizationRequest(organization_id="many", ca_certificates=[pem * 6])
    created = hospitals.organizations.CreateOrganization(organization, metadata=root)
    assert await reason(created) is Reason.CERTIFICATE_INVALID
