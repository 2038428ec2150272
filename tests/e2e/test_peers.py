"""Algorithms of three organizations talk to each other from containers without a network."""

from __future__ import annotations

import json
from pathlib import Path

import docker
import pandas as pd
import pytest

from vantage.testing.process_network import ProcessNetwork

pytestmark = pytest.mark.docker

DATA = Path(__file__).parents[2] / "examples/data"
NAMES = ("beatrix", "clara", "hilda")


@pytest.fixture(scope="module")
def pooled() -> pd.DataFrame:
    return pd.concat([pd.read_csv(DATA / f"{name}.csv") for name in NAMES], ignore_index=True)


async def test_a_ring_of_three_equals_the_pooled_computation(
    network: ProcessNetwork, engine: docker.DockerClient, ring_allreduce: str, pooled: pd.DataFrame
) -> None:
    columns = ["age", "ph.karno"]
    async with network.researcher() as researcher:
        run = await researcher.ask(
            ring_allreduce, "moments", {"columns": columns, "organizations": list(NAMES)}, to=["clara"]
        )
    assert run.failure.message == ""
    answer = json.loads(run.result.inline)
    for column in columns:
        values = pooled[column].dropna()
        assert answer[column]["count"] == len(values)
        assert answer[column]["mean"] == pytest.approx(values.mean(), rel=1e-9)
        assert answer[column]["variance"] == pytest.approx(values.var(), rel=1e-9)
    assert [node.leftovers(engine) for node in network.nodes.values()] == [[], [], []]


async def test_an_unchanged_mpyc_program_computes_a_sum_that_nobody_sees_the_parts_of(
    network: ProcessNetwork, secure_sum: str, pooled: pd.DataFrame
) -> None:
    async with network.researcher() as researcher:
        run = await researcher.ask(
            secure_sum, "secure_mean", {"column": "age", "organizations": list(NAMES)}, to=["hilda"]
        )
    assert run.failure.message == ""
    values = pooled["age"].dropna()
    assert json.loads(run.result.inline) == {
        "count": len(values),
        "sum": pytest.approx(values.sum(), abs=1e-6),
        "mean": pytest.approx(values.mean(), rel=1e-9),
    }


async def test_without_enough_parties_nothing_is_told(network: ProcessNetwork, ring_allreduce: str) -> None:
    async with network.researcher() as researcher:
        runs = await researcher.runs(
            ring_allreduce, "partial_moments", {"columns": ["age"]}, to=["clara", "hilda"], datasets={"df": "lung"}
        )
    assert not any(each.HasField("result") for each in runs)
    # Whoever comes to it later than the other one has ended learns of that alone.
    assert any("three organizations" in each.failure.message for each in runs), runs
    assert all(each.failure.reason for each in runs), runs
