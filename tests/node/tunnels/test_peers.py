"""Runs talk: server, relays and nodes on real sockets; the test stands where the algorithm would."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.common import pki
from vantage.common.errors import Reason, VantageError, error
from vantage.common.orders import VerifiedOrder
from vantage.common.statements import OrderTarget
from vantage.node.door import ByteStream, RunCallbacks
from vantage.node.orders import GivenOrder
from vantage.node.tunnels import tunnels
from vantage.node.tunnels.link import Parties
from vantage.node.tunnels.peers import RunPeers
from vantage.node.tunnels.wire import Wire
from vantage.testing.peer_network import ALLOWED, PeerNetwork
from vantage.testing.signers import DIGEST, order

MIB = 1024 * 1024


def peer(name: str, label: str = "ring", seconds: float = 60) -> pb.DialTarget:
    target = pb.DialTarget(peer=pb.PeerTarget(peer=name, label=label))
    target.peer.timeout.FromMilliseconds(int(seconds * 1000))
    return target


async def take(run: RunCallbacks, listening: object) -> ByteStream:
    """The next connection of a listener."""
    assert hasattr(listening, "__anext__")
    announced: pb.ListenResponse = await anext(listening)
    return await run.dial(pb.DialTarget(incoming=pb.IncomingTarget(connection=announced.connection)))


@asynccontextmanager
async def connected(
    one: RunCallbacks, other: RunCallbacks, name: str, label: str = "ring"
) -> AsyncIterator[tuple[ByteStream, ByteStream]]:
    async with aclosing(other.listen(label)) as listening:
        assert (await anext(listening)).connection == ""
        stream = await one.dial(peer(name, label))
        yield stream, await take(other, listening)


async def read_exactly(stream: ByteStream, size: int) -> bytes:
    parts, left = [], size
    while left:
        data = await stream.read()
        assert data, "ended too early"
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


async def reason_of(awaitable: object) -> Reason:
    assert asyncio.iscoroutine(awaitable)
    with pytest.raises(VantageError) as caught:
        await awaitable
    return caught.value.reason


async def test_runs_of_a_task_talk_and_end(tmp_path: Path) -> None:
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        clara, hilda = runs["clara"], runs["hilda"]
        async with connected(clara, hilda, "hilda") as (mine, theirs):
            content = os.urandom(8 * MIB)

            async def send() -> None:
                await mine.write(content)
                await mine.finish()

            sending = asyncio.create_task(send())
            assert await read_exactly(theirs, len(content)) == content
            assert await theirs.read() == b""
            await sending
            await theirs.write(b"thanks")
            await theirs.finish()
            assert await read_exactly(mine, 6) == b"thanks"
            assert await mine.read() == b""
            # The other way round, by the node's and by the run's name, several at once over one link.
            peers = await anext(aiter(clara.peers()))
            by_name = {each.organization: each for each in peers.peers}
            assert by_name["organizations/clara"].self
            assert by_name["organizations/hilda"].same_task
            for name in (by_name["organizations/clara"].node, by_name["organizations/clara"].run):
                async with connected(hilda, clara, name, "back") as (here, there):
                    await here.write(b"x")
                    assert await there.read() == b"x"
            left, right = await asyncio.gather(clara.dial(peer("hilda")), clara.dial(peer("hilda")))
            left.close()
            right.close()
            late = await clara.dial(peer("hilda"))
        # A listener that ends breaks what nobody took.
        assert await reason_of(late.read()) is Reason.PEER_LOST
        assert network.server.server.relaying.pairs is not None
        assert network.server.server.relaying.pairs.counters.total_pairs == 2

        async with connected(clara, hilda, "hilda") as (mine, theirs):
            await theirs.write(b"the last")
            network.end("hilda")
            assert await read_exactly(mine, 8) == b"the last"
            assert await reason_of(mine.read()) is Reason.PEER_ENDED
        assert await reason_of(clara.dial(peer("hilda"))) is Reason.PEER_ENDED


async def test_offers_that_lead_to_nothing_take_no_room(tmp_path: Path) -> None:
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        peers = runs["hilda"]._outside.inner  # type: ignore[attr-defined]  # what the server's offers reach
        assert isinstance(peers, RunPeers)

        async def refuse(_: Parties) -> Wire:
            raise error(Reason.CERTIFICATE_UNTRUSTED, "somebody else answers")

        offer = node_pb.OpenRelay(job="tasks/1", peer_run="tasks/1/runs/1", peer_node="organizations/clara/nodes/x")
        for number in range(3):
            offer.pair = f"pair-{number}"
            assert await reason_of(peers.answer(offer, refuse)) is Reason.CERTIFICATE_UNTRUSTED
        assert not peers._incoming
        # Links that have ended are let go with the next offer.
        async with connected(runs["clara"], runs["hilda"], "hilda"):
            ((pair, keeper),) = peers._incoming.items()
            keeper.link.fail(error(Reason.PEER_LOST, "by the test"))
            assert await reason_of(peers.answer(offer, refuse)) is Reason.CERTIFICATE_UNTRUSTED
            assert pair not in peers._incoming


async def test_a_run_that_is_ending_says_no_to_new_connections(tmp_path: Path) -> None:
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        hilda = runs["hilda"]._outside.inner  # type: ignore[attr-defined]  # see above
        assert isinstance(hilda, RunPeers)
        hilda._closing = True  # as long as what it has said may still have to arrive
        assert await reason_of(runs["clara"].dial(peer("hilda", seconds=10))) is Reason.PEER_ENDED


async def test_an_offer_that_gives_up_takes_nobody_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with PeerNetwork.running(tmp_path, ["hilda"]) as network:
        known = (await network.ask("hilda"))["hilda"]._outside.inner  # type: ignore[attr-defined]  # see above
        assert isinstance(known, RunPeers)
        here = known._connector
        assert isinstance(here, tunnels.Tunnels)
        lease = node_pb.Lease(run=known.lease.run, lease_id="not-yet-begun", attempt=2)
        monkeypatch.setattr(tunnels, "BEGIN_SECONDS", 0.05)
        impatient = asyncio.create_task(here._find(lease.lease_id))
        await asyncio.sleep(0)  # both wait before either gives up
        monkeypatch.setattr(tunnels, "BEGIN_SECONDS", 20.0)
        patient = asyncio.create_task(here._find(lease.lease_id))
        with pytest.raises(VantageError) as caught:
            await impatient
        assert caught.value.reason is Reason.PEER_NOT_READY
        async with here.run(lease, known.context) as begun:
            assert await patient is begun
        assert not here._begun


async def test_what_is_not_there_is_waited_for_and_said(tmp_path: Path) -> None:
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        clara, hilda = runs["clara"], runs["hilda"]
        assert await reason_of(clara.dial(peer("hilda", seconds=1))) is Reason.PEER_NOT_READY
        assert await reason_of(clara.dial(peer("beatrix"))) is Reason.NOT_FOUND
        assert await reason_of(clara.dial(peer("hilda", "Not A Label"))) is Reason.INVALID_ARGUMENT
        unknown = pb.DialTarget(incoming=pb.IncomingTarget(connection="none"))
        assert await reason_of(clara.dial(unknown)) is Reason.NOT_FOUND
        # Connecting before the other listens is the usual race of programs that start together.
        dialling = asyncio.create_task(clara.dial(peer("hilda", "later")))
        async with aclosing(hilda.listen("later")) as listening:
            await anext(listening)
            stream = await take(hilda, listening)
            await stream.write(b"hello")
            assert await (await dialling).read() == b"hello"
            second = hilda.listen("later")
            assert await reason_of(anext(second)) is Reason.IN_USE
        # A run of another job is no peer.
        others = await network.ask("hilda", key="other-")
        peers = await anext(aiter(others["hilda"].peers()))
        assert len(peers.peers) == 1
        assert await reason_of(others["hilda"].dial(peer("clara"))) is Reason.NOT_FOUND


async def test_each_node_decides(tmp_path: Path) -> None:
    settings = {
        "clara": ALLOWED,
        "hilda": {"policy": {"peers": ["beatrix"], "pin_peer_authorities": True}},
        "beatrix": {},
        "dennis": {"policy": {"peers": True}},
    }
    async with PeerNetwork.running(tmp_path, list(settings), settings=settings) as network:
        runs = await network.ask(*settings)
        # The other side's policy, one's own, no peers at all, nobody who vouches for the other.
        assert await reason_of(runs["clara"].dial(peer("hilda"))) is Reason.PEERS_REFUSED
        assert await reason_of(runs["hilda"].dial(peer("clara"))) is Reason.PEERS_REFUSED
        assert await reason_of(runs["hilda"].dial(peer("beatrix"))) is Reason.PEERS_REFUSED
        assert await reason_of(runs["beatrix"].dial(peer("clara"))) is Reason.PEERS_REFUSED
        assert await reason_of(anext(runs["beatrix"].listen("ring"))) is Reason.PEERS_REFUSED
        assert await reason_of(runs["dennis"].dial(peer("clara"))) is Reason.CERTIFICATE_UNTRUSTED
        assert await reason_of(runs["clara"].dial(peer("dennis"))) is Reason.CERTIFICATE_UNTRUSTED


def signed_for(network_runs: Iterable[RunCallbacks], *organizations: str) -> None:
    """As if all these runs were those of a signed order that asks these organizations."""
    targets = tuple(OrderTarget(organization=f"organizations/{each}") for each in organizations)
    made = order("organizations/dora/users/rosa", targets=targets, delegation=None)
    members = frozenset(each.organization for each in targets)
    verified = VerifiedOrder(
        made, DIGEST, "organizations/dora", DIGEST, made.requester, made.expires, (DIGEST,), 0, members
    )
    for run in network_runs:
        peers = run._outside.inner  # type: ignore[attr-defined]  # what the server's offers reach
        assert isinstance(peers, RunPeers)
        peers.context = replace(peers.context, order=GivenOrder(verified, ()))


async def test_who_was_asked_nothing_is_no_peer_whatever_the_server_says(tmp_path: Path) -> None:
    """A server in league with a member calls a run of that one a run of this job."""
    async with PeerNetwork.running(tmp_path, ["clara", "hilda", "mallory"]) as network:
        runs = await network.ask("clara", "hilda", "mallory")
        honest = [runs[each] for each in ("clara", "hilda")]
        signed_for(runs.values(), "clara", "hilda", "mallory")
        async with connected(runs["mallory"], runs["clara"], "clara"):
            pass
        signed_for(honest, "clara", "hilda")
        assert await reason_of(runs["hilda"].dial(peer("mallory"))) is Reason.PEERS_REFUSED
        assert await reason_of(runs["mallory"].dial(peer("hilda"))) is Reason.PEERS_REFUSED
        async with connected(runs["hilda"], runs["clara"], "clara"):
            pass


async def test_a_server_that_names_another_authority_is_found_out(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text(pki.to_pem(pki.CertificateAuthority.create(tmp_path / "ca", "organizations/hilda").certificate))
    settings = {"clara": {"policy": {"peers": True, "peer_authorities": {"hilda": str(wrong)}}}, "hilda": ALLOWED}
    async with PeerNetwork.running(tmp_path / "network", list(settings), settings=settings) as network:
        runs = await network.ask(*settings)
        assert await reason_of(runs["clara"].dial(peer("hilda"))) is Reason.CERTIFICATE_UNTRUSTED
        assert await reason_of(runs["hilda"].dial(peer("clara"))) is Reason.CERTIFICATE_UNTRUSTED


async def test_a_hundred_channels_of_a_run_and_not_more_than_allowed(tmp_path: Path) -> None:
    settings = {"clara": {**ALLOWED, "limits": {"max_peer_channels": 100}}, "hilda": ALLOWED}
    async with PeerNetwork.running(tmp_path, list(settings), settings=settings) as network:
        runs = await network.ask(*settings)
        clara, hilda = runs["clara"], runs["hilda"]

        async def serve() -> None:
            async with aclosing(hilda.listen("ring")) as listening:
                await anext(listening)
                async with asyncio.TaskGroup() as group:
                    while True:
                        stream = await take(hilda, listening)
                        group.create_task(echo(stream))

        async def echo(stream: ByteStream) -> None:
            while data := await stream.read():
                await stream.write(data)
            await stream.finish()

        serving = asyncio.create_task(serve())
        streams = await asyncio.gather(*(clara.dial(peer("hilda")) for _ in range(100)))
        assert await reason_of(clara.dial(peer("hilda"))) is Reason.TOO_MANY_CHANNELS

        async def one(number: int, stream: ByteStream) -> None:
            content = bytes([number]) * 20_000
            await stream.write(content)
            assert await read_exactly(stream, len(content)) == content
            await stream.finish()
            assert await stream.read() == b""

        await asyncio.gather(*(one(number, stream) for number, stream in enumerate(streams)))
        (await clara.dial(peer("hilda"))).close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
