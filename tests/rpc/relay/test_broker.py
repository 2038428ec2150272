"""The broker: who may talk to whom, over which relay, and what both sides are told."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import jwt
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.api.relay.v1 import relay_broker_service_pb2 as pb
from vantage.api.task.v1 import task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.server.config import ServerConfig
from vantage.server.relay.directory import RelayDirectory, RelayEntry
from vantage.server.relaying import ticket_issuer
from vantage.server.services import relay_broker
from vantage.testing.relay import running_relay
from vantage.testing.scripted_node import ScriptedNode
from vantage.testing.task_server import ROSA, Network, as_, request_id, spec

ALPHA, BETA, GAMMA = (f"organizations/{each}/nodes/one" for each in ("alpha", "beta", "gamma"))


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    network = Network(tmp_path)
    await network.start()
    yield network
    await network.stop()


class Party:
    """A node that holds one run."""

    def __init__(self, network: Network, name: str) -> None:
        self.name = name
        self.node: ScriptedNode = network.node(name)
        self.broker = network.broker()
        self.assign = node_pb.Assign()

    @property
    def run(self) -> str:
        return self.assign.lease.run

    def open(self, peer_run: str, pair: str = "") -> asyncio.Task[pb.OpenPairResponse]:
        request = pb.OpenPairRequest(lease=self.assign.lease, peer_run=peer_run, pair=pair or str(uuid.uuid4()))

        async def call() -> pb.OpenPairResponse:
            return await self.broker.OpenPair(request, metadata=as_(self.name))

        return asyncio.create_task(call())

    def watch(self) -> grpc.aio.UnaryStreamCall[pb.WatchPeersRequest, pb.WatchPeersResponse]:
        return self.broker.WatchPeers(pb.WatchPeersRequest(lease=self.assign.lease), metadata=as_(self.name))


async def reason_of(task: asyncio.Task[pb.OpenPairResponse]) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await task
    return error_from_rpc(caught.value).reason


async def create(network: Network, *organizations: str, parent: Party | None = None) -> None:
    metadata = ROSA if parent is None else as_(parent.name)
    question = spec(*organizations, parent_run="" if parent is None else parent.run)
    await network.stub().CreateTask(
        task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=question), metadata=metadata
    )


async def parties(network: Network, *names: str, parent: Party | None = None) -> list[Party]:
    """Nodes that each hold a run of one new task."""
    found = [Party(network, name) for name in names]
    for party in found:
        await party.node.hello()
    await create(network, *(name.partition("/nodes/")[0] for name in names), parent=parent)
    for party in found:
        party.assign = await party.node.assigned()
    return found


def claims(ticket: str) -> dict[str, str]:
    found: dict[str, str] = jwt.decode(ticket, options={"verify_signature": False})
    return found


async def test_both_sides_get_a_ticket_for_the_same_pair(network: Network) -> None:
    alpha, beta = await parties(network, ALPHA, BETA)
    pair = str(uuid.uuid4())
    asking = alpha.open(beta.run, pair)
    offer = await beta.node.wanted()
    assert (offer.pair, offer.lease, offer.peer_run, offer.peer_node) == (pair, beta.assign.lease, alpha.run, ALPHA)
    assert not asking.done()  # not before the other side has agreed
    await beta.node.answer(offer)
    opened = await asking
    assert (opened.peer_node, opened.job) == (BETA, alpha.run.partition("/runs/")[0])
    assert (opened.relay.name, opened.relay.address) == ("embedded", "")
    mine, theirs = claims(opened.ticket), claims(offer.ticket)
    assert mine["pair"] == theirs["pair"] == offer.offer
    assert (mine["side"], theirs["side"]) == ("opens", "answers")
    assert (mine["sub"], theirs["sub"]) == (ALPHA, BETA)
    assert mine["jti"] != theirs["jti"]
    # Once more for the same pair: the connection goes on with new tickets, for a new meeting.
    asking = alpha.open(beta.run, pair)
    again = await beta.node.wanted()
    assert (again.pair, again.offer != offer.offer) == (pair, True)
    await beta.node.answer(again)
    assert claims((await asking).ticket)["pair"] == again.offer


async def test_a_refusal_reaches_who_asks(network: Network) -> None:
    alpha, beta = await parties(network, ALPHA, BETA)
    for given, expected in (("PEERS_REFUSED", Reason.PEERS_REFUSED), ("INTERNAL", Reason.PEER_LOST)):
        asking = alpha.open(beta.run)
        offer = await beta.node.wanted()
        await beta.node.answer(offer, types_pb2.Failure(reason=given, message="not with us"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asking
        problem = error_from_rpc(caught.value)
        assert (problem.reason, problem.message) == (expected, "not with us")


async def test_an_answer_that_is_lost_with_its_session_is_not_waited_for(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_broker, "ANSWER_SECONDS", 3600.0)
    alpha, beta = await parties(network, ALPHA, BETA)
    asking = alpha.open(beta.run)
    await beta.node.wanted()
    await beta.node.disconnect()
    async with asyncio.timeout(30):
        assert await reason_of(asking) is Reason.PEER_LOST


async def test_only_runs_of_one_job_meet_and_only_for_who_holds_them(network: Network) -> None:
    alpha, beta = await parties(network, ALPHA, BETA)
    (stranger,) = await parties(network, GAMMA)
    assert await reason_of(stranger.open(alpha.run)) is Reason.NOT_FOUND
    assert await reason_of(alpha.open(stranger.run)) is Reason.NOT_FOUND
    assert await reason_of(alpha.open(alpha.run)) is Reason.INVALID_ARGUMENT
    assert await reason_of(alpha.open("tasks/x/runs/y")) is Reason.INVALID_ARGUMENT
    assert await reason_of(alpha.open(beta.run, "not-a-uuid")) is Reason.INVALID_ARGUMENT
    thief = Party(network, GAMMA)
    thief.assign.CopyFrom(alpha.assign)
    assert await reason_of(thief.open(beta.run)) is Reason.LEASE_INVALID
    thief = Party(network, ALPHA)
    thief.assign.CopyFrom(alpha.assign)
    thief.assign.lease.attempt = 2
    assert await reason_of(thief.open(beta.run)) is Reason.LEASE_INVALID
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await thief.watch().read()
    assert error_from_rpc(caught.value).reason is Reason.LEASE_INVALID
    await beta.node.accept(beta.assign)
    await beta.node.acknowledged(await beta.node.succeed(beta.assign))
    assert await reason_of(alpha.open(beta.run)) is Reason.PEER_ENDED
    assert await reason_of(beta.open(alpha.run)) is Reason.LEASE_INVALID


async def test_a_node_that_is_away_or_a_run_that_waits_can_be_asked_again(network: Network) -> None:
    alpha = Party(network, ALPHA)
    await alpha.node.hello()
    await create(network, "organizations/alpha", "organizations/beta")
    alpha.assign = await alpha.node.assigned()
    watching = alpha.watch()
    first = await watching.read()
    assert isinstance(first, pb.WatchPeersResponse)
    waiting = next(each for each in first.peers if each.organization == "organizations/beta")
    assert (waiting.state, waiting.node) == (pb.PEER_STATE_WAITING, "")
    assert await reason_of(alpha.open(waiting.run)) is Reason.PEER_NOT_READY
    beta = Party(network, BETA)
    await beta.node.hello()
    beta.assign = await beta.node.assigned()
    second = await watching.read()
    assert isinstance(second, pb.WatchPeersResponse)
    assert {(each.run, each.node, each.state) for each in second.peers} == {
        (alpha.run, ALPHA, pb.PEER_STATE_ACTIVE),
        (beta.run, BETA, pb.PEER_STATE_ACTIVE),
    }
    network.sessions.dismiss(BETA)
    assert await reason_of(alpha.open(beta.run)) is Reason.PEER_LOST


async def test_subtasks_belong_to_the_job_and_watching_ends_with_the_run(network: Network) -> None:
    (central,) = await parties(network, ALPHA)
    watching = central.watch()
    first = await watching.read()
    assert isinstance(first, pb.WatchPeersResponse)
    assert [each.run for each in first.peers] == [central.run]
    beta, gamma = await parties(network, BETA, GAMMA, parent=central)
    seen: set[str] = set()
    while seen != {central.run, beta.run, gamma.run}:
        read = await watching.read()
        assert isinstance(read, pb.WatchPeersResponse)
        assert read.job == first.job
        seen = {each.run for each in read.peers if each.state == pb.PEER_STATE_ACTIVE}
    for asker, peer in ((beta, gamma), (gamma, central)):
        asking = asker.open(peer.run)
        offer = await peer.node.wanted()
        await peer.node.answer(offer)
        assert (await asking).job == first.job
    from_below = await gamma.watch().read()
    assert isinstance(from_below, pb.WatchPeersResponse)
    assert {each.run for each in from_below.peers} == seen
    await central.node.accept(central.assign)
    await central.node.acknowledged(await central.node.succeed(central.assign))
    while isinstance(await watching.read(), pb.WatchPeersResponse):
        pass
    assert await watching.code() is grpc.StatusCode.OK


async def test_a_server_that_stops_ends_who_watches(network: Network) -> None:
    (central,) = await parties(network, ALPHA)
    watching = central.watch()
    await watching.read()
    network.relaying.broker.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watching.read()
    assert error_from_rpc(caught.value).reason is Reason.SERVER_STOPPING


async def test_the_least_loaded_relay_that_is_there_is_chosen(tmp_path: Path) -> None:
    issuer = ticket_issuer(tmp_path, SystemClock())
    async with running_relay(tmp_path / "one", name="relay-1", issuer=issuer, tls=True) as one:
        async with running_relay(tmp_path / "two", name="relay-2", issuer=issuer) as two:
            entries = (
                RelayEntry(name="relay-1", address=one.relay.address, certificate=Path("one/tls.crt")),
                RelayEntry(name="relay-2", address=two.relay.address, tls=False),
                RelayEntry(name="relay-3", address="127.0.0.1:1", tls=False),
            )
            directory = RelayDirectory(entries, None, issuer, tmp_path)
            await directory.start()
            await reached(directory, {"relay-1", "relay-2"})
            chosen = [directory.choose() for _ in range(4)]
            assert sorted(each.name for each in chosen) == ["relay-1", "relay-1", "relay-2", "relay-2"]
            assert "BEGIN CERTIFICATE" in next(each.certificates for each in chosen if each.name == "relay-1")
            two.relay.pairs.draining = True
            two.relay.pairs._changed()
            await reached(directory, {"relay-1"})
        assert directory.choose().name == "relay-1"
    await reached(directory, set())
    with pytest.raises(Exception, match="no relay is available"):
        directory.choose()
    await directory.stop()


async def reached(directory: RelayDirectory, healthy: set[str]) -> None:
    async with asyncio.timeout(20):
        while set(directory.healthy) != healthy:
            directory.changed.clear()
            await directory.changed.wait()


def test_the_configuration_names_relays() -> None:
    config = ServerConfig.model_validate({"relays": [{"name": "relay-1", "address": "relay.example:7700"}]})
    assert config.relays[0].tls
    assert config.embedded_relay
