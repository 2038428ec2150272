"""The small task, against the ceiling: an algorithm that costs nothing, so that what is measured is the way to it."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from scripts.benchlib.driver import Driver, question
from scripts.benchlib.figures import Figure, Goal, at_least, at_most, milliseconds, paired_ratio, percentile
from vantage.common.rpc import ServerTrust, open_channel
from vantage.server.certificate import CERTIFICATE_FILE
from vantage.testing.processes import Installation, Program
from vantage.testing.station import COLLABORATION, IMAGE

IN_FLIGHT = 64
_ROUNDS = 7
_TASKS = 60
"""Of a round of latencies."""
_BURST = 512
"""Tasks of a round of throughput by RunTask; RunTasks, which is faster, gets twice as many."""
_WARM_UP = 200


@dataclass(frozen=True)
class Pair:
    """The real system and the ceiling, both running, each asked over a connection of its own."""

    real: Driver
    ceiling: Driver

    async def warm_up(self) -> None:
        """Let both import, compile, connect and fill their caches."""
        for each in (self.ceiling, self.real):
            await each.rate(_WARM_UP, IN_FLIGHT)
            await each.stream_rate(_WARM_UP, IN_FLIGHT)
            await each.latencies(_TASKS)


@asynccontextmanager
async def both(*, tls: bool) -> AsyncIterator[Pair]:
    """Start both, as separate processes."""
    spec = question(IMAGE, COLLABORATION, "organizations/clara", "echo", b'{"value":1}')
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vantage-bench-")))
        for name in ("real", "ceiling"):
            (directory / name).mkdir()
        network = await stack.enter_async_context(
            Installation.running(directory / "real", tls=tls, settings={"slots": 2 * IN_FLIGHT})
        )
        real = Driver(await stack.enter_async_context(network.channel()), network.metadata, spec)

        home, module = directory / "ceiling", ["-m", "scripts.benchlib.ceiling"]
        server = Program([*module, "server", str(home), *(["--tls"] if tls else [])], home / "server.log")
        address = await server.start("ready: ")
        stack.push_async_callback(server.stop)
        certificate = home / CERTIFICATE_FILE
        node = Program(
            [*module, "node", address, *(["--certificate", str(certificate)] if tls else [])], home / "node.log"
        )
        await node.start("ready:")
        stack.push_async_callback(node.stop)
        trust = ServerTrust.from_pem(certificate.read_bytes()) if tls else None
        channel = open_channel(address, trust, options=[("grpc.use_local_subchannel_pool", 1)])
        ceiling = Driver(await stack.enter_async_context(channel), (), spec)

        pair = Pair(real, ceiling)
        await pair.warm_up()
        yield pair


async def _latency(*, tls: bool) -> list[Figure]:
    ours, theirs = [], []
    async with both(tls=tls) as pair:
        for _ in range(_ROUNDS):
            theirs.append(await pair.ceiling.latencies(_TASKS))
            ours.append(await pair.real.latencies(_TASKS))
    p50 = paired_ratio([statistics.median(each) for each in ours], [statistics.median(each) for each in theirs])
    real, ceiling = [list(chain.from_iterable(each)) for each in (ours, theirs)]
    how = "TLS" if tls else "plaintext"
    high = percentile(real, 99) / percentile(ceiling, 99)
    return [
        Figure(
            f"small task, {how}, p50",
            milliseconds(statistics.median(real)),
            milliseconds(statistics.median(ceiling)),
            p50,
            at_most(3, p50, " x"),
        ),
        Figure(
            f"small task, {how}, p99", milliseconds(percentile(real, 99)), milliseconds(percentile(ceiling, 99)), high
        ),
    ]


async def latency() -> list[Figure]:
    """Small task without TLS: p50 and p99."""
    return await _latency(tls=False)


async def latency_tls() -> list[Figure]:
    """Small task with TLS: p50 and p99."""
    return await _latency(tls=True)


async def throughput() -> list[Figure]:
    """Small tasks per second, 64 in flight, by RunTask and by RunTasks."""
    rounds: list[tuple[float, float, float, float]] = []
    async with both(tls=False) as pair:
        for _ in range(_ROUNDS):
            rounds.append(
                (
                    await pair.ceiling.rate(_BURST, IN_FLIGHT),
                    await pair.real.rate(_BURST, IN_FLIGHT),
                    await pair.ceiling.stream_rate(2 * _BURST, IN_FLIGHT),
                    await pair.real.stream_rate(2 * _BURST, IN_FLIGHT),
                )
            )
    unary_ceiling, unary, stream_ceiling, stream = zip(*rounds, strict=True)
    return [
        _rate("RunTask", unary, unary_ceiling),
        _rate("RunTasks", stream, stream_ceiling),
    ]


def _rate(name: str, ours: tuple[float, ...], theirs: tuple[float, ...]) -> Figure:
    ratio = paired_ratio(ours, theirs)
    goal: Goal = at_least(1 / 3, ratio, " x")
    value, ceiling = statistics.median(ours), statistics.median(theirs)
    return Figure(f"tasks at {IN_FLIGHT} in flight, {name}", f"{value:.0f}/s", f"{ceiling:.0f}/s", ratio, goal)
