"""1 GiB up and down through client and server, against a bare stream in messages of the same size, over TLS both."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchlib.figures import Figure, at_least, at_most, mebibytes
from scripts.benchlib.payload_programs import peak_memory
from vantage.client import AsyncClient
from vantage.client.payloads import Payloads
from vantage.server.certificate import fingerprint
from vantage.testing.processes import PASSWORD, RESEARCHER, Installation, Program
from vantage.testing.proxy import Proxy

_GIB = 1024**3
_MIB = 1024**2
_ROUNDS = 3
_MEMORY = Path("/dev/shm")  # noqa: S108  # what is measured is the way of the bytes, not the disk at its end
_MODULE = ["-m", "scripts.benchlib.payload_programs"]


async def throughput() -> list[Figure]:
    """1 GiB up and down, as it is and sealed, and the memory that it takes."""
    with tempfile.TemporaryDirectory(prefix="vantage-bench-", dir=_place(8 * _GIB)) as name:
        directory = Path(name)
        source, target, home = directory / "source", directory / "target", directory / "ceiling"
        home.mkdir()
        await asyncio.to_thread(_fill, source, _GIB)
        bare = Program([*_MODULE, "serve", str(home)], home / "server.log")
        bare_address = await bare.start("ready: ")
        try:
            async with Installation.running(directory / "network") as network:
                data, pid = network.data, network.server.pid
                idle = peak_memory(pid)
                ours, theirs = [], []
                for _ in range(_ROUNDS):
                    theirs.append(await _run("ceiling", bare_address, str(home), str(_GIB)))
                    arguments = (network.address, str(data), RESEARCHER, PASSWORD, str(source), str(target))
                    ours.append(await _run("ours", *arguments))
                    shutil.rmtree(data / "payloads" / "payloads")
                    (data / "payloads" / "payloads").mkdir()
                server = peak_memory(pid) - idle
        finally:
            await bare.stop()
    client = max(each["peak"] - each["before"] for each in ours)
    figures = [_figure(way, seal, ours, theirs) for seal in ("", " sealed") for way in ("up", "down")]
    for who, grown in (("client", client), ("server", server)):
        figures.append(
            Figure(f"memory of the {who} above idle", mebibytes(grown), goal=at_most(150, grown / _MIB, " MiB"))
        )
    return figures


async def broken() -> list[Figure]:
    """An upload whose connection is lost in the middle: what is sent twice."""
    size = 256 * _MIB
    with tempfile.TemporaryDirectory(prefix="vantage-bench-", dir=_place(_GIB)) as name:
        source = Path(name) / "source"
        await asyncio.to_thread(_fill, source, size)
        async with (
            Installation.running(Path(name) / "network") as network,
            Proxy.to(network.address) as proxy,
            AsyncClient.connect(proxy.address, fingerprint=fingerprint(network.data)) as client,
        ):
            await client.auth.login(RESEARCHER, PASSWORD)
            sent, last, lost = 0, 0, False

            def transfer(_direction: str, done: int, _total: int) -> None:
                nonlocal sent, last, lost
                sent += max(0, done - last) if done > last else _MIB
                last = done
                if done > size // 2 and not lost:
                    lost = True
                    proxy.cut()

            await Payloads(client._caller, transfer).pack(source, "application/octet-stream")
    again = sent - size
    return [Figure("sent again after a loss at 128 MiB", mebibytes(again), goal=at_most(16, again / _MIB, " MiB"))]


def _figure(way: str, seal: str, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> Figure:
    ratio = statistics.median(b[way] / a[way + seal] for a, b in zip(ours, theirs, strict=True))
    speed = _GIB / 1e6 / statistics.median(each[way + seal] for each in ours)
    ceiling = _GIB / 1e6 / statistics.median(each[way] for each in theirs)
    goal = at_least(0.5 if seal else 0.7, ratio, " x")
    return Figure(f"1 GiB {way}{seal}", f"{speed:.0f} MB/s", f"{ceiling:.0f} MB/s", ratio, goal)


async def _run(*arguments: str) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(sys.executable, *_MODULE, *arguments, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{arguments[0]} failed")
    said: dict[str, Any] = json.loads(out)
    return said


def _place(needed: int) -> Path | None:
    """Memory when there is room for it, else wherever temporary files go."""
    return _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > needed else None


def _fill(path: Path, size: int) -> None:
    with path.open("wb") as file:
        for _ in range(size // _MIB):
            file.write(os.urandom(_MIB))
