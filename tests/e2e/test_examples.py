"""First light: signed images of the examples at three organizations, asked by a researcher of a fourth."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import docker
import pandas as pd
import pyarrow.ipc
import pytest
from lifelines import KaplanMeierFitter

from vantage.api.task.v1 import task_pb2
from vantage.testing.process_network import ProcessNetwork

pytestmark = pytest.mark.docker

DATA = Path(__file__).parents[2] / "examples/data"
NAMES = ("beatrix", "clara", "hilda")
COLUMNS = ["age", "meal.cal", "ph.karno"]


@pytest.fixture(scope="module")
def pooled() -> pd.DataFrame:
    return pd.concat([pd.read_csv(DATA / f"{name}.csv") for name in NAMES], ignore_index=True)


def nothing_is_left(network: ProcessNetwork, engine: docker.DockerClient) -> None:
    assert [node.leftovers(engine) for node in network.nodes.values()] == [[], [], []]


async def test_summary_equals_the_pooled_computation(
    network: ProcessNetwork, engine: docker.DockerClient, summary: str, pooled: pd.DataFrame
) -> None:
    async with network.researcher() as researcher:
        question = researcher.question(
            summary, "summary", {"columns": COLUMNS, "organizations": list(NAMES)}, to=["clara"]
        )
        events = await researcher.events(question)
    finished = [each.run_finished.run for each in events if each.HasField("run_finished")]
    assert [run.failure.message for run in finished] == [""]
    assert events[-1].task_finished.state == task_pb2.TASK_STATE_SUCCEEDED
    assert "asking the organizations" in [each.run_progress.message for each in events]
    answer: dict[str, Any] = json.loads(finished[0].result.inline)
    for column in COLUMNS:
        values = pooled[column].dropna()
        assert answer[column]["count"] == len(values)
        assert answer[column]["mean"] == pytest.approx(values.mean(), rel=1e-9)
        assert answer[column]["variance"] == pytest.approx(values.var(), rel=1e-9)
        for q, value in answer[column]["quantiles"].items():
            assert value == pytest.approx(values.quantile(float(q), interpolation="lower"), rel=0.01)
    nothing_is_left(network, engine)


async def test_kaplan_meier_equals_the_pooled_computation(
    network: ProcessNetwork, engine: docker.DockerClient, kaplan_meier: str, pooled: pd.DataFrame
) -> None:
    arguments = {"time_column": "time", "event_column": "status", "organizations": list(NAMES)}
    async with network.researcher() as researcher:
        run = await researcher.ask(kaplan_meier, "kaplan_meier", arguments, to=["hilda"])
    assert run.failure.message == ""
    curve = pyarrow.ipc.open_stream(io.BytesIO(run.result.inline)).read_all().to_pandas().set_index("time")
    expected = KaplanMeierFitter().fit(pooled["time"], pooled["status"]).survival_function_["KM_estimate"]
    assert len(curve) == pooled["time"].nunique()
    for time, survival in curve["survival"].items():
        assert survival == pytest.approx(expected[time], abs=1e-9)
    nothing_is_left(network, engine)


async def test_each_organization_answers_for_itself(network: ProcessNetwork, summary: str) -> None:
    async with network.researcher() as researcher:
        arguments = {"columns": ["age"]}
        runs = await researcher.runs(
            summary, "partial_summary", arguments, to=NAMES, datasets={"df": "lung"}, timeout=60
        )
    assert [run.organization for run in runs] == [f"organizations/{name}" for name in NAMES]
    counts = [json.loads(run.result.inline)["age"]["count"] for run in runs]
    assert sum(counts) == 228
