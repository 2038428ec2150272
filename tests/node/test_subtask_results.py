"""Answers to subtasks that fit no message: a real server, real nodes, and the SDK in processes of its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.node import averaging
from vantage.client import AsyncClient
from vantage.testing.peer_network import PeerNetwork
from vantage.testing.processes import RESEARCHER
from vantage.testing.server import PASSWORD
from vantage.testing.station import COLLABORATION, IMAGE, REPOSITORY

PATIENCE = 60.0
OTHERS = ["hilda", "beatrix"]
MAX_GROWTH = 150 * averaging.BLOCK
"""Server, client and three nodes are in this process, two of which seal and upload at once; no algorithm is. That takes
80 to 95 MiB, and twice 60 MiB more if the node that asks has an answer of 60 MiB in memory, sealed and opened."""
SETTINGS: dict[str, Any] = {
    "policy": {"allow_unsigned": True},
    "trust": {"first_use": True},
    "slots": 10,
    "process": {"modules": {REPOSITORY: "tests.node.averaging"}},
}


@pytest_asyncio.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PeerNetwork]:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]), prepend=os.pathsep)
    settings = dict.fromkeys(("clara", *OTHERS), SETTINGS)
    async with PeerNetwork.running(tmp_path / "network", tuple(settings), settings=settings) as running:
        yield running


async def asked(client: AsyncClient, **arguments: Any) -> Any:
    handle = await client.tasks.run(
        image=IMAGE,
        function="ask",
        arguments={"organizations": OTHERS, **arguments},
        collaboration=COLLABORATION,
        organizations=["clara"],
    )
    return await handle.result(PATIENCE)


@pytest.mark.slow
async def test_answers_of_every_kind_reach_the_function_that_asked(network: PeerNetwork, tmp_path: Path) -> None:
    expected = {
        "text": ["application/json", 4 * averaging.BLOCK],
        "table": ["application/vnd.apache.arrow.stream", averaging.BLOCK // 2, averaging.BLOCK // 2 - 1],
        "model": ["application/octet-stream", 4 * averaging.BLOCK],
    }
    everything = {name: dict.fromkeys(OTHERS, each) for name, each in expected.items()}
    async with network.signing_client(tmp_path) as client:
        assert await asked(client, names=list(expected), megabytes=4) == everything
    for path in (tmp_path / "network" / "server").rglob("*"):
        if path.is_file():
            assert averaging.MARK not in path.read_bytes(), path
    address, mark = network.server.address, network.server.fingerprint
    async with AsyncClient.connect(address, fingerprint=mark) as plain:
        await plain.auth.login(RESEARCHER, PASSWORD)
        assert await asked(plain, names=["model"], megabytes=4) == {"model": everything["model"]}


def peak() -> int:
    """The most memory that this process has had, in bytes, since ``forget_peak``."""
    line = next(each for each in Path("/proc/self/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.mark.slow
async def test_large_models_reach_the_function_that_asked_in_bounded_memory(
    network: PeerNetwork, tmp_path: Path
) -> None:
    megabytes = 60
    digest = await asyncio.to_thread(averaging.digest_of, averaging.blocks(megabytes))
    async with network.signing_client(tmp_path) as client:
        forget_peak()
        before = peak()
        answer = await asked(client, names=["model"], megabytes=megabytes, files=True)
        grown = peak() - before
    assert answer == {"model": {each: [f"{each}.bin", digest] for each in OTHERS}}
    assert grown < MAX_GROWTH, grown
