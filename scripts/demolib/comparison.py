"""The federated answers beside what one gets from all records in one place, which the demo alone may do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from lifelines import KaplanMeierFitter
from rich.table import Table

from scripts.demolib.console import console
from scripts.demolib.network import HOSPITALS, ROOT
from scripts.demolib.services import Trouble

TOLERANCE = 1e-9
COLUMNS = ("age", "meal.cal", "ph.karno", "wt.loss")
_TIMES = (30, 90, 180, 365, 545, 730)


def pooled() -> pd.DataFrame:
    """All records."""
    return pd.concat([pd.read_csv(ROOT / "examples/data" / f"{name}.csv") for name in HOSPITALS], ignore_index=True)


def compare_summary(answer: dict[str, Any], records: pd.DataFrame) -> float:
    """Print the summaries; returns the largest relative difference."""
    table = Table("column", "", "federated", "pooled", "difference", title="Summary of three hospitals")
    for name in ("federated", "pooled", "difference"):
        table.columns[("column", "", "federated", "pooled", "difference").index(name)].justify = "right"
    largest = 0.0
    for column in COLUMNS:
        values = records[column].dropna()
        exact = {"count": float(len(values)), "mean": float(values.mean()), "variance": float(values.var())}
        for index, (name, expected) in enumerate(exact.items()):
            got = float(answer[column][name])
            difference = abs(got - expected) / max(abs(expected), 1.0)
            largest = max(largest, difference)
            shown = f"{got:.0f}" if name == "count" else f"{got:.9f}"
            wanted = f"{expected:.0f}" if name == "count" else f"{expected:.9f}"
            table.add_row(column if index == 0 else "", name, shown, wanted, f"{difference:.1e}")
        table.add_section()
    console.print(table)
    return largest


def compare_curve(curve: pd.DataFrame, records: pd.DataFrame) -> float:
    """Print the survival curves at some times; returns the largest difference at any time."""
    fitted = KaplanMeierFitter().fit(records["time"], records["status"])
    expected = fitted.survival_function_at_times(curve["time"]).to_numpy()
    differences = abs(curve["survival"].to_numpy() - expected)
    if len(curve) != records["time"].nunique():
        raise Trouble("the federated curve has other times than the pooled one")
    table = Table("days", "at risk", "federated", "pooled", "difference", title="Kaplan-Meier survival")
    for each in table.columns:
        each.justify = "right"
    for time in _TIMES:
        row = int((curve["time"] <= time).sum()) - 1
        table.add_row(
            str(time),
            str(curve["at_risk"][row]),
            f"{curve['survival'][row]:.9f}",
            f"{expected[row]:.9f}",
            f"{differences[row]:.1e}",
        )
    console.print(table)
    return float(differences.max())


def check(what: str, difference: float) -> None:
    """Say that federated and pooled agree.

    Raises:
        Trouble: they do not.
    """
    if not difference <= TOLERANCE:
        raise Trouble(f"{what}: the federated answer differs from the pooled one by {difference:.1e}")
    console.print(
        f"  [green]✓ {what}: federated and pooled agree to {TOLERANCE:g}[/] (largest difference {difference:.1e})"
    )


def plot(curve: pd.DataFrame, path: Path) -> None:
    """Draw the federated curve with its 95 % band."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    spread = 1.96 * curve["variance"] ** 0.5
    figure, axes = plt.subplots(figsize=(7, 4.5))
    axes.step([0, *curve["time"]], [1, *curve["survival"]], where="post", color="#2b5c8a")
    lower, upper = (curve["survival"] - spread).clip(0, 1), (curve["survival"] + spread).clip(0, 1)
    axes.fill_between(curve["time"], lower, upper, step="post", alpha=0.2, color="#2b5c8a", label="95 % (Greenwood)")
    axes.set(xlabel="days", ylabel="survival", ylim=(0, 1.02), xlim=(0, None), title="Lung cancer, three hospitals")
    axes.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)
