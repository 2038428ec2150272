"""Lists of keys on a whole server: published by their holders, read by those who share a collaboration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import (
    collaboration_service_pb2_grpc,
    node_service_pb2_grpc,
    organization_service_pb2_grpc,
    user_service_pb2_grpc,
)
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import user_service_pb2 as user_pb
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import auth_service_pb2_grpc, key_service_pb2_grpc
from vantage.api.identity.v1 import key_service_pb2 as pb
from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.common import pki, sealing
from vantage.common.assertion import sign_assertion
from vantage.common.attestation import sign_keys, verify_keys
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.common.statements import KeyBundle
from vantage.testing.server import PASSWORD, RunningServer, bearer, running_server
from vantage.testing.task_server import IMAGE, request_id

NODE = "organizations/clara/nodes/clara-1"
COLLABORATION = "collaborations/trial"
Metadata = tuple[tuple[str, str], ...]


class World:
    """Clara with a node and dora with a researcher in one collaboration, and mallory outside."""

    def __init__(self, server: RunningServer, directory: Path) -> None:
        self.channel = server.channel()
        self.keys = key_service_pb2_grpc.KeyServiceStub(self.channel)
        self.authorities = {
            name: pki.CertificateAuthority.create(directory / name, f"organizations/{name}")
            for name in ("clara", "dora", "mallory")
        }
        self.recipient = sealing.recipient_of(sealing.create_identity())

    async def build(self, root: Metadata) -> None:
        self.root = root
        organizations = organization_service_pb2_grpc.OrganizationServiceStub(self.channel)
        for name, authority in self.authorities.items():
            request = organization_pb.CreateOrganizationRequest(
                organization_id=name, ca_certificates=[pki.to_pem(authority.certificate)]
            )
            await organizations.CreateOrganization(request, metadata=root)
        made = collaboration_pb.CreateCollaborationRequest(
            collaboration_id="trial", organizations=["organizations/clara", "organizations/dora"]
        )
        stub = collaboration_service_pb2_grpc.CollaborationServiceStub(self.channel)
        await stub.CreateCollaboration(made, metadata=root)
        admitted = node_pb.CreateNodeRequest(
            organization="organizations/clara", node_id="clara-1", collaborations=[COLLABORATION]
        )
        await node_service_pb2_grpc.NodeServiceStub(self.channel).CreateNode(admitted, metadata=root)
        self.node = await self.log_in_node()
        self.dora = await self.log_in("dora", root)
        self.mallory = await self.log_in("mallory", root)

    async def log_in_node(self) -> Metadata:
        key = pki.create_key()
        chain = (self.authorities["clara"].issue(NODE, key.public_key()),)
        auth = auth_service_pb2_grpc.AuthServiceStub(self.channel)
        info = await auth.GetServerInfo(auth_pb.GetServerInfoRequest())
        assertion = sign_assertion(key, chain, NODE, info.audience, SystemClock())
        answer = await auth.ExchangeAssertion(auth_pb.ExchangeAssertionRequest(assertion=assertion))
        return bearer(answer.tokens)

    async def log_in(self, organization: str, root: Metadata) -> Metadata:
        name = f"r-{organization}"
        request = user_pb.CreateUserRequest(
            user_id=name,
            organization=f"organizations/{organization}",
            roles=["roles/researcher"],
            password=PASSWORD,
        )
        await user_service_pb2_grpc.UserServiceStub(self.channel).CreateUser(request, metadata=root)
        auth = auth_service_pb2_grpc.AuthServiceStub(self.channel)
        return bearer((await auth.Login(auth_pb.LoginRequest(username=name, password=PASSWORD))).tokens)

    def bundle(self, holder: str = NODE, version: int = 1, authority: str = "clara") -> bytes:
        now = datetime.now(UTC)
        key = pki.create_key()
        owner = self.authorities[authority]
        owner.organization = "/".join(holder.split("/")[:2])  # what an authority that does not care would do
        chain = (owner.issue(holder, key.public_key()),)
        owner.organization = f"organizations/{authority}"
        keys = KeyBundle(
            holder=holder,
            version=version,
            recipients=(self.recipient,),
            created=now,
            expires=now + timedelta(days=30),
        )
        return sign_keys(keys, key, chain)

    async def publish(self, envelope: bytes, who: Metadata) -> pb.PublishedKeys:
        answer = await self.keys.PublishKeys(pb.PublishKeysRequest(envelope=envelope), metadata=who)
        return answer.keys


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with running_server(tmp_path / "server") as server:
        made = World(server, tmp_path)
        await made.build(bearer(await server.bootstrap()))
        yield made


async def reason(call: Any) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason


async def test_readers_verify_what_a_node_has_published(world: World) -> None:
    envelope = world.bundle()
    await world.publish(envelope, world.node)
    assert (await world.publish(envelope, world.node)).version == 1  # sent again
    request = pb.ListNodeKeysRequest(collaboration=COLLABORATION)
    (found,) = (await world.keys.ListNodeKeys(request, metadata=world.dora)).keys
    roots = [world.authorities["clara"].certificate]
    verified = verify_keys(
        found.envelope, lambda chain, at: pki.verify_chain(chain, roots, at), NODE, datetime.now(UTC)
    )
    assert verified.recipients == (world.recipient,)
    one = await world.keys.GetKeys(pb.GetKeysRequest(holder=NODE), metadata=world.dora)
    assert one.keys == found
    narrowed = pb.ListNodeKeysRequest(collaboration=COLLABORATION, organizations=["organizations/dora"])
    assert not (await world.keys.ListNodeKeys(narrowed, metadata=world.dora)).keys


async def test_versions_only_grow(world: World) -> None:
    await world.publish(world.bundle(version=2), world.node)
    assert await reason(world.publish(world.bundle(version=1), world.node)) is Reason.KEYS_STALE
    assert await reason(world.publish(world.bundle(version=2), world.node)) is Reason.KEYS_STALE
    assert (await world.publish(world.bundle(version=3), world.node)).version == 3


async def test_nobody_publishes_for_another(world: World) -> None:
    other = "organizations/clara/nodes/clara-2"
    assert await reason(world.publish(world.bundle(other), world.node)) is Reason.KEYS_INVALID
    assert await reason(world.publish(world.bundle(NODE), world.dora)) is Reason.CERTIFICATE_UNTRUSTED
    forged = world.bundle(NODE, authority="mallory")
    assert await reason(world.publish(forged, world.node)) is Reason.CERTIFICATE_UNTRUSTED
    assert await reason(world.publish(b"rubbish", world.node)) is Reason.ORDER_INVALID
    user = "organizations/dora/users/r-dora"
    assert (await world.publish(world.bundle(user, authority="dora"), world.dora)).holder == user


async def test_strangers_see_nothing(world: World) -> None:
    await world.publish(world.bundle(), world.node)
    request = pb.ListNodeKeysRequest(collaboration=COLLABORATION)
    assert await reason(world.keys.ListNodeKeys(request, metadata=world.mallory)) is Reason.NOT_FOUND
    assert await reason(world.keys.GetKeys(pb.GetKeysRequest(holder=NODE), metadata=world.mallory)) is Reason.NOT_FOUND
    nobody = pb.GetKeysRequest(holder="organizations/clara/nodes/clara-9")
    assert await reason(world.keys.GetKeys(nobody, metadata=world.dora)) is Reason.NOT_FOUND


async def test_nobody_seals_to_holders_that_were_deleted(world: World) -> None:
    user = "organizations/dora/users/r-dora"
    await world.publish(world.bundle(version=2), world.node)
    await world.publish(world.bundle(user, authority="dora"), world.dora)
    await node_service_pb2_grpc.NodeServiceStub(world.channel).DeleteNode(
        node_pb.DeleteNodeRequest(name=NODE), metadata=world.root
    )
    await user_service_pb2_grpc.UserServiceStub(world.channel).DeleteUser(
        user_pb.DeleteUserRequest(name="users/r-dora"), metadata=world.root
    )
    reader = await world.log_in("clara", world.root)
    for holder in (NODE, user):
        call = world.keys.GetKeys(pb.GetKeysRequest(holder=holder), metadata=reader)
        assert await reason(call) is Reason.NOT_FOUND


async def test_arguments_that_are_sealed_to_old_keys_are_refused_before_a_task_exists(world: World) -> None:
    await world.publish(world.bundle(version=2), world.node)
    tasks = task_service_pb2_grpc.TaskServiceStub(world.channel)

    def question(version: int) -> task_service_pb2.CreateTaskRequest:
        target = task_pb2.Target(
            organization="organizations/clara", key_versions=[task_pb2.KeyVersion(holder=NODE, version=version)]
        )
        spec = task_pb2.TaskSpec(collaboration=COLLABORATION, image=IMAGE, function="summary", targets=[target])
        return task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec)

    assert await reason(tasks.CreateTask(question(1), metadata=world.dora)) is Reason.KEYS_STALE
    assert not (await tasks.ListTasks(task_service_pb2.ListTasksRequest(), metadata=world.dora)).tasks
    assert (await tasks.CreateTask(question(2), metadata=world.dora)).task.name
