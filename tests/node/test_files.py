"""Files and tables of the researcher: sealed with the arguments, read like data of the node."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import pytest_asyncio

from vantage.client import AsyncClient, Result, packing
from vantage.common import argument_files
from vantage.common.errors import LimitExceededError
from vantage.testing.peer_network import PATIENCE, PeerNetwork
from vantage.testing.station import COLLABORATION, IMAGE, REPOSITORY

LIMIT = 48 * 1024 * 1024
ALGORITHM = """
import hashlib
from pathlib import Path
import pyarrow as pa
from vantage.algorithm import DataFrame, declaration_of, function

@function
def measure(model: Path, cohort: pa.Table, data: DataFrame) -> dict[str, object]:
    with model.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"digest": digest, "ages": sorted(cohort["age"].to_pylist()), "rows": len(data), "model": model.name}

@function
def repeat(model: Path, times: int) -> Path:
    made = Path("/tmp") / f"{model.parent.parent.name}.csv"
    made.write_bytes(model.read_bytes() * times)
    return made

@function
def length(text: str) -> int:
    return len(text)

DECLARATION = declaration_of(__name__)
"""
SIGNED: dict[str, Any] = {
    "policy": {"allow_unsigned": False},
    "trust": {"first_use": True},
    "process": {"modules": {REPOSITORY: "reads_files"}},
    "limits": {"max_input_bytes": LIMIT},
    "datasets": [{"name": "lung", "path": "lung.csv", "format": "csv"}],
}


@pytest_asyncio.fixture
async def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PeerNetwork]:
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "reads_files.py").write_text(ALGORITHM)
    station = tmp_path / "network" / "clara"
    station.mkdir(parents=True)
    (station / "lung.csv").write_text("time,status\n1,0\n2,1\n3,1\n")
    monkeypatch.setenv("PYTHONPATH", str(modules), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(modules))
    async with PeerNetwork.running(tmp_path / "network", ("clara",), settings={"clara": SIGNED}) as running:
        yield running


@pytest_asyncio.fixture
async def client(network: PeerNetwork, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with network.signing_client(tmp_path) as made:
        yield made


async def ask(client: AsyncClient, function: str, files: Mapping[str, Any], **asked: Any) -> Result:
    handle = await client.tasks.run(
        image=IMAGE, function=function, collaboration=COLLABORATION, organizations=["clara"], files=files, **asked
    )
    (result,) = await handle.results(PATIENCE)
    return result


def scratch(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "network" / "clara" / "data" / "runs").iterdir())


async def test_files_tables_and_datasets_are_read_alike(
    network: PeerNetwork, client: AsyncClient, tmp_path: Path
) -> None:
    model = tmp_path / "private-name.bin"
    content = os.urandom(40 * 1024 * 1024)
    model.write_bytes(content)
    cohort = pd.DataFrame({"age": [61, 44]})
    result = await ask(client, "measure", {"model": model, "cohort": cohort}, datasets={"data": "lung"})
    assert result.get() == {
        "digest": hashlib.sha256(content).hexdigest(),
        "ages": [44, 61],
        "rows": 3,
        "model": "model.bin",
    }
    assert result.verified
    assert scratch(tmp_path) == []
    for path in (tmp_path / "network" / "server").rglob("*"):
        if path.is_file():
            assert b"private-name" not in path.read_bytes(), path


async def test_a_file_may_be_the_answer(client: AsyncClient, network: PeerNetwork, tmp_path: Path) -> None:
    model = tmp_path / "a.csv"
    model.write_text("n\n1\n")
    handle = await client.tasks.run(
        image=IMAGE,
        function="repeat",
        arguments={"times": 3},
        collaboration=COLLABORATION,
        organizations=["clara"],
        files={"model": model},
    )
    (result,) = await handle.results(PATIENCE, into=tmp_path)
    assert (result.get(), result.media_type) == (tmp_path / "clara.csv", "text/csv")
    assert result.value.read_text() == "n\n1\n" * 3


async def test_json_has_a_limit_that_sealing_does_not_count_for(
    client: AsyncClient, network: PeerNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 9 * 1024 * 1024  # beyond what is sent inside a message
    monkeypatch.setattr(argument_files, "MAX_JSON_BYTES", limit)
    fits = "x" * (limit - len('{"text":""}'))
    assert (await ask(client, "length", {}, arguments={"text": fits})).get() == len(fits)
    with pytest.raises(LimitExceededError, match="as files"):
        await ask(client, "length", {}, arguments={"text": f"{fits}x"})
    # A client that does not look.
    monkeypatch.setattr(packing, "_size", lambda _arguments: 0)
    for more in ("x", "x" * 3 * 1024 * 1024):
        result = await ask(client, "length", {}, arguments={"text": fits + more})
        assert result.failure is not None
        assert result.failure.reason == "PAYLOAD_TOO_LARGE"
        assert "as files" in result.failure.message


@pytest.mark.parametrize(
    ("files", "reason", "text"),
    [
        ({"model": Path(__file__)}, "ARGUMENTS_INVALID", "needs a dataset for"),
        ({"model": Path(__file__), "cohort": pa.table({"age": [1]}), "more": Path(__file__)}, "ARGUMENTS_INVALID", ""),
        ({"model": Path(__file__), "cohort": Path(__file__)}, "DATASET_UNREADABLE", "needs a table"),
    ],
)
async def test_files_that_do_not_fit_the_function_are_refused(
    client: AsyncClient, network: PeerNetwork, tmp_path: Path, files: dict[str, Any], reason: str, text: str
) -> None:
    result = await ask(client, "measure", files, datasets={"data": "lung"})
    assert result.failure is not None
    assert (result.failure.reason, scratch(tmp_path)) == (reason, [])
    assert text in result.failure.message


async def test_more_than_the_node_takes_is_refused_and_leaves_nothing(
    client: AsyncClient, network: PeerNetwork, tmp_path: Path
) -> None:
    large = tmp_path / "large.bin"
    with large.open("wb") as file:
        file.truncate(LIMIT + 1)
    result = await ask(client, "repeat", {"model": large}, arguments={"times": 1})
    assert result.failure is not None
    assert (result.failure.reason, scratch(tmp_path)) == ("PAYLOAD_TOO_LARGE", [])
    assert "limits.max_input_bytes" in result.failure.message
