"""What it costs that the node's journal is on the disk before anything is said."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from itertools import chain
from pathlib import Path

from scripts.benchlib.driver import Driver, question
from scripts.benchlib.figures import Figure, milliseconds, paired_ratio, percentile
from vantage.testing.processes import Installation, Program
from vantage.testing.station import COLLABORATION, IMAGE

_ROUNDS = 9
_TASKS = 60


def _fsync(path: Path) -> float:
    with path.open("wb") as file:
        file.write(bytes(4096))
        file.flush()
        began = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - began


async def fsync() -> list[Figure]:
    """A small task at two nodes of one server, of which one does not wait for its disk."""
    with tempfile.TemporaryDirectory(prefix="vantage-bench-") as name:
        directory = Path(name)
        async with (
            Installation.running(directory, ["clara", "hilda"], tls=False) as network,
            network.channel() as channel,
        ):
            await network.nodes["hilda"].stop()
            config = str(directory / "hilda" / "node.yaml")
            unsynced = Program(
                ["-m", "scripts.benchlib.unsynced_node", "start", "--config", config], directory / "unsynced.log"
            )
            await unsynced.start("ready: ")
            try:
                kept, bare = [
                    Driver(
                        channel,
                        network.metadata,
                        question(IMAGE, COLLABORATION, f"organizations/{each}", "echo", b'{"value":1}'),
                    )
                    for each in ("clara", "hilda")
                ]
                for each in (kept, bare):
                    await each.latencies(_TASKS)  # warms up
                ours, theirs = [], []
                for _ in range(_ROUNDS):
                    theirs.append(await bare.latencies(_TASKS))
                    ours.append(await kept.latencies(_TASKS))
            finally:
                await unsynced.stop()
        disk = statistics.median(_fsync(directory / "probe") for _ in range(50))
    figures = [Figure("an fsync of 4 KiB on this disk", milliseconds(disk))]
    for percent in (50, 99):
        ratio = paired_ratio(
            [percentile(each, percent) for each in ours], [percentile(each, percent) for each in theirs]
        )
        value, ceiling = (percentile(list(chain.from_iterable(each)), percent) for each in (ours, theirs))
        figures.append(
            Figure(
                f"small task with the journal's fsync, p{percent}", milliseconds(value), milliseconds(ceiling), ratio
            )
        )
    return figures
