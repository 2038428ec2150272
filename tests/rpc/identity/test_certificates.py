"""Revocation, roll-over, renewal and removal of authorities, on a whole server."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.rpc.identity.world import Metadata, World, reason
from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import collaboration_service_pb2_grpc as collaboration_grpc
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.api.admin.v1 import node_service_pb2_grpc as node_grpc
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import trust_service_pb2 as pb
from vantage.api.admin.v1 import trust_service_pb2_grpc as trust_grpc
from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.client import AsyncClient
from vantage.common import pki
from vantage.common.assertion import sign_assertion
from vantage.common.authority import AuthorityDirectory
from vantage.common.errors import Reason
from vantage.common.revocation import sign_revocation_list, verify_revocation_list
from vantage.common.rpc import error_from_rpc
from vantage.server.services.trust import MAX_BUNDLE_BYTES
from vantage.testing.scripted_node import ScriptedNode
from vantage.testing.server import PASSWORD, bearer

CLARA, HILDA, EMMA = "organizations/clara", "organizations/hilda", "organizations/emma"
NODE = f"{CLARA}/nodes/one"
Pair = tuple[Any, x509.Certificate]


class Network:
    """Authorities of clara and hilda that the server knows, clara's node, and a collaboration of both."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self._channel = world.server.channel()
        self.trust = trust_grpc.TrustServiceStub(self._channel)
        self.authorities = {}
        for organization in (CLARA, HILDA):
            place = directory / organization.rpartition("/")[2]
            pki.CertificateAuthority.create(place, organization, clock=world.clock)
            self.authorities[organization] = AuthorityDirectory.open(place, clock=world.clock)
        self.clara = self.authorities[CLARA]

    async def prepare(self) -> None:
        for organization, authority in self.authorities.items():
            await self.add(organization, authority.authority.certificate)
        await collaboration_grpc.CollaborationServiceStub(self._channel).CreateCollaboration(
            collaboration_pb.CreateCollaborationRequest(collaboration_id="lungs", organizations=[CLARA, HILDA]),
            metadata=self.world.root,
        )
        await node_grpc.NodeServiceStub(self._channel).CreateNode(
            node_pb.CreateNodeRequest(organization=CLARA, node_id="one", collaborations=["collaborations/lungs"]),
            metadata=self.world.root,
        )

    async def add(self, organization: str, certificate: x509.Certificate) -> pb.AddCaCertificateResponse:
        request = pb.AddCaCertificateRequest(organization=organization, ca_certificate=pki.to_pem(certificate))
        return await self.trust.AddCaCertificate(request, metadata=self.world.root)

    async def remove(self, organization: str, certificate: x509.Certificate) -> pb.RemoveCaCertificateResponse:
        request = pb.RemoveCaCertificateRequest(organization=organization, fingerprint=pki.fingerprint(certificate))
        return await self.trust.RemoveCaCertificate(request, metadata=self.world.root)

    async def put(self, content: bytes, organization: str = CLARA) -> pb.SetRevocationListResponse:
        request = pb.SetRevocationListRequest(organization=organization, revocation_list=content)
        return await self.trust.SetRevocationList(request, metadata=self.world.root)

    def issue(self, name: str = NODE, organization: str = CLARA) -> Pair:
        key = pki.create_key()
        return key, self.authorities[organization].authority.issue(name, key.public_key())

    async def assertion(self, pair: Pair, *chain: x509.Certificate) -> str:
        key, leaf = pair
        info = await self.world.auth.GetServerInfo(auth_pb.GetServerInfoRequest())
        name = pki.certified_name(leaf)
        return sign_assertion(key, [leaf, *chain], name, info.audience, self.world.clock)

    async def enter(self, pair: Pair) -> Metadata:
        request = auth_pb.ExchangeAssertionRequest(assertion=await self.assertion(pair))
        return bearer((await self.world.auth.ExchangeAssertion(request)).tokens)

    async def connect(self, me: Metadata) -> ScriptedNode:
        node = ScriptedNode(self._channel, me)
        await node.hello()
        return node

    async def bundle(self, me: Metadata, page_token: str = "", page_size: int = 0) -> pb.GetTrustBundleResponse:
        request = pb.GetTrustBundleRequest(page_size=page_size, page_token=page_token)
        return await self.trust.GetTrustBundle(request, metadata=me)


@pytest.fixture
async def network(world: World, tmp_path: Path) -> Network:
    made = Network(world, tmp_path)
    await made.prepare()
    return made


async def test_a_revoked_certificate_is_out_at_once(network: Network) -> None:
    good, bad = network.issue(), network.issue()
    me = await network.enter(bad)
    node = await network.connect(me)
    answer = await network.put(network.clara.revoke(bad[1].serial_number))
    assert (answer.number, answer.revoked_certificates, answer.ended_sessions) == ("1", 1, 1)
    goodbye = (await node.receive("goodbye")).goodbye
    assert goodbye.reason == "CERTIFICATE_REVOKED"
    assert pki.serial_text(bad[1]) in goodbye.message
    assert await reason(network.enter(bad)) is Reason.CERTIFICATE_REVOKED
    assert await reason(network.bundle(me)) is Reason.CERTIFICATE_REVOKED  # its token died with it
    await network.connect(await network.enter(good))


async def test_the_same_list_again_is_harmless_and_an_older_one_is_refused(network: Network) -> None:
    first = network.clara.revoke()
    second = network.clara.revoke(network.issue()[1].serial_number)
    await network.put(second)
    version = (await network.bundle(network.world.root)).version
    await network.put(second)
    assert (await network.bundle(network.world.root)).version == version
    assert await reason(network.put(first)) is Reason.REVOCATION_LIST_OUTDATED


async def test_a_list_must_be_the_organizations_own_and_current(network: Network) -> None:
    hilda = network.authorities[HILDA]
    assert await reason(network.put(hilda.revoke())) is Reason.REVOCATION_LIST_INVALID
    assert await reason(network.put(b"nonsense")) is Reason.REVOCATION_LIST_INVALID
    late = network.clara.revoke(days=1)
    network.world.clock.advance(timedelta(days=2))
    network.world.root = bearer(await network.world.login("root"))
    assert await reason(network.put(late)) is Reason.REVOCATION_LIST_INVALID


async def test_an_authority_rolls_over_with_both_side_by_side(network: Network) -> None:
    old = network.issue()
    old_authority = network.clara.authority.certificate
    old_me = await network.enter(old)
    node = await network.connect(old_me)
    new_authority = network.clara.renew(new_key=True)
    new = network.issue()
    assert await reason(network.enter(new)) is Reason.CERTIFICATE_UNTRUSTED
    assert len((await network.add(CLARA, new_authority)).ca_certificates) == 2
    assert len((await network.add(CLARA, new_authority)).ca_certificates) == 2  # once more is harmless
    await node.heartbeat()  # the old session goes on
    await network.enter(old)
    other = network.issue(f"{CLARA}/users/rosa")
    me = await network.enter(other)
    assert await network.world.who(me) == "users/rosa"
    answer = await network.remove(CLARA, old_authority)
    assert (len(answer.ca_certificates), answer.ended_sessions) == (1, 1)
    assert (await node.receive("goodbye")).goodbye.reason == "CERTIFICATE_UNTRUSTED"
    assert await reason(network.bundle(old_me)) is Reason.CERTIFICATE_UNTRUSTED
    assert await reason(network.enter(old)) is Reason.CERTIFICATE_UNTRUSTED
    await network.enter(new)
    assert await network.world.who(me) == "users/rosa"


async def test_the_new_authority_goes_on_with_the_list_of_the_old(network: Network) -> None:
    bad = network.issue()
    await network.put(network.clara.revoke(bad[1].serial_number))
    await network.add(CLARA, network.clara.renew(new_key=True))
    answer = await network.put(network.clara.revoke())
    assert (answer.number, answer.revoked_certificates) == ("2", 1)
    assert await reason(network.enter(bad)) is Reason.CERTIFICATE_REVOKED


async def test_numbers_of_an_authority_that_was_given_up_do_not_block_the_next(network: Network) -> None:
    """Whoever stole a key may sign a list with the highest number there is."""
    stolen, certificate = network.clara.authority.key, network.clara.authority.certificate
    await network.put(sign_revocation_list(stolen, certificate, {}, 2**150, network.world.clock.now()))
    await network.add(CLARA, network.clara.renew(new_key=True))
    own = network.clara.revoke()
    assert await reason(network.put(own)) is Reason.REVOCATION_LIST_OUTDATED
    await network.remove(CLARA, certificate)
    assert (await network.put(own)).number == "1"


async def test_a_renewed_certificate_counts_from_its_first_use(network: Network) -> None:
    old = network.issue()
    me = await network.enter(old)
    node = await network.connect(me)
    network.world.clock.advance(timedelta(hours=1))
    new = network.issue()
    await network.enter(old)  # issued is not used
    await network.enter(new)
    assert await reason(network.enter(old)) is Reason.CERTIFICATE_SUPERSEDED
    await node.heartbeat()  # what the old one opened goes on without interruption


async def test_a_users_certificate_dies_in_the_same_ways(network: Network) -> None:
    pair = network.issue(f"{CLARA}/users/rosa")
    me = await network.enter(pair)
    assert await network.world.who(me) == "users/rosa"
    await network.put(network.clara.revoke(pair[1].serial_number))
    assert await reason(network.world.who(me)) is Reason.CERTIFICATE_REVOKED
    assert await reason(network.enter(pair)) is Reason.CERTIFICATE_REVOKED
    await network.world.login()  # the password is another matter


async def test_everybody_is_told_of_those_that_concern_them(network: Network) -> None:
    world = network.world
    await world.organizations.CreateOrganization(_create("emma"), metadata=world.root)
    await world.create("emil", organization=EMMA)
    crl = network.authorities[HILDA].revoke(5)
    await network.put(crl, HILDA)
    node = await network.bundle(await network.enter(network.issue()))
    told = {each.organization: each for each in node.organizations}
    assert sorted(told) == [CLARA, HILDA]
    assert told[CLARA].revocation_list == b""
    roots = [pki.load_certificates(each)[0] for each in told[HILDA].ca_certificates]
    assert verify_revocation_list(told[HILDA].revocation_list, roots, world.clock.now()).serials.keys() == {5}
    rosa = await network.bundle(bearer(await world.login()))
    assert [each.organization for each in rosa.organizations] == [CLARA, HILDA]
    emil = await network.bundle(bearer(await world.login("emil")))
    assert [each.organization for each in emil.organizations] == [EMMA]
    root = await network.bundle(world.root)
    assert [each.organization for each in root.organizations] == [CLARA, EMMA, HILDA]


async def test_a_bundle_comes_in_pages_that_any_line_carries(network: Network) -> None:
    world = network.world
    me = await network.enter(network.issue())
    serials = range(2**150, 2**150 + 15_000)
    large = {each: network.authorities[each].revoke(*serials) for each in (CLARA, HILDA)}
    for organization, crl in large.items():
        await network.put(crl, organization)
    assert sum(map(len, large.values())) > MAX_BUNDLE_BYTES > max(map(len, large.values()))
    for who in (me, world.root):
        first = await network.bundle(who)
        assert [each.organization for each in first.organizations] == [CLARA]
        second = await network.bundle(who, page_token=first.next_page_token)
        assert [each.organization for each in second.organizations] == [HILDA]
        assert second.organizations[0].revocation_list == large[HILDA]
        assert not second.next_page_token
    async with AsyncClient.connect(world.server.address, fingerprint=world.server.fingerprint) as client:
        await client.auth.login("rosa", PASSWORD)
        told = await client.trust.bundle()
    assert {each.organization: each.revocation_list for each in told} == large
    one = await network.bundle(me, page_size=1)
    assert await reason(network.bundle(me, page_token=one.next_page_token + "x")) is Reason.PAGE_TOKEN_INVALID


async def test_the_version_changes_with_what_it_speaks_of_and_nodes_hear_it(network: Network) -> None:
    node = await network.connect(await network.enter(network.issue()))
    seen = [node.welcome.trust_version]

    async def heard() -> bool:
        seen.append((await node.heartbeat()).trust_version)
        return seen[-1] != seen[-2]

    assert not await heard()
    await network.put(network.clara.revoke(7))
    assert await heard()
    await network.add(HILDA, network.authorities[HILDA].renew(new_key=True))
    assert await heard()
    assert not await heard()
    assert (await network.bundle(network.world.root)).version == seen[-1]


async def test_authorities_are_bounded_and_must_be_the_organizations_own(network: Network) -> None:
    hilda = network.authorities[HILDA].authority.certificate
    assert await reason(network.add(CLARA, hilda)) is Reason.CERTIFICATE_INVALID
    assert await reason(network.add(CLARA, network.issue()[1])) is Reason.CERTIFICATE_INVALID
    for _ in range(4):
        await network.add(CLARA, network.clara.renew(new_key=True))
    assert await reason(network.add(CLARA, network.clara.renew(new_key=True))) is Reason.CERTIFICATE_INVALID
    for fingerprint in ("", "sha256:12", "x"):
        request = pb.RemoveCaCertificateRequest(organization=CLARA, fingerprint=fingerprint)
        problem = await reason(network.trust.RemoveCaCertificate(request, metadata=network.world.root))
        assert problem is Reason.INVALID_ARGUMENT


async def test_removing_every_authority_ends_all_that_they_vouched_for(network: Network) -> None:
    pair = network.issue()
    me = await network.enter(pair)
    await network.remove(CLARA, network.clara.authority.certificate)
    assert await reason(network.bundle(me)) is Reason.CERTIFICATE_UNTRUSTED
    assert await reason(network.enter(pair)) is Reason.CERTIFICATE_UNTRUSTED
    await network.add(CLARA, network.clara.authority.certificate)
    await network.enter(pair)


async def test_fuzzed_certificates_and_lists_never_yield_internal(network: Network) -> None:
    loop = asyncio.get_running_loop()
    key, leaf = network.issue()
    certificate = pki.to_pem(network.clara.authority.certificate).encode()
    crl = network.clara.revoke(1, 2, 3)
    der = leaf.public_bytes(Encoding.DER)

    async def send(seed: bytes, at: int, value: int) -> None:
        def spoil(content: bytes) -> bytes:
            place = at % len(content)
            return content[:place] + bytes([value]) + seed + content[place + 1 :]

        calls: list[Awaitable[Any]] = [
            network.trust.AddCaCertificate(
                pb.AddCaCertificateRequest(
                    organization=CLARA, ca_certificate=spoil(certificate).decode("ascii", "replace")
                ),
                metadata=network.world.root,
            ),
            network.put(spoil(crl)),
            network.put(seed),
            network.world.auth.ExchangeAssertion(
                auth_pb.ExchangeAssertionRequest(assertion=await _spoiled_assertion(network, key, spoil(der)))
            ),
        ]
        for call in calls:
            assert await _outcome(call) is not Reason.INTERNAL

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.binary(max_size=4), st.integers(0, 2000), st.integers(0, 255))
    @example(b"", 48, 47)  # a serial number below zero
    def attempt(seed: bytes, at: int, value: int) -> None:
        asyncio.run_coroutine_threadsafe(send(seed, at, value), loop).result(20)

    await asyncio.to_thread(attempt)


async def _outcome(call: Awaitable[Any]) -> Reason | None:
    try:
        await call
    except grpc.aio.AioRpcError as problem:
        return error_from_rpc(problem).reason
    return None


async def _spoiled_assertion(network: Network, key: Any, der: bytes) -> str:
    now = network.world.clock.now()
    claims = {"iss": NODE, "sub": NODE, "aud": "x", "iat": now, "nbf": now, "exp": now + timedelta(minutes=1)}
    return jwt.encode(claims, key, algorithm="ES256", headers={"x5c": [base64.b64encode(der).decode()]})


def _create(name: str) -> Any:
    return organization_pb.CreateOrganizationRequest(organization_id=name)
