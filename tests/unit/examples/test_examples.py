"""The examples by the local runner, against the pooled computation."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from vantage.algorithm import AlgorithmError, local
from vantage.common.errors import Reason

ROOT = Path(__file__).parents[3]
DATA = {path.stem: {"lung": path} for path in sorted((ROOT / "examples/data").glob("*.csv"))}
CLOSE = 1e-9


def load(name: str) -> ModuleType:
    module_name = f"example_{name.replace('-', '_')}"
    spec = importlib.util.spec_from_file_location(module_name, ROOT / "examples" / name / "algorithm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pooled() -> Any:
    return pd.concat([pd.read_csv(each["lung"]) for each in DATA.values()], ignore_index=True)


def test_data_is_what_the_script_makes_and_every_record_is_in_one_file(pooled: Any) -> None:
    from lifelines.datasets import load_lung

    subprocess.run([sys.executable, ROOT / "scripts/data", "--check"], check=True)
    order = list(pooled.columns)
    original = load_lung().sort_values(order).reset_index(drop=True)
    pd.testing.assert_frame_equal(pooled.sort_values(order).reset_index(drop=True), original, check_dtype=False)
    assert len(DATA) == 3


def test_summary_equals_the_pooled(pooled: Any) -> None:
    columns = ["age", "time", "wt.loss"]
    answer = local.run(load("summary").summary, {"columns": columns}, DATA)
    for column in columns:
        values = pooled[column].dropna()
        got = answer[column]
        assert got["count"] == len(values)
        assert got["mean"] == pytest.approx(values.mean(), rel=CLOSE, abs=CLOSE)
        assert got["variance"] == pytest.approx(values.var(), rel=CLOSE, abs=CLOSE)
        for q, value in got["quantiles"].items():
            exact = values.quantile(float(q), interpolation="lower")
            assert value == pytest.approx(exact, rel=0.01 + 1e-9, abs=1e-9)


def test_sketch_keeps_its_bound_with_signs_and_zeros() -> None:
    module = load("summary")
    random = np.random.default_rng(1)
    values = np.concatenate([random.lognormal(0, 3, 999), -random.lognormal(0, 3, 500), np.zeros(100)])
    sides = {side: {int(k): n for k, n in each.items()} for side, each in module.sketch(values.tolist()).items()}
    for q in np.linspace(0, 1, 101):
        exact = np.quantile(values, q, method="lower")
        assert module.quantile(sides, float(q), len(values)) == pytest.approx(exact, rel=0.01 + 1e-9)


def test_kaplan_meier_equals_lifelines(pooled: Any) -> None:
    from lifelines import KaplanMeierFitter

    arguments = {"time_column": "time", "event_column": "status"}
    table = local.run(load("kaplan-meier").kaplan_meier, arguments, DATA).to_pandas()
    fitted = KaplanMeierFitter().fit(pooled["time"], pooled["status"])
    expected = fitted.survival_function_.loc[table["time"], "KM_estimate"].to_numpy()
    assert table["survival"].to_numpy() == pytest.approx(expected, rel=CLOSE, abs=CLOSE)
    events = fitted.event_table.loc[table["time"]]
    assert table["at_risk"].tolist() == events["at_risk"].tolist()
    assert table["events"].tolist() == events["observed"].tolist()
    # lifelines keeps the sum of Greenwood's formula, without the factor S squared.
    greenwood = fitted._cumulative_sq_.loc[table["time"]].to_numpy().ravel()
    assert table["variance"].to_numpy() == pytest.approx(expected**2 * greenwood, rel=CLOSE, abs=CLOSE)


def test_kaplan_meier_on_a_coarse_grid() -> None:
    arguments = {"time_column": "time", "event_column": "status", "interval": 30}
    table = local.run(load("kaplan-meier").kaplan_meier, arguments, DATA).to_pandas()
    assert (table["time"] % 30 == 0).all()
    assert table["at_risk"].iloc[0] == 228


@pytest.mark.parametrize(
    ("example", "name", "arguments"),
    [
        ("summary", "summary", {"columns": ["age"]}),
        ("kaplan-meier", "kaplan_meier", {"time_column": "time", "event_column": "status"}),
    ],
)
def test_too_few_records_are_not_told_of(example: str, name: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("age,time,status\n" + "50,1,1\n" * 4)
    with pytest.raises(AlgorithmError, match="few:") as caught:
        # The researcher cannot go below the author's own bound.
        local.run(getattr(load(example), name), arguments | {"min_count": 1}, {**DATA, "few": {"lung": path}})
    assert caught.value.reason is Reason.TOO_FEW_RECORDS
