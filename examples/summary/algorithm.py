"""Count, mean, variance and quantiles of columns over several organizations; no record leaves any of them.

Mean and variance: pairwise combination of (count, mean, M2), exact up to rounding: Chan, Golub, LeVeque, "Updating
Formulae and a Pairwise Algorithm for Computing Sample Variances", COMPSTAT 1982. Quantiles: the DDSketch of Masson,
Rim, Lee, VLDB 2019: counts in buckets whose bounds grow geometrically; merging adds counts and loses nothing. The
answer is within ACCURACY, relative, of a value of the data at that rank. Its few lines are here rather than a package,
since the base image has none and algorithm images are built without a network.
"""

from __future__ import annotations

import math
from typing import Any

from vantage.algorithm import AlgorithmError, Context, DataFrame, TooFewRecordsError, declaration_of, function

ACCURACY = 0.01
GAMMA = (1 + ACCURACY) / (1 - ACCURACY)
SMALLEST = 1e-12
"""Values nearer to zero than this count as zero."""
QUANTILES = (0.25, 0.5, 0.75)
LEAST_COUNT = 5
"""What this algorithm discloses at the least, whatever the researcher asks for."""


@function
def partial_summary(df: DataFrame, columns: list[str], min_count: int = 10) -> dict[str, Any]:
    """What one organization tells of each column.

    Args:
        df: the records.
        columns: numeric columns.
        min_count: fewest values of a column that may be told of; at least 5.
    """
    import pandas as pd

    least = max(min_count, LEAST_COUNT)
    answer: dict[str, Any] = {}
    for column in columns:
        if column not in df or not pd.api.types.is_numeric_dtype(df[column]):
            raise AlgorithmError(f"there is no numeric column {column!r}: ask for the columns of this dataset")
        values = df[column].dropna().astype(float)
        if len(values) < least:
            raise TooFewRecordsError(least)
        mean = float(values.mean())
        answer[column] = {
            "count": len(values),
            "mean": mean,
            "m2": float(((values - mean) ** 2).sum()),
            "sketch": sketch(values.tolist()),
        }
    return answer


@function
def summary(
    ctx: Context,
    columns: list[str],
    organizations: list[str] | None = None,
    min_count: int = 10,
    dataset: str = "lung",
) -> dict[str, Any]:
    """Count, mean, sample variance and quartiles of columns over all organizations.

    Args:
        columns: numeric columns.
        organizations: whom to ask; everyone when left out.
        min_count: fewest values of a column at each organization; at least 5.
        dataset: name of the dataset at the nodes.
    """
    ctx.progress(0.1, "asking the organizations")
    results = ctx.subtask(
        partial_summary,
        {"columns": columns, "min_count": min_count},
        organizations=organizations,
        datasets={"df": dataset},
        title="summary: partial",
    )
    # All or an error: a summary that silently lacks an organization is a wrong answer.
    partials = [each.get() for each in results]
    ctx.progress(0.9, "combining")
    return {column: combine([each[column] for each in partials]) for column in columns}


def combine(partials: list[dict[str, Any]]) -> dict[str, Any]:
    """Statistics of all from those of each."""
    count, mean, m2 = 0, 0.0, 0.0
    merged: dict[str, dict[int, int]] = {"negative": {}, "zero": {}, "positive": {}}
    for part in partials:
        total = count + part["count"]
        delta = part["mean"] - mean
        m2 += part["m2"] + delta * delta * count * part["count"] / total
        mean += delta * part["count"] / total
        count = total
        for side, buckets in merged.items():
            for key, number in part["sketch"][side].items():
                buckets[int(key)] = buckets.get(int(key), 0) + number
    return {
        "count": count,
        "mean": mean,
        "variance": m2 / (count - 1),
        "quantiles": {str(q): quantile(merged, q, count) for q in QUANTILES},
    }


def sketch(values: list[float]) -> dict[str, dict[str, int]]:
    """Counts per bucket: bucket k of a side holds magnitudes in (GAMMA^(k-1), GAMMA^k]."""
    sides: dict[str, dict[str, int]] = {"negative": {}, "zero": {}, "positive": {}}
    for value in values:
        if abs(value) < SMALLEST:
            side, key = "zero", "0"
        else:
            side = "positive" if value > 0 else "negative"
            key = str(math.ceil(math.log(abs(value), GAMMA)))
        sides[side][key] = sides[side].get(key, 0) + 1
    return sides


def quantile(sides: dict[str, dict[int, int]], q: float, count: int) -> float:
    """The value at rank floor(q (count - 1)), within ACCURACY."""
    ordered = [(-_middle(key), number) for key, number in sorted(sides["negative"].items(), reverse=True)]
    ordered += [(0.0, number) for number in sides["zero"].values()]
    ordered += [(_middle(key), number) for key, number in sorted(sides["positive"].items())]
    rank = math.floor(q * (count - 1))
    seen = 0
    for value, number in ordered:
        seen += number
        if seen > rank:
            return value
    return ordered[-1][0]


def _middle(key: int) -> float:
    return 2 * GAMMA**key / (GAMMA + 1)


# For nodes that run the module without an image, in development.
DECLARATION = declaration_of(__name__)
