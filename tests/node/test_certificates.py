"""A node against a whole server: whom it trusts, revocation, renewal while it runs, a second process, a wrong clock."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from vantage.api.admin.v1 import collaboration_service_pb2 as collaboration_pb
from vantage.api.admin.v1 import collaboration_service_pb2_grpc as collaboration_grpc
from vantage.api.admin.v1 import node_service_pb2 as node_pb
from vantage.api.admin.v1 import node_service_pb2_grpc as node_grpc
from vantage.api.admin.v1 import organization_service_pb2 as organization_pb
from vantage.api.admin.v1 import organization_service_pb2_grpc as organization_grpc
from vantage.api.admin.v1 import trust_service_pb2 as trust_pb
from vantage.api.admin.v1 import trust_service_pb2_grpc as trust_grpc
from vantage.common import audit, pki
from vantage.common.authority import AuthorityDirectory
from vantage.common.backoff import Backoff
from vantage.common.clock import ManualClock
from vantage.common.errors import PermissionDeniedError, Reason
from vantage.common.trust import TrustStore
from vantage.node import config as node_config
from vantage.node import trust as node_trust
from vantage.node.agent import Agent
from vantage.node.assembly import assemble
from vantage.node.connection import FatalError
from vantage.node.session import Settings
from vantage.server.config import ServerConfig
from vantage.server.services import trust
from vantage.testing.commands import call
from vantage.testing.scripted_server import TIMEOUT, ScriptedServer
from vantage.testing.server import RunningServer, bearer, running_server
from vantage.testing.station import NODE, Station

CLARA, HILDA = "organizations/clara", "organizations/hilda"


class Place:
    """A server that knows clara and hilda, and clara's station."""

    def __init__(self, directory: Path, server: RunningServer) -> None:
        self.server = server
        self.station = Station.create(_made(directory / "clara"), cast("ScriptedServer", server))
        self.station.settings["server"] = {"address": "", "fingerprint": server.fingerprint}
        self.clara = AuthorityDirectory.open(directory / "clara" / "ca")
        pki.CertificateAuthority.create(directory / "hilda", HILDA)
        self.hilda = AuthorityDirectory.open(directory / "hilda")
        self.trust = trust_grpc.TrustServiceStub(server.channel())
        self.root: Any = ()

    async def prepare(self) -> None:
        self.root = bearer(await self.server.bootstrap())
        channel = self.server.channel()
        for authority in (self.clara, self.hilda):
            await organization_grpc.OrganizationServiceStub(channel).CreateOrganization(
                organization_pb.CreateOrganizationRequest(
                    organization_id=authority.authority.organization.rpartition("/")[2],
                    ca_certificates=[pki.to_pem(authority.authority.certificate)],
                ),
                metadata=self.root,
            )
        await collaboration_grpc.CollaborationServiceStub(channel).CreateCollaboration(
            collaboration_pb.CreateCollaborationRequest(collaboration_id="trial", organizations=[CLARA, HILDA]),
            metadata=self.root,
        )
        await node_grpc.NodeServiceStub(channel).CreateNode(
            node_pb.CreateNodeRequest(organization=CLARA, node_id="clara-1", collaborations=["collaborations/trial"]),
            metadata=self.root,
        )

    @property
    def store(self) -> TrustStore:
        return TrustStore(self.station.directory / "data" / "trust")

    async def revoke(self, authority: AuthorityDirectory, *serials: int) -> trust_pb.SetRevocationListResponse:
        request = trust_pb.SetRevocationListRequest(
            organization=authority.authority.organization, revocation_list=authority.revoke(*serials)
        )
        return await self.trust.SetRevocationList(request, metadata=self.root)

    def certificate(self) -> Any:
        return pki.load_certificates((self.station.directory / "node-cert.pem").read_bytes())[0]


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    config = ServerConfig(stop_grace_seconds=1, trial=True, heartbeat_seconds=1, mtls_listen="127.0.0.1:0")
    async with running_server(tmp_path / "server", config=config) as server:
        made = Place(tmp_path, server)
        await made.prepare()
        yield made


def hans(place: Place) -> bytes:
    return place.hilda.authority.issue(f"{HILDA}/users/hans", pki.create_key().public_key()).public_bytes(Encoding.DER)


async def test_a_node_trusts_its_own_organization_and_is_offered_the_others(place: Place) -> None:
    async with place.station.running() as agent:
        await agent.connected.wait()
        await place.station.heard(f"as an authority of {HILDA}: it is not trusted")
    mark = pki.fingerprint(place.hilda.authority.certificate)
    assert [pin.fingerprint for pin in place.store.record(CLARA).pins] == [
        pki.fingerprint(place.clara.authority.certificate)
    ]
    now = datetime.now(UTC)
    with pytest.raises(PermissionDeniedError):
        place.store.certify([hans(place)], now)
    arguments = ("--config", place.station.config_path)
    shown = call("node", "trust", "list", *arguments)[0]
    assert f"offered by the server, not trusted: {mark}" in shown
    assert f"trusts {mark}" in call("node", "trust", "add", "hilda", "--fingerprint", mark, *arguments)[0]
    assert place.store.certify([hans(place)], now).organization == HILDA
    assert "fingerprint confirmed" in call("node", "trust", "list", *arguments)[0]
    assert mark in call("node", "trust", "remove", "hilda", *arguments)[0]
    with pytest.raises(PermissionDeniedError):
        place.store.certify([hans(place)], now)
    file = place.hilda.directory / pki.CA_CERTIFICATE_FILE
    call("node", "trust", "add", "hilda", "--certificate", file, *arguments)
    assert place.store.certify([hans(place)], now).organization == HILDA


async def test_first_use_must_be_chosen(place: Place) -> None:
    place.station.settings["trust"] = {"first_use": True}
    async with place.station.running():
        await place.station.heard(f"{HILDA} from now on")
    assert place.store.certify([hans(place)], datetime.now(UTC)).organization == HILDA


async def test_a_revocation_reaches_a_connected_node_with_its_next_heartbeat(place: Place) -> None:
    place.station.settings["trust"] = {"first_use": True}
    bad = place.hilda.authority.issue(f"{HILDA}/users/hans", pki.create_key().public_key())
    async with place.station.running():
        await place.station.heard(f"{HILDA} from now on")
        await place.revoke(place.hilda, bad.serial_number)
        await place.station.heard(f"revocation list 1 of {HILDA} is in force")
        with pytest.raises(PermissionDeniedError) as caught:
            place.store.certify([bad.public_bytes(Encoding.DER)], datetime.now(UTC))
        assert caught.value.reason is Reason.CERTIFICATE_REVOKED
    events = [record["event"] for record in audit.records(place.station.directory / "data" / "audit.log")]
    assert events.count("trust.pinned") == 2
    assert events.count("trust.revocations") == 1


async def test_a_revocation_on_a_later_page_reaches_the_node(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "MAX_BUNDLE_BYTES", 1)
    place.station.settings["trust"] = {"first_use": True}
    async with place.station.running():
        await place.station.heard(f"{HILDA} from now on")
        for authority in (place.clara, place.hilda):
            await place.revoke(authority, 7)
        await place.station.heard(f"revocation list 1 of {HILDA} is in force")
        await place.station.heard(f"revocation list 1 of {CLARA} is in force")


async def test_a_bundle_without_end_is_not_held(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = asyncio.Event()

    def warning(_text: str, extra: dict[str, str]) -> None:
        if extra["reason"] == "PAYLOAD_TOO_LARGE":
            refused.set()

    monkeypatch.setattr(node_trust.log, "warning", warning)
    monkeypatch.setattr(node_trust, "MAX_BUNDLE_BYTES", 1)
    place.station.settings["trust"] = {"first_use": True}
    async with place.station.running():
        async with asyncio.timeout(TIMEOUT):
            await refused.wait()
    assert HILDA not in {each.organization for each in place.store.records()}


async def test_a_node_whose_certificate_is_revoked_ends_and_says_why(place: Place) -> None:
    agent = place.station.agent()
    task = asyncio.create_task(agent.run())
    await agent.connected.wait()
    assert (await place.revoke(place.clara, place.certificate().serial_number)).ended_sessions == 1
    with pytest.raises(FatalError) as caught:
        async with asyncio.timeout(TIMEOUT):
            await task
    assert caught.value.cause.reason is Reason.CERTIFICATE_REVOKED
    assert any("was revoked by its organization" in line for line in place.station.said)


async def test_a_certificate_is_renewed_while_the_node_runs(place: Place) -> None:
    station, old = place.station, place.certificate()
    async with station.running() as agent:
        await agent.connected.wait()
        said = call("node", "renew", "--config", station.config_path)[0]
        request = station.directory / "node-cert.new.csr"
        assert str(request) in said
        new = place.clara.issue(request.read_bytes(), "organizations/nodes")
        (station.directory / "node-cert.new.pem").write_text(pki.to_pem(new))
        await station.heard("the new certificate is in use")
    assert place.certificate() == new
    assert not list(station.directory.glob("*.new.*"))
    key = pki.read_key(station.directory / "node-key.pem")
    assert key.public_key() == new.public_key()
    report = audit.verify(station.directory / "data" / "audit.log", old.public_key(), key.public_key())
    assert report.intact
    assert report.checkpoints >= 2
    only_new = audit.verify(station.directory / "data" / "audit.log", key.public_key())
    assert any("signature is wrong" in problem for problem in only_new.problems)
    async with station.running() as agent:
        await agent.connected.wait()


async def test_a_new_certificate_that_the_server_does_not_take_leaves_the_old_one_in_use(place: Place) -> None:
    station = place.station
    stranger = pki.CertificateAuthority.create(station.directory / "stranger", CLARA)
    async with station.running() as agent:
        await agent.connected.wait()
        call("node", "renew", "--config", station.config_path)
        wanted = pki.load_request((station.directory / "node-cert.new.csr").read_bytes())
        new = stranger.issue(wanted.name, wanted.public_key)
        (station.directory / "node-cert.new.pem").write_text(pki.to_pem(new))
        await station.heard("does not accept the new certificate, the present one goes on")
        assert agent.connected.is_set()
        (station.directory / "node-cert.new.pem").write_text("nonsense")
        await station.heard("the new certificate cannot be used, the present one goes on")
    async with station.running() as agent:
        await agent.connected.wait()


async def test_a_renewal_that_died_half_way_is_finished_at_the_next_start(place: Place) -> None:
    station = place.station
    station.write()
    call("node", "renew", "--config", station.config_path)
    again = call("node", "renew", "--config", station.config_path, code=1)[1]
    assert "a renewal has begun already" in again
    new = place.clara.issue((station.directory / "node-cert.new.csr").read_bytes(), "organizations/nodes")
    (station.directory / "node-cert.new.pem").write_text(pki.to_pem(new))
    (station.directory / "node-key.new.pem").replace(station.directory / "node-key.pem")
    async with station.running() as agent:
        await agent.connected.wait()
    assert place.certificate() == new


async def test_a_certificate_that_ends_soon_is_said_in_time(place: Place) -> None:
    station = place.station
    key = pki.read_key(station.directory / "node-key.pem")
    short = place.clara.authority.issue(NODE, key.public_key(), lifetime=timedelta(days=12, hours=1))
    (station.directory / "node-cert.pem").write_text(pki.to_pem(short))
    async with station.running() as agent:
        await station.heard("in 12 days: run 'vantage node renew'")
        await agent.connected.wait()
    assert sum("ends on" in line for line in station.said) == 1


async def test_two_processes_with_one_identity_are_named_on_both_sides(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    first = place.station.agent()
    task = asyncio.create_task(first.run())
    await first.connected.wait()
    place.station.settings["data_dir"] = "elsewhere"
    async with place.station.running() as second:
        await second.connected.wait()
        await place.station.heard(f"another process connected as {NODE}")
        with pytest.raises(FatalError) as caught:
            async with asyncio.timeout(TIMEOUT):
                await task
    assert caught.value.cause.reason is Reason.SESSION_FENCED
    assert any("two processes with one identity" in line for line in place.station.said)
    node, server = (
        next(each for each in caplog.records if text in each.getMessage())
        for text in ("session of another process", "older session of the node fenced")
    )
    instances = (node.__dict__["other_instance"], node.__dict__["own_instance"])
    assert instances == (server.__dict__["older_instance"], server.__dict__["newer_instance"])


async def test_a_node_that_was_restarted_is_no_second_process(place: Place) -> None:
    """The server may still hold the session of the process that died."""
    async with place.station.running() as agent:
        await agent.connected.wait()
        instance = agent._instance
    agent = place.station.agent()
    task = asyncio.create_task(agent.run())
    await agent.connected.wait()
    agent._announce(Settings(fenced_instance=instance))
    assert not any("another process" in line for line in place.station.said)
    agent._announce(Settings(fenced_instance="someone-else"))
    assert any("another process" in line for line in place.station.said)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class Attempts(Backoff):
    """Says when there were five."""

    def __init__(self) -> None:
        super().__init__(base=0.01, cap=0.01)
        self.five = asyncio.Event()
        self._count = 0

    def next_delay(self) -> float:
        self._count += 1
        if self._count == 5:
            self.five.set()
        return super().next_delay()


async def test_a_wrong_clock_is_named_on_the_console_once(place: Place) -> None:
    loaded = node_config.load(place.station.write())
    clock = ManualClock(datetime.now(UTC) + timedelta(minutes=20))
    attempts = Attempts()
    agent = Agent(loaded, assemble(loaded), clock=clock, backoff=attempts, say=place.station._say)
    task = asyncio.create_task(agent.run())
    await place.station.heard("s ahead of the server's: synchronise it")
    clock.advance(timedelta(minutes=2))
    await asyncio.wait_for(attempts.five.wait(), TIMEOUT)
    clock.jump(timedelta(minutes=-22))
    await agent.connected.wait()
    assert sum("clock" in line for line in place.station.said) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_node_shows_its_certificate_where_the_server_asks_for_one(place: Place) -> None:
    station = place.station
    station.write()
    text = station.config_path.read_text().replace(place.server.address, place.server.mtls_address)
    station.config_path.write_text(text)

    def agent() -> Agent:
        loaded = node_config.load(station.config_path)
        return Agent(loaded, assemble(loaded), backoff=Backoff(base=0.01, cap=0.01), say=station._say)

    without = asyncio.create_task(agent().run())
    await station.heard("not connected")
    without.cancel()
    await asyncio.gather(without, return_exceptions=True)
    station.config_path.write_text(text.replace("server:\n", "server:\n  mtls: true\n"))
    node = agent()
    task = asyncio.create_task(node.run())
    await node.connected.wait()
    await station.heard(f"as an authority of {HILDA}")  # calls beside the stream work, too
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_certificate_that_is_replaced_in_place_is_noticed(place: Place) -> None:
    station = place.station
    key = pki.read_key(station.directory / "node-key.pem")
    async with station.running() as agent:
        await agent.connected.wait()
        (station.directory / "node-cert.pem").write_text(
            pki.to_pem(place.clara.authority.issue(NODE, key.public_key(), lifetime=timedelta(days=100)))
        )
        await station.heard("the new certificate is in use")
        assert agent.connected.is_set()
