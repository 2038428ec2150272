"""Relays: how fast bytes pass, how long a round trip takes, and what the server's other callers feel of it."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import psutil

from scripts.benchlib.figures import Figure, at_least, at_most, mebibytes, milliseconds, paired_ratio, percentile
from scripts.benchlib.relay_end import End, result, start
from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.common import pki
from vantage.common.clock import SystemClock
from vantage.common.rpc import bearer
from vantage.server.relay.directory import EMBEDDED
from vantage.server.relay.limits import RelayLimits
from vantage.server.relay.program import RelayConfig, initialize
from vantage.server.relay.tickets import Side, TicketIssuer
from vantage.server.relaying import ticket_issuer
from vantage.testing.processes import Installation, Program
from vantage.testing.relay import METHOD

MIB = 1024 * 1024
_ROUNDS = 3
_BYTES = 96 * MIB


class Place:
    """A relay process that ends can meet at.

    Args:
        address: where it listens.
        issuer: signs tickets; None for the bare relay.
        name: for tickets.
        certificate: what to trust; empty without TLS.
    """

    def __init__(self, address: str, issuer: TicketIssuer | None, name: str = "relay-1", certificate: str = "") -> None:
        self.address = address
        self._issuer = issuer
        self._name = name
        self._certificate = certificate

    def ends(self, roles: tuple[str, str], size: int, count: int, mode: str = "raw", directory: str = "") -> list[End]:
        """Two ends of a new pair."""
        pair = str(uuid.uuid4())
        found = []
        for role, side in zip(roles, (Side.OPENS, Side.ANSWERS), strict=True):
            metadata = ("pair", pair)
            if self._issuer is not None:
                metadata = bearer(self._issuer.issue(self._name, pair, side, "tasks/bench", "node"))
            found.append(End(self.address, metadata, mode, role, size, count, directory, self._certificate))
        return found

    async def speed(self, size: int, total: int = _BYTES, mode: str = "raw", directory: str = "") -> float:
        """Bytes per second in one direction."""
        ends = [await start(each) for each in self.ends(("send", "receive"), size, total // size, mode, directory)]
        _, received = [await result(each) for each in ends]
        return received["bytes"] / received["seconds"]

    async def round_trip(self, mode: str = "raw", directory: str = "") -> float:
        """Median seconds for 64 bytes there and back."""
        ends = [await start(each) for each in self.ends(("ping", "pong"), 64, 600, mode, directory)]
        pinged, _ = [await result(each) for each in ends]
        return pinged["seconds"]


@asynccontextmanager
async def _bare(directory: Path) -> AsyncIterator[Place]:
    program = Program(["-m", "scripts.benchlib.bare_relay"], directory / "bare.log")
    address = await program.start("ready: ")
    try:
        yield Place(address, None)
    finally:
        await program.stop(kill=True)


@asynccontextmanager
async def _own(directory: Path, issuer: TicketIssuer, name: str = "relay-1") -> AsyncIterator[tuple[Place, Program]]:
    home = directory / name
    initialize(home, RelayConfig(name=name, limits=RelayLimits(drain_seconds=0)), issuer.key_set(), ())
    arguments = ["-m", "vantage.server.relay", "start", "--data", str(home), "--insecure", "--listen", "127.0.0.1:0"]
    program = Program(arguments, directory / f"{name}.log")
    address = await program.start("ready: ")
    try:
        yield Place(address, issuer, name), program
    finally:
        await program.stop()


def _identities(directory: Path) -> None:
    """Certificates of two nodes."""
    authority = pki.CertificateAuthority.create(directory / "ca", "organizations/bench")
    for name in ("opens", "answers"):
        key = pki.create_key()
        pki.write_key(directory / f"{name}.key", key)
        (directory / f"{name}.pem").write_text(
            pki.to_pem(authority.issue(f"organizations/bench/nodes/{name}", key.public_key()))
        )


def _megabytes(rate: float) -> str:
    return f"{rate / 1e6:.0f} MB/s"


async def relay() -> list[Figure]:
    """Throughput and latency, without and with TLS from node to node, against a bare relay."""
    issuer = TicketIssuer(pki.create_key(), SystemClock())
    figures = []
    with tempfile.TemporaryDirectory(prefix="vantage-bench-") as name:
        directory = Path(name)
        _identities(directory)
        async with _bare(directory) as bare, _own(directory, issuer) as (own, _program):
            for label, size in (("64 KiB", 64 * 1024), ("1 MiB", MIB)):
                plain, sealed, ceiling = [], [], []
                for _ in range(_ROUNDS):
                    ceiling.append(await bare.speed(size))
                    plain.append(await own.speed(size))
                    sealed.append(await own.speed(size, mode="tls", directory=name))
                for what, values, goal in (("", plain, 0.8), (", TLS between nodes", sealed, 0.5)):
                    ratio = paired_ratio(values, ceiling)
                    figures.append(
                        Figure(
                            f"relay, {label} writes{what}",
                            _megabytes(statistics.median(values)),
                            _megabytes(statistics.median(ceiling)),
                            ratio,
                            at_least(goal, ratio, " x"),
                        )
                    )
            small = await own.speed(64, 64 * 60_000, mode="tls", directory=name)
            one_by_one = await bare.speed(64, 64 * 6_000)
            figures.append(
                Figure(
                    "relay, 64 B writes, TLS between nodes",
                    f"{small / 64:.0f} /s",
                    f"{one_by_one / 64:.0f} /s",
                    small / one_by_one,
                )
            )
            plain, sealed, ceiling = [], [], []
            for _ in range(_ROUNDS):
                ceiling.append(await bare.round_trip())
                plain.append(await own.round_trip())
                sealed.append(await own.round_trip("tls", name))
            for what, values in (("", plain), (", TLS between nodes", sealed)):
                ratio = paired_ratio(values, ceiling)
                median = statistics.median(values)
                figures.append(
                    Figure(
                        f"relay, 64 B round trip{what}",
                        milliseconds(median),
                        milliseconds(statistics.median(ceiling)),
                        ratio,
                        at_most(1.5, ratio, " x"),
                    )
                )
    return figures


async def relays_two() -> list[Figure]:
    """Two connections over one relay process and over two; and the memory of readers that stopped."""
    issuer = TicketIssuer(pki.create_key(), SystemClock())
    with tempfile.TemporaryDirectory(prefix="vantage-bench-") as name:
        directory = Path(name)
        async with _own(directory, issuer) as (one, program), _own(directory, issuer, "relay-2") as (two, _program):
            alone, together = [], []
            for _ in range(_ROUNDS):
                alone.append(sum(await asyncio.gather(one.speed(MIB), one.speed(MIB))))
                together.append(sum(await asyncio.gather(one.speed(MIB), two.speed(MIB))))
            ratio = paired_ratio(together, alone)
            per_pair = await _stopped_readers(one, program)
    return [
        Figure(
            "two relay processes, 1 MiB writes, two connections",
            _megabytes(statistics.median(together)),
            _megabytes(statistics.median(alone)),
            ratio,
            at_least(1.0, ratio, " x"),
        ),
        Figure(
            "relay memory per pair with a stopped reader", mebibytes(per_pair), goal=at_most(16, per_pair / MIB, " MiB")
        ),
    ]


async def _stopped_readers(place: Place, program: Program, pairs: int = 20) -> float:
    process = psutil.Process(program.pid)
    before = process.memory_info().rss
    async with contextlib.AsyncExitStack() as stack:
        writers = []
        for _ in range(pairs):
            calls: list[grpc.aio.StreamStreamCall[bytes, bytes]] = []
            for end in place.ends(("send", "receive"), MIB, 1):
                channel = grpc.aio.insecure_channel(end.address, options=[("grpc.use_local_subchannel_pool", 1)])
                stack.push_async_callback(channel.close)
                calls.append(channel.stream_stream(METHOD)(metadata=(end.metadata,)))
            for call in calls:
                await call.initial_metadata()
            writers.append(asyncio.create_task(_fill(calls[0])))
        await asyncio.wait(writers, timeout=5)
        after = process.memory_info().rss
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)
    return (after - before) / pairs


async def _fill(call: grpc.aio.StreamStreamCall[bytes, bytes]) -> None:
    data = bytes(MIB)
    while True:
        await call.write(data)


async def relay_neighbours() -> list[Figure]:
    """Unary calls to the server while its embedded relay, or one of its own, runs at full speed."""
    with tempfile.TemporaryDirectory(prefix="vantage-bench-") as name:
        directory = Path(name)
        async with Installation.running(directory, ()) as network:
            issuer = ticket_issuer(network.data, SystemClock())
            embedded = Place(network.address, issuer, EMBEDDED, str(network.certificate))
            idle = await _latencies(network)
            with_embedded = await _while_busy(network, embedded)
            async with _own(directory, issuer) as (own, _program):
                with_own = await _while_busy(network, own)
    ceiling = percentile(idle, 99)
    figures = [Figure("unary call p99, relays idle", milliseconds(ceiling))]
    for what, values in (("embedded relay", with_embedded), ("relay process", with_own)):
        p99 = percentile(values, 99)
        figures.append(
            Figure(f"unary call p99, {what} at full speed", milliseconds(p99), milliseconds(ceiling), p99 / ceiling)
        )
    return figures


async def _while_busy(network: Installation, place: Place) -> list[float]:
    ends = [await start(each) for each in place.ends(("send", "receive"), MIB, 3_000)]
    await asyncio.sleep(1.5)  # until the ends have started and are at full speed
    try:
        return await _latencies(network)
    finally:
        for end in ends:
            with contextlib.suppress(ProcessLookupError):
                end.kill()
            await end.communicate()


async def _latencies(network: Installation) -> list[float]:
    found = []
    async with network.channel() as channel:
        stub = auth_service_pb2_grpc.AuthServiceStub(channel)
        for _ in range(600):
            began = time.perf_counter()
            await stub.GetServerInfo(auth_service_pb2.GetServerInfoRequest())
            found.append(time.perf_counter() - began)
    return found[100:]
