"""The port of mutual TLS: who may connect there, and whose token counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.rpc.identity.test_certificates import CLARA, EMMA, HILDA, NODE, Network, Pair
from tests.rpc.identity.world import NOW, Metadata, World, reason
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import trust_service_pb2 as pb
from vantage.api.admin.v1 import trust_service_pb2_grpc as trust_grpc
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import auth_service_pb2_grpc as auth_grpc
from vantage.common import pki
from vantage.common.authority import AuthorityDirectory
from vantage.common.clock import ManualClock
from vantage.common.errors import Reason
from vantage.common.rpc import open_channel
from vantage.server.config import ServerConfig
from vantage.testing.server import bearer, running_server


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    clock = ManualClock(NOW)
    config = ServerConfig(mtls_listen="127.0.0.1:0", stop_grace_seconds=1, trial=True)
    async with running_server(tmp_path / "server", clock=clock, config=config) as running:
        world = World(running, clock)
        await world.prepare()
        made = Network(world, tmp_path)
        await made.prepare()
        yield made


class Shown:
    """A connection on which a certificate is shown, or none."""

    def __init__(self, network: Network, pair: Pair | None) -> None:
        server = network.world.server
        assert server.trust is not None
        trust = server.trust
        if pair is not None:
            key, leaf = pair
            pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            trust = replace(trust, client=(pem, pki.to_pem(leaf).encode()))
        own = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = open_channel(server.mtls_address, trust, options=own)
        self._network = network

    async def __aenter__(self) -> Shown:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()

    async def enter(self, pair: Pair) -> Metadata:
        request = auth_pb.ExchangeAssertionRequest(assertion=await self._network.assertion(pair))
        return bearer((await auth_grpc.AuthServiceStub(self.channel).ExchangeAssertion(request, timeout=10)).tokens)

    async def bundle(self, me: Metadata) -> Any:
        stub = trust_grpc.TrustServiceStub(self.channel)
        return await stub.GetTrustBundle(pb.GetTrustBundleRequest(), metadata=me, timeout=10)


async def turned_away(network: Network, pair: Pair | None, me: Metadata = ()) -> bool:
    async with Shown(network, pair) as shown:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await shown.bundle(me)
    return bool(caught.value.code() is grpc.StatusCode.UNAVAILABLE)


async def test_the_holder_of_a_certificate_is_let_in(network: Network) -> None:
    node, rosa = network.issue(), network.issue(f"{CLARA}/users/rosa")
    for pair in (node, rosa):
        async with Shown(network, pair) as shown:
            assert len((await shown.bundle(await shown.enter(pair))).organizations) == 2


async def test_nobody_connects_without_a_certificate_of_a_known_organization(network: Network, tmp_path: Path) -> None:
    me = await network.enter(network.issue())
    key = pki.create_key()
    stranger = pki.CertificateAuthority.create(tmp_path / "stranger", CLARA, clock=network.world.clock)
    assert await turned_away(network, None, me)
    assert await turned_away(network, (key, stranger.issue(NODE, key.public_key())), me)
    assert await turned_away(network, (key, pki.self_signed(key, CLARA, NOW)), me)
    await network.bundle(me)  # the token is good, and the other port asks for no certificate


async def test_a_stolen_token_is_worth_nothing_with_another_certificate(network: Network) -> None:
    node, rosa = network.issue(), network.issue(f"{CLARA}/users/rosa")
    hans = network.issue(f"{HILDA}/users/rosa", HILDA)
    tokens = {"node": await network.enter(node), "rosa": await network.enter(rosa), "root": network.world.root}
    for pair, own in ((node, "node"), (rosa, "rosa"), (hans, "")):
        async with Shown(network, pair) as shown:
            for name, me in tokens.items():
                if name == own:
                    await shown.bundle(me)
                else:
                    assert await reason(shown.bundle(me)) is Reason.CERTIFICATE_UNTRUSTED


async def test_the_port_follows_the_authorities(network: Network) -> None:
    network.clara.renew(new_key=True)
    new: tuple[Any, x509.Certificate] = network.issue()
    assert await turned_away(network, new)
    await network.add(CLARA, network.clara.authority.certificate)
    async with Shown(network, new) as shown:
        me = await shown.enter(new)
        await shown.bundle(me)
        await network.remove(CLARA, network.clara.authority.certificate)
        assert await reason(shown.bundle(me)) is Reason.CERTIFICATE_UNTRUSTED  # the connection is still there
    assert await turned_away(network, new, me)


async def test_an_organization_that_is_made_with_its_authority_connects_at_once(
    network: Network, tmp_path: Path
) -> None:
    node = network.issue()
    async with Shown(network, node) as shown:
        await shown.enter(node)  # the port has read the authorities so far
    pki.CertificateAuthority.create(tmp_path / "emma", EMMA, clock=network.world.clock)
    network.authorities[EMMA] = AuthorityDirectory.open(tmp_path / "emma", clock=network.world.clock)
    pem = pki.to_pem(network.authorities[EMMA].authority.certificate)
    await network.world.organizations.CreateOrganization(
        organization_pb.CreateOrganizationRequest(organization_id="emma", ca_certificates=[pem]),
        metadata=network.world.root,
    )
    await network.world.create("emil", organization=EMMA)
    emil = network.issue(f"{EMMA}/users/emil", EMMA)
    async with Shown(network, emil) as shown:
        await shown.bundle(await shown.enter(emil))


async def test_without_any_authority_nobody_gets_in(network: Network) -> None:
    pair = network.issue()
    for organization, authority in network.authorities.items():
        assert isinstance(authority, AuthorityDirectory)
        await network.remove(organization, authority.authority.certificate)
    assert await turned_away(network, pair)
