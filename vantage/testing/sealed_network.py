"""A real server, a researcher with keys, and nodes that seal and sign what a test tells them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.api.admin.v1 import (
    collaboration_service_pb2,
    collaboration_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    organization_service_pb2,
    organization_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc, key_service_pb2, key_service_pb2_grpc
from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.payload.v1 import payload_service_pb2, payload_service_pb2_grpc
from vantage.api.types.v1 import types_pb2
from vantage.client.codec import Identity
from vantage.client.keyring import KeyFiles, Keyring
from vantage.common import dsse, pki, sealing
from vantage.common.assertion import sign_assertion
from vantage.common.attestation import sign_keys, sign_result
from vantage.common.bound_arguments import arguments_of
from vantage.common.clock import SystemClock
from vantage.common.orders import VerifiedOrder, verify_order
from vantage.common.statements import Content, KeyBundle, ResultFailure, ResultStatement
from vantage.common.trust import TrustStore
from vantage.testing.scripted_node import ScriptedNode
from vantage.testing.server import PASSWORD, RunningServer, bearer

COLLABORATION = "collaborations/trial"
HOME = "organizations/dora"
RESEARCHER = f"{HOME}/users/rosa"
IMAGE = f"registry.test/algorithms/summary@sha256:{'ab' * 32}"


@dataclass
class SealingNode:
    """A node with keys: takes assignments, opens their arguments, and seals and signs its answers."""

    name: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]
    roots: Sequence[x509.Certificate]
    session: ScriptedNode
    keys: key_service_pb2_grpc.KeyServiceStub
    metadata: tuple[tuple[str, str], ...]
    identities: list[str] = field(default_factory=lambda: [sealing.create_identity()])
    version: int = 0

    def bundle(self) -> bytes:
        """The next list of keys, signed."""
        self.version += 1
        now = datetime.now(UTC)
        made = KeyBundle(
            holder=self.name,
            version=self.version,
            recipients=(sealing.recipient_of(self.identities[0]),),
            created=now,
            expires=now + timedelta(days=30),
        )
        return sign_keys(made, self.key, self.chain)

    async def publish(self) -> bytes:
        """Publish the next list of keys, and return it."""
        envelope = self.bundle()
        await self.keys.PublishKeys(key_service_pb2.PublishKeysRequest(envelope=envelope), metadata=self.metadata)
        return envelope

    async def rotate(self) -> None:
        """Make a new key for arguments, publish it, and forget the one before."""
        self.identities = [sealing.create_identity()]
        await self.publish()

    def order(self, assign: pb.Assign) -> VerifiedOrder:
        """The order of an assignment, verified."""
        return verify_order(
            assign.spec.order,
            tuple(assign.spec.parent_orders),
            lambda chain, at: pki.verify_chain(chain, self.roots, at),
            datetime.now(UTC),
        )

    def arguments(self, assign: pb.Assign) -> Any:
        """The arguments of an assignment, opened."""
        (target,) = assign.spec.targets
        return self.opened(assign, target.arguments.inline)

    def opened(self, assign: pb.Assign, sealed: bytes) -> Any:
        """Sealed arguments of an assignment, opened."""
        content = sealing.unseal(sealing.SealedPayload(sealed), self.identities)
        return json.loads(arguments_of(content, self.order(assign).order.requester))

    def statement(self, assign: pb.Assign, **fields: Any) -> bytes:
        """What the node signs about a run."""
        made = ResultStatement(
            order=dsse.digest_of(dsse.peek(assign.spec.order)),
            run=assign.lease.run,
            node=self.name,
            finished=datetime.now(UTC),
            **fields,
        )
        return sign_result(made, self.key, self.chain)

    async def succeed(self, assign: pb.Assign, value: Any, media_type: str = "application/json") -> None:
        """Deliver a sealed and signed answer; returns when it is durable."""
        plain = value if isinstance(value, bytes) else json.dumps(value).encode()
        content = sealing.seal(plain, self.order(assign).order.recipients).content
        signed = self.statement(
            assign,
            outcome="succeeded",
            result=Content(digest=dsse.digest_of(content), size=len(content), media_type=media_type),
        )
        payload = types_pb2.Payload(media_type=media_type, sealing=types_pb2.SEALING_AGE_V1, inline=content)
        done = pb.Completed(lease=assign.lease, result=payload, statement=signed)
        await self.session.acknowledged(await self.session.report(completed=done))

    async def fail(self, assign: pb.Assign, reason: str = "ALGORITHM_FAILED", message: str = "it failed") -> None:
        """Say, signed, that there is no answer."""
        signed = self.statement(assign, outcome="failed", failure=ResultFailure(reason=reason, message=message))
        failure = types_pb2.Failure(reason=reason, message=message)
        done = pb.Completed(lease=assign.lease, failure=failure, statement=signed)
        await self.session.acknowledged(await self.session.report(completed=done))

    async def refuse(self, assign: pb.Assign, reason: str = "POLICY_REFUSED", message: str = "not here") -> None:
        """Say, signed, that the run is not allowed."""
        signed = self.statement(assign, outcome="refused", failure=ResultFailure(reason=reason, message=message))
        failure = types_pb2.Failure(reason=reason, message=message)
        refused = pb.Refused(lease=assign.lease, failure=failure, statement=signed)
        await self.session.acknowledged(await self.session.report(refused=refused))

    async def take(self) -> pb.Assign:
        """The next assignment, accepted."""
        assign = await self.session.assigned()
        await self.session.accept(assign)
        return assign


@dataclass
class SealedNetwork:
    """Dora with a researcher, clara and hilda with a node each, in one collaboration of a real server.

    Attributes:
        server: the server.
        directory: for authorities and keys.
        authorities: by the last part of the organization's name.
        nodes: by the last part of the organization's name.
    """

    server: RunningServer
    directory: Path
    authorities: dict[str, pki.CertificateAuthority] = field(default_factory=dict)
    nodes: dict[str, SealingNode] = field(default_factory=dict)

    @classmethod
    @asynccontextmanager
    async def over(
        cls, server: RunningServer, directory: Path, organizations: Sequence[str] = ("clara", "hilda")
    ) -> AsyncIterator[Self]:
        """Set everything up on a new server; its nodes are connected."""
        network = cls(server, directory)
        root = bearer(await server.bootstrap())
        channel = server.channel()
        for name in (*organizations, "dora"):
            await network._organization(channel, root, name)
        await collaboration_service_pb2_grpc.CollaborationServiceStub(channel).CreateCollaboration(
            collaboration_service_pb2.CreateCollaborationRequest(
                collaboration_id="trial", organizations=[f"organizations/{name}" for name in ("dora", *organizations)]
            ),
            metadata=root,
        )
        await user_service_pb2_grpc.UserServiceStub(channel).CreateUser(
            user_service_pb2.CreateUserRequest(
                user_id="rosa", organization=HOME, roles=["roles/researcher"], password=PASSWORD
            ),
            metadata=root,
        )
        for name in organizations:
            await network.add_node(channel, root, name)
        try:
            yield network
        finally:
            for node in network.nodes.values():
                await node.session.disconnect()

    @property
    def roots(self) -> list[x509.Certificate]:
        """Certificates of all authorities."""
        return [each.certificate for each in self.authorities.values()]

    def certified(self, name: str) -> tuple[ec.EllipticCurvePrivateKey, tuple[x509.Certificate, ...]]:
        """A new key of a holder with its certificate chain."""
        key = pki.create_key()
        authority = self.authorities[name.split("/")[1]]
        return key, (authority.issue(name, key.public_key()),)

    def keys(self, name: str = RESEARCHER, place: str = "keys", passphrase: bytes | None = None) -> KeyFiles:
        """Keys of a user, certified by the organization."""
        files = KeyFiles(self.directory / place)
        request = pki.load_request(files.create(name, passphrase).read_bytes())
        authority = self.authorities[name.split("/")[1]]
        leaf = authority.issue(name, request.public_key)
        files.install((pki.to_pem(leaf) + pki.to_pem(authority.certificate)).encode())
        return files

    def trust(self, keyring: Keyring, place: str = "keys") -> TrustStore:
        """A store in which the authorities of all organizations are pinned."""
        store = TrustStore(self.directory / place, own=keyring.chain)
        for authority in self.authorities.values():
            store.pin(authority.organization, authority.certificate)
        return store

    def identity(self) -> Identity:
        """The researcher, with new keys, who trusts all organizations."""
        keyring = self.keys().open()
        return Identity(keyring, self.trust(keyring), self.files().seen())

    def files(self, place: str = "keys") -> KeyFiles:
        """Keys that were made before."""
        return KeyFiles(self.directory / place)

    async def download(self, node: SealingNode, assign: pb.Assign) -> bytes:
        """Uploaded arguments of an assignment, as the node gets them."""
        (target,) = assign.spec.targets
        request = payload_service_pb2.DownloadPayloadRequest(name=target.arguments.reference)
        stub = payload_service_pb2_grpc.PayloadServiceStub(self.server.channel())
        return b"".join([part.chunk async for part in stub.DownloadPayload(request, metadata=node.metadata)])

    async def add_node(self, channel: grpc.aio.Channel, root: tuple[tuple[str, str], ...], name: str) -> SealingNode:
        """Admit and connect a node of an organization; it has published its keys."""
        node = f"organizations/{name}/nodes/{name}-1"
        await node_service_pb2_grpc.NodeServiceStub(channel).CreateNode(
            node_service_pb2.CreateNodeRequest(
                organization=f"organizations/{name}", node_id=f"{name}-1", collaborations=[COLLABORATION]
            ),
            metadata=root,
        )
        key, chain = self.certified(node)
        auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        info = await auth.GetServerInfo(auth_service_pb2.GetServerInfoRequest())
        assertion = sign_assertion(key, chain, node, info.audience, SystemClock())
        request = auth_service_pb2.ExchangeAssertionRequest(assertion=assertion)
        metadata = bearer((await auth.ExchangeAssertion(request)).tokens)
        session = ScriptedNode(self.server.channel(), metadata)
        await session.hello()
        made = SealingNode(
            node, key, chain, self.roots, session, key_service_pb2_grpc.KeyServiceStub(channel), metadata
        )
        await made.publish()
        self.nodes[name] = made
        return made

    async def _organization(self, channel: grpc.aio.Channel, root: tuple[tuple[str, str], ...], name: str) -> None:
        authority = pki.CertificateAuthority.create(self.directory / "authorities" / name, f"organizations/{name}")
        self.authorities[name] = authority
        await organization_service_pb2_grpc.OrganizationServiceStub(channel).CreateOrganization(
            organization_service_pb2.CreateOrganizationRequest(
                organization_id=name, ca_certificates=[pki.to_pem(authority.certificate)]
            ),
            metadata=root,
        )
