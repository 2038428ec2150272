"""What it costs that a task is signed and sealed, from client to node and back."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from pathlib import Path

from scripts.benchlib.figures import Figure, milliseconds, paired_ratio
from vantage.client import AsyncClient
from vantage.client.codec import Identity
from vantage.client.keyring import KeyFiles
from vantage.common import pki
from vantage.common.trust import TrustStore
from vantage.testing.processes import HOME, PASSWORD, RESEARCHER, Installation
from vantage.testing.station import COLLABORATION, IMAGE

_ROUNDS = 7
_TASKS = 40


async def sealing() -> list[Figure]:
    """Small task by the client library, signed and sealed, against the same one without."""
    plain: list[list[float]] = []
    sealed: list[list[float]] = []
    async with _clients() as (bare, signing):
        for number in range(_ROUNDS + 1):
            without, with_both = await _latencies(bare), await _latencies(signing)
            if number:  # the first one warms up
                plain.append(without)
                sealed.append(with_both)
    ratio = paired_ratio([statistics.median(each) for each in sealed], [statistics.median(each) for each in plain])
    ours, theirs = [statistics.median(chain.from_iterable(each)) for each in (sealed, plain)]
    return [
        Figure("small task, signed and sealed, p50", milliseconds(ours), milliseconds(theirs), ratio),
        Figure("added by signing and sealing", milliseconds(ours - theirs)),
    ]


@asynccontextmanager
async def _clients() -> AsyncIterator[tuple[AsyncClient, AsyncClient]]:
    """Two clients of a network whose node takes signed tasks and others: one without keys, one with."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vantage-bench-")))
        (directory / "network").mkdir()
        network = await stack.enter_async_context(
            Installation.running(directory / "network", settings={"slots": 4, "trust": {"first_use": True}})
        )
        files = KeyFiles(directory / "keys")
        request = pki.load_request(files.create(f"{HOME}/users/{RESEARCHER}").read_bytes())
        certificate = network.authority.issue(request.name, request.public_key)
        files.install(pki.to_pem(certificate).encode())
        identity = Identity(files.open(), TrustStore(directory / "trust", first_use=True))
        clients = []
        for each in (None, identity):
            made = AsyncClient.connect(network.address, ca=network.certificate, identity=each)
            clients.append(await stack.enter_async_context(made))
            await clients[-1].auth.login(RESEARCHER, PASSWORD)
        yield clients[0], clients[1]


async def _latencies(client: AsyncClient) -> list[float]:
    took = []
    for number in range(_TASKS):
        began = time.perf_counter()
        task = await client.tasks.run(
            image=IMAGE,
            function="echo",
            arguments={"value": number},
            collaboration=COLLABORATION,
            organizations=["clara"],
        )
        if await task.result() != {"value": number}:
            raise RuntimeError("a task ended with another answer")
        took.append(time.perf_counter() - began)
    return took
