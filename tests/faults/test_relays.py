"""Relays and nodes that die, lie or are slow, under connections that must go on, or end with a word."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.node.tunnels.test_peers import connected, peer, read_exactly, reason_of
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError, error
from vantage.node.door import ByteStream
from vantage.node.tunnels import link, tunnels
from vantage.node.tunnels.keepers import KeeperSettings
from vantage.server.config import ServerConfig
from vantage.server.relay.directory import RelayEntry
from vantage.server.relay.limits import RelayLimits
from vantage.server.relay.pairs import Pairs
from vantage.server.relay.program import RelayConfig, initialize
from vantage.server.relaying import ticket_issuer
from vantage.testing.peer_network import PeerNetwork
from vantage.testing.processes import Program
from vantage.testing.proxy import Proxy
from vantage.testing.relay import running_relay

MIB = 1024 * 1024


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes give up a lost connection after two seconds instead of a minute."""
    monkeypatch.setattr(tunnels, "KeeperSettings", lambda: KeeperSettings(resume_seconds=2.0))


class RelayProcess:
    """A relay as an operator runs it, at an address that stays."""

    def __init__(self, directory: Path, name: str, keys: str, log: Path) -> None:
        initialize(directory, RelayConfig(name=name, limits=RelayLimits(drain_seconds=1)), keys, ())
        self._arguments = ["-m", "vantage.server.relay", "start", "--data", str(directory), "--insecure", "--listen"]
        self._log = log
        self.name = name
        self.address = "127.0.0.1:0"
        self.program = Program([*self._arguments, self.address], log)

    async def start(self) -> None:
        self.program = Program([*self._arguments, self.address], self._log)
        self.address = await self.program.start("ready: ")

    async def kill(self) -> None:
        await self.program.stop(kill=True)

    @property
    def entry(self) -> RelayEntry:
        return RelayEntry(name=self.name, address=self.address, tls=False)


@asynccontextmanager
async def with_relay_processes(directory: Path, number: int) -> AsyncIterator[tuple[PeerNetwork, list[RelayProcess]]]:
    """Two nodes whose server has stand-alone relays alone."""
    (directory / "server").mkdir()
    keys = ticket_issuer(directory / "server", SystemClock()).key_set()
    async with AsyncExitStack() as stack:
        relays = []
        for index in range(number):
            name = f"relay-{index}"
            relay = RelayProcess(directory / name, name, keys, directory / f"{name}.log")
            await relay.start()
            stack.push_async_callback(relay.kill)
            relays.append(relay)
        config = ServerConfig(
            stop_grace_seconds=1, trial=True, embedded_relay=False, relays=tuple(each.entry for each in relays)
        )
        yield (
            await stack.enter_async_context(PeerNetwork.running(directory, ["clara", "hilda"], config=config)),
            relays,
        )


@asynccontextmanager
async def through_proxy(directory: Path) -> AsyncIterator[tuple[PeerNetwork, Proxy]]:
    """Two nodes whose way to the server a test cuts."""
    async with AsyncExitStack() as stack:
        proxies = []

        async def way(address: str) -> str:
            proxies.append(await stack.enter_async_context(Proxy.to(address)))
            return proxies[0].address

        running = PeerNetwork.running(directory, ["clara", "hilda"], tls=False, way=way)
        network = await stack.enter_async_context(running)
        yield network, proxies[0]


async def transfer(mine: ByteStream, theirs: ByteStream, size: int, half_way: asyncio.Event) -> None:
    """Send bytes and check that all arrive as they were sent; says when half of them have."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    block = os.urandom(MIB)

    async def send() -> None:
        for number in range(size // MIB):
            data = number.to_bytes(8, "big") + block[8:]
            sent.update(data)
            await mine.write(data)
        await mine.finish()

    sending = asyncio.create_task(send())
    count = 0
    while data := await theirs.read():
        received.update(data)
        count += len(data)
        if count > size // 2:
            half_way.set()
    await sending
    assert (count, received.digest()) == (size, sent.digest())


async def test_a_transfer_goes_on_when_its_relay_is_killed(tmp_path: Path) -> None:
    async with with_relay_processes(tmp_path, 2) as (network, relays):
        runs = await network.ask("clara", "hilda")
        async with connected(runs["clara"], runs["hilda"], "hilda") as (mine, theirs):
            half_way = asyncio.Event()
            transferring = asyncio.create_task(transfer(mine, theirs, 64 * MIB, half_way))
            await half_way.wait()
            # Only one of them carries it; killing both in turn hits it for certain.
            await relays[0].kill()
            await relays[0].start()
            await relays[1].kill()
            await relays[1].start()
            async with asyncio.timeout(60):
                await transferring


@pytest.mark.parametrize("last", ["clara", "hilda"])
async def test_what_a_run_said_last_arrives_when_its_connection_is_lost_at_its_end(tmp_path: Path, last: str) -> None:
    async with through_proxy(tmp_path) as (network, proxy):
        runs = await network.ask("clara", "hilda")
        async with connected(runs["clara"], runs["hilda"], "hilda") as (mine, theirs):
            says, hears = (mine, theirs) if last == "clara" else (theirs, mine)
            proxy.black_out()
            await says.write(b"the last")
            await says.finish()
            network.end(last)
            proxy.cut()
            proxy.let_through()
            async with asyncio.timeout(40):
                assert await read_exactly(hears, 8) == b"the last"
                assert await hears.read() == b""


async def test_a_run_that_listens_learns_that_its_peer_has_ended_without_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def leave(self: link.Link, _seconds: float) -> None:
        self.fail(error(Reason.CANCELLED, "without a word"))

    monkeypatch.setattr(link.Link, "close", leave)
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        async with connected(runs["clara"], runs["hilda"], "hilda") as (_mine, theirs):
            network.end("clara")
            async with asyncio.timeout(40):  # of the minute that a connection is given
                assert await reason_of(theirs.read()) is Reason.PEER_ENDED


@pytest.mark.usefixtures("short_patience")
async def test_without_any_relay_both_sides_are_told_in_time(tmp_path: Path) -> None:
    async with with_relay_processes(tmp_path, 1) as (network, relays):
        runs = await network.ask("clara", "hilda")
        async with connected(runs["clara"], runs["hilda"], "hilda") as (mine, theirs):
            await mine.write(b"before")
            assert await read_exactly(theirs, 6) == b"before"
            await relays[0].kill()
            async with asyncio.timeout(30):
                assert await reason_of(mine.read()) is Reason.PEER_LOST
                assert await reason_of(theirs.read()) is Reason.PEER_LOST
        # And a new one is made when there is a relay again.
        await relays[0].start()
        async with connected(runs["clara"], runs["hilda"], "hilda", "again") as (mine, theirs):
            await theirs.write(b"after")
            assert await read_exactly(mine, 5) == b"after"


async def test_a_connection_that_breaks_again_and_again_loses_nothing(tmp_path: Path) -> None:
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        pairs = hostile(network)
        forward, random = pairs._forward, Random(5)

        async def flaky(*members: Any) -> AsyncGenerator[bytes, None]:
            left = random.randrange(MIB, 16 * MIB)
            async for message in forward(*members):
                left -= len(message)
                if left < 0:
                    raise error(Reason.RELAY_PEER_LOST, "broken by the test")
                yield message

        pairs._forward = flaky  # type: ignore[assignment, method-assign]  # the relay is under the test's control
        async with connected(runs["clara"], runs["hilda"], "hilda") as (mine, theirs):
            transferring = asyncio.create_task(transfer(mine, theirs, 48 * MIB, asyncio.Event()))
            async with asyncio.timeout(60):
                await transferring
            assert pairs.counters.total_pairs > 3


@pytest.mark.usefixtures("short_patience")
async def test_a_node_that_dies_is_noticed(tmp_path: Path) -> None:
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        async with connected(runs["clara"], runs["hilda"], "hilda") as (mine, _theirs):
            await network.kill("hilda")
            async with asyncio.timeout(30):
                assert await reason_of(mine.read()) in (Reason.PEER_LOST, Reason.PEER_ENDED)


def hostile(network: PeerNetwork) -> Pairs:
    pairs = network.server.server.relaying.pairs
    assert pairs is not None
    return pairs


@pytest.mark.usefixtures("short_patience")
async def test_a_relay_sees_nothing_and_changes_nothing_unnoticed(tmp_path: Path) -> None:
    secret = b"the sum of hospital clara is 4711"
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        pairs, seen = hostile(network), bytearray()
        forward = pairs._forward
        changing = False

        async def spy(*members: Any) -> AsyncGenerator[bytes, None]:
            async for message in forward(*members):
                seen.extend(message)
                yield (message[:-1] + bytes([message[-1] ^ 1])) if changing else message

        pairs._forward = spy  # type: ignore[assignment, method-assign]  # the relay is under the test's control
        async with connected(runs["clara"], runs["hilda"], "hilda", "secret-label") as (mine, theirs):
            await mine.write(secret * 1_000)
            assert await read_exactly(theirs, len(secret) * 1_000) == secret * 1_000
            assert len(seen) > len(secret) * 1_000
            for hidden in (secret, secret[:12], b"secret-label", b"clara", b"organizations"):
                assert hidden not in seen
            changing = True
            await mine.write(secret)
            async with asyncio.timeout(20):
                assert await reason_of(theirs.read()) in (Reason.RELAY_TAMPERED, Reason.PEER_LOST)
                assert await reason_of(mine.read()) in (Reason.RELAY_TAMPERED, Reason.PEER_LOST)


@pytest.mark.usefixtures("short_patience")
async def test_a_relay_that_pairs_wrongly_is_found_out(tmp_path: Path) -> None:
    async with PeerNetwork.running(tmp_path, ["clara", "hilda", "beatrix"]) as network:
        runs = await network.ask("clara", "hilda", "beatrix")
        pairs = hostile(network)
        there: list[Any] = []
        complete = asyncio.Event()

        async def cross(member: Any) -> Any:
            there.append(member)
            pairs._enter(member.ticket.job)
            if len(there) == 4:
                complete.set()
            await complete.wait()
            # Whoever opens is given the side that answers somebody else.
            return next(
                each
                for each in there
                if each.ticket.side is not member.ticket.side and each.ticket.pair != member.ticket.pair
            )

        pairs._meet = cross  # type: ignore[method-assign]  # the relay is under the test's control
        outcomes = await asyncio.gather(
            runs["clara"].dial(peer("hilda")), runs["clara"].dial(peer("beatrix")), return_exceptions=True
        )
        assert [isinstance(each, VantageError) and each.reason for each in outcomes] == [
            Reason.CERTIFICATE_UNTRUSTED,
            Reason.CERTIFICATE_UNTRUSTED,
        ]


async def test_a_relay_that_swallows_everything_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(link, "SILENCE_SECONDS", 0.5)
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"]) as network:
        runs = await network.ask("clara", "hilda")
        pairs = hostile(network)
        forward, swallowing = pairs._forward, asyncio.Event()

        async def black_hole(*members: Any) -> AsyncGenerator[bytes, None]:
            async for message in forward(*members):
                if not swallowing.is_set():
                    yield message

        pairs._forward = black_hole  # type: ignore[assignment, method-assign]  # as above
        async with connected(runs["clara"], runs["hilda"], "hilda") as (mine, theirs):
            await mine.write(b"first")
            assert await read_exactly(theirs, 5) == b"first"
            swallowing.set()
            await mine.write(b"second")
            pairs._forward = forward  # type: ignore[method-assign]  # the next connection is honest
            async with asyncio.timeout(20):
                assert await read_exactly(theirs, 6) == b"second"


class Skewed(SystemClock):
    """A clock that is off."""

    def __init__(self, by: timedelta) -> None:
        self._by = by

    def now(self) -> datetime:
        return datetime.now(UTC) + self._by


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_a_relay_whose_clock_is_ten_minutes_off_works(tmp_path: Path, minutes: int) -> None:
    (tmp_path / "server").mkdir()
    issuer = ticket_issuer(tmp_path / "server", SystemClock())
    clock = Skewed(timedelta(minutes=minutes))
    async with running_relay(tmp_path / "relay", issuer=issuer, clock=clock, tls=True) as relay:
        entry = RelayEntry(name="relay-1", address=relay.relay.address, certificate=tmp_path / "relay" / "tls.crt")
        config = ServerConfig(stop_grace_seconds=1, trial=True, embedded_relay=False, relays=(entry,))
        async with PeerNetwork.running(tmp_path, ["clara", "hilda"], config=config) as network:
            runs = await network.ask("clara", "hilda")
            async with connected(runs["clara"], runs["hilda"], "hilda") as (mine, theirs):
                await mine.write(b"in time")
                assert await read_exactly(theirs, 7) == b"in time"
        assert relay.relay.pairs.counters.total_pairs == 1


async def test_a_slow_link_slows_the_writer_and_fills_no_memory(tmp_path: Path) -> None:
    limits = RelayLimits(rate_per_pair=10_000_000, drain_seconds=0)
    config = ServerConfig(stop_grace_seconds=1, trial=True, relay_limits=limits)
    async with PeerNetwork.running(tmp_path, ["clara", "hilda"], config=config) as network:
        runs = await network.ask("clara", "hilda")
        async with connected(runs["clara"], runs["hilda"], "hilda") as (mine, theirs):
            loop, process = asyncio.get_running_loop(), psutil.Process()
            before, began = process.memory_info().rss, loop.time()
            # A gigabyte takes 107 s and the same memory.
            await transfer(mine, theirs, int(os.environ.get("VANTAGE_SLOW_LINK_MIB", "48")) * MIB, asyncio.Event())
            assert loop.time() - began > 3
            assert process.memory_info().rss - before < 64 * MIB
