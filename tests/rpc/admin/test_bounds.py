"""What grows without bound elsewhere does not here, and what somebody made stays theirs."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import grpc
import pytest

from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.common import pki
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.server.domain.session import MAX_DATASETS
from vantage.server.storage import pages, presence_store
from vantage.server.storage.presence_store import Presence
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


async def test_a_list_of_nodes_that_say_much_of_their_datasets_has_shorter_pages(hospitals: Hospitals) -> None:
    anna, server = hospitals.tokens["anna"], hospitals.server.server
    datasets = tuple((f"{number:04}" + "\U0001f600" * 96, "\U0001f600" * 40) for number in range(MAX_DATASETS))
    known = Presence(False, datetime.now(UTC), "1.0.0", datasets)
    names = []
    for number in range(32):
        request = node_pb.CreateNodeRequest(organization="organizations/clara", node_id=f"clara-{number:02}")
        names.append((await hospitals.nodes.CreateNode(request, metadata=anna)).node.name)
        await server.database.write(partial(presence_store.save, node=names[-1], known=known))
    # As a server does that starts.
    server.sessions._presence = await server.database.read(presence_store.load)
    found, token = [], ""
    while True:
        page = await hospitals.nodes.ListNodes(node_pb.ListNodesRequest(page_size=50, page_token=token), metadata=anna)
        assert all(len(node.datasets) == MAX_DATASETS for node in page.nodes)
        assert page.ByteSize() < pages.MAX_BYTES + 1_000
        found += [node.name for node in page.nodes]
        if not (token := page.next_page_token):
            break
    assert found == names
