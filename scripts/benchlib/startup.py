"""How long programs take to be there, and what they need when they have nothing to do."""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import psutil

from scripts.benchlib.figures import Figure, at_most, mebibytes, milliseconds
from vantage.testing.processes import Installation

_TIMES = 5
_MIB = 1024**2


async def help_page() -> list[Figure]:
    """The command line's first answer."""
    took = []
    for number in range(_TIMES + 1):
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "vantage", "--help", stdout=asyncio.subprocess.DEVNULL
        )
        if await process.wait():
            raise RuntimeError("vantage --help failed")
        if number:  # the first one compiles
            took.append(time.perf_counter() - began)
    seconds = statistics.median(took)
    return [Figure("vantage --help", milliseconds(seconds), goal=at_most(0.3, seconds, " s"))]


async def start() -> list[Figure]:
    """Server and node from their start to being ready, and their memory when idle."""
    ready: list[float] = []
    connected: list[float] = []
    with tempfile.TemporaryDirectory(prefix="vantage-bench-") as directory:
        async with Installation.running(Path(directory)) as network:
            server, node = network.server, network.nodes["clara"]
            memory = [_memory(each.pid) for each in (server, node)]
            # The node first: the server will have another port after a restart.
            for program, took in ((node, connected), (server, ready)):
                for _ in range(_TIMES):
                    await program.stop()
                    began = time.perf_counter()
                    await program.start("ready: ")
                    took.append(time.perf_counter() - began)
    (server_pss, server_rss), (node_pss, node_rss) = memory
    return [
        Figure("server ready", milliseconds(statistics.median(ready)), goal=at_most(2, statistics.median(ready), " s")),
        Figure(
            "node connected",
            milliseconds(statistics.median(connected)),
            goal=at_most(1, statistics.median(connected), " s"),
        ),
        Figure(
            "server, idle, PSS (RSS)",
            f"{mebibytes(server_pss)} ({mebibytes(server_rss)})",
            goal=at_most(120, server_pss / _MIB, " MiB"),
        ),
        Figure(
            "node, idle, PSS (RSS)",
            f"{mebibytes(node_pss)} ({mebibytes(node_rss)})",
            goal=at_most(80, node_pss / _MIB, " MiB"),
        ),
    ]


def _memory(pid: int) -> tuple[int, int]:
    found = psutil.Process(pid).memory_full_info()
    return found.pss, found.rss
