"""A central function sends a model to others: real server, real nodes, signed and sealed, of any size."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from vantage.client import AsyncClient, Result
from vantage.testing.peer_network import PATIENCE, PeerNetwork
from vantage.testing.processes import RESEARCHER
from vantage.testing.server import PASSWORD
from vantage.testing.station import COLLABORATION, IMAGE, REPOSITORY

LIMIT = 48 * 1024 * 1024
MARK = "marker-of-a-secret-model"
ALGORITHM = """
import hashlib
from pathlib import Path
import pyarrow as pa
from vantage.algorithm import Context, DataFrame, declaration_of, function

@function
def measure(model: Path, cohort: DataFrame, note: str = "") -> dict[str, object]:
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"digest": digest, "ages": cohort["age"].tolist(), "name": model.name, "note": len(note)}

@function
async def central(ctx: Context, size: int, note: int = 0) -> dict[str, object]:
    model = Path("model-of-clara.bin")
    hashed = hashlib.sha256()
    with model.open("wb") as file:
        for block in range(max(size // 65536, 1)):
            chunk = (b"marker-of-a-secret-model %09d" % block).ljust(65536, b".")[:size]
            file.write(chunk)
            hashed.update(chunk)
    files = {"model": model, "cohort": pa.table({"age": [61, 44]})}
    asked = ["clara", "hilda"]
    answers = await ctx.subtask_async(measure, {"note": "n" * note}, files=files, organizations=asked)
    told = [each.value if each.failure is None else [each.failure.reason, each.failure.message] for each in answers]
    return {"digest": hashed.hexdigest(), "answers": told}

DECLARATION = declaration_of(__name__)
"""
SETTINGS: dict[str, Any] = {
    "policy": {"allow_unsigned": True},
    "trust": {"first_use": True},
    "process": {"modules": {REPOSITORY: "sends_files"}},
    "limits": {"max_staged_bytes": LIMIT},
    "slots": 4,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[PeerNetwork]:
    directory = tmp_path_factory.mktemp("network")
    modules = directory / "modules"
    modules.mkdir()
    (modules / "sends_files.py").write_text(ALGORITHM)
    settings = dict.fromkeys(("clara", "hilda"), SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(modules), prepend=os.pathsep)
        patch.syspath_prepend(str(modules))
        async with PeerNetwork.running(directory / "stations", tuple(settings), settings=settings) as running:
            yield running


async def ask(client: AsyncClient, **arguments: Any) -> Result:
    handle = await client.tasks.run(
        image=IMAGE, function="central", arguments=arguments, collaboration=COLLABORATION, organizations=["clara"]
    )
    (result,) = await handle.results(PATIENCE * 2)
    return result


def check(result: Result, note: int) -> None:
    told = {"digest": result.get()["digest"], "ages": [61, 44], "name": "model.bin", "note": note}
    assert result.value["answers"] == [told, told]


def files(network: PeerNetwork, *parts: str) -> list[Path]:
    place = network.installation.directory.joinpath(*parts)
    return [each for each in place.rglob("*") if each.is_file()]


@pytest.mark.slow
@pytest.mark.asyncio(loop_scope="module")
async def test_a_model_of_any_size_is_sealed_to_others_and_nothing_is_left(
    network: PeerNetwork, tmp_path: Path
) -> None:
    async with network.signing_client(tmp_path) as client:
        result = await ask(client, size=40 * 1024 * 1024, note=5 * 1024 * 1024)
    check(result, 5 * 1024 * 1024)
    assert result.verified
    for each in files(network, "server"):
        with each.open("rb") as file:
            while block := file.read(1 << 24):
                assert MARK.encode() not in block, each
                assert b"model-of-clara" not in block, each
    for name in ("clara", "hilda"):
        assert files(network, name, "data", "runs") == []


@pytest.mark.asyncio(loop_scope="module")
async def test_more_than_the_node_keeps_is_refused_with_what_to_do(network: PeerNetwork, tmp_path: Path) -> None:
    async with network.signing_client(tmp_path) as client:
        result = await ask(client, size=LIMIT + 65536)
    assert result.failure is not None
    assert "limits.max_staged_bytes" in result.failure.message
    assert files(network, "clara", "data", "runs") == []


@pytest.mark.asyncio(loop_scope="module")
async def test_files_travel_without_orders_too(network: PeerNetwork) -> None:
    server = network.server
    async with AsyncClient.connect(server.address, fingerprint=server.fingerprint) as client:
        await client.auth.login(RESEARCHER, PASSWORD)
        check(await ask(client, size=700_000, note=3), 3)
