"""Kaplan-Meier survival curve over several organizations, with Greenwood's variance.

Two rounds. First each organization tells the distinct times at which its records end; the union is the grid. Then each
tells, per time of the grid, how many are at risk and how many events there are; the sums give exactly the curve of the
pooled records: Kaplan, Meier, JASA 53, 1958; Greenwood, 1926. With ``interval`` times are rounded up to multiples of it
first: less detail leaves, and the curve is that of the rounded times.
"""

from __future__ import annotations

import math
from typing import Any

from vantage.algorithm import AlgorithmError, Context, DataFrame, TooFewRecordsError, declaration_of, function

LEAST_COUNT = 5
"""What this algorithm discloses at the least, whatever the researcher asks for."""


@function
def partial_times(
    df: DataFrame, time_column: str, event_column: str, interval: float = 0, min_count: int = 10
) -> list[float]:
    """Round 1: the distinct times of one organization.

    Args:
        df: the records.
        time_column: time until the event or the end of observation.
        event_column: 1 when the event happened, 0 when observation ended.
        interval: round times up to multiples of this; 0 keeps them.
        min_count: fewest records that may be told of; at least 5.
    """
    times, _ = _records(df, time_column, event_column, interval, min_count)
    return sorted(set(times))


@function
def partial_counts(
    df: DataFrame,
    time_column: str,
    event_column: str,
    grid: list[float],
    interval: float = 0,
    min_count: int = 10,
) -> dict[str, list[int]]:
    """Round 2: at risk and events of one organization at each time of the grid.

    Args:
        df: the records.
        time_column: time until the event or the end of observation.
        event_column: 1 when the event happened, 0 when observation ended.
        grid: times, ascending.
        interval: as in round 1.
        min_count: fewest records that may be told of; at least 5.
    """
    import numpy as np

    times, events = _records(df, time_column, event_column, interval, min_count)
    ended = np.sort(np.asarray(times, dtype=float))
    happened = np.sort(np.asarray([time for time, event in zip(times, events, strict=True) if event], dtype=float))
    at = np.asarray(grid, dtype=float)
    at_risk = len(ended) - np.searchsorted(ended, at, side="left")
    number = np.searchsorted(happened, at, side="right") - np.searchsorted(happened, at, side="left")
    return {"at_risk": at_risk.tolist(), "events": number.tolist()}


@function
def kaplan_meier(
    ctx: Context,
    time_column: str,
    event_column: str,
    organizations: list[str] | None = None,
    interval: float = 0,
    min_count: int = 10,
    dataset: str = "lung",
) -> DataFrame:
    """Survival curve over all organizations: time, at_risk, events, survival, variance.

    Args:
        time_column: time until the event or the end of observation.
        event_column: 1 when the event happened, 0 when observation ended.
        organizations: whom to ask; everyone when left out.
        interval: round times up to multiples of this; 0 keeps them.
        min_count: fewest records at each organization; at least 5.
        dataset: name of the dataset at the nodes.
    """
    import pandas as pd

    arguments: dict[str, Any] = {
        "time_column": time_column,
        "event_column": event_column,
        "interval": interval,
        "min_count": min_count,
    }
    bound = {"df": dataset}
    ctx.progress(0.1, "round 1: times")
    first = ctx.subtask(
        partial_times, arguments, organizations=organizations, datasets=bound, title="Kaplan-Meier: times"
    )
    # All or an error: a curve that silently lacks an organization is a wrong answer.
    grid = sorted({time for each in first for time in each.get()})
    ctx.progress(0.5, "round 2: counts")
    second = ctx.subtask(
        partial_counts,
        arguments | {"grid": grid},
        organizations=organizations,
        datasets=bound,
        title="Kaplan-Meier: counts",
    )
    counts = [each.get() for each in second]
    at_risk = [sum(column) for column in zip(*(each["at_risk"] for each in counts), strict=True)]
    events = [sum(column) for column in zip(*(each["events"] for each in counts), strict=True)]
    survival, variance = curve(at_risk, events)
    return pd.DataFrame(
        {"time": grid, "at_risk": at_risk, "events": events, "survival": survival, "variance": variance}
    )


def curve(at_risk: list[int], events: list[int]) -> tuple[list[float], list[float]]:
    """Survival and Greenwood's variance: S(t) = prod (1 - d/n), var S(t) = S(t)^2 sum d / (n (n - d))."""
    survival, variance = [], []
    product, total = 1.0, 0.0
    for n, d in zip(at_risk, events, strict=True):
        product *= 1 - d / n
        # When the last one has the event, survival is 0 and so is its variance; the sum would be infinite.
        total += d / (n * (n - d)) if n > d else 0.0
        survival.append(product)
        variance.append(product * product * total)
    return survival, variance


def _records(
    df: DataFrame, time_column: str, event_column: str, interval: float, min_count: int
) -> tuple[list[float], list[int]]:
    import pandas as pd

    for column in (time_column, event_column):
        if column not in df or not pd.api.types.is_numeric_dtype(df[column]):
            raise AlgorithmError(f"there is no numeric column {column!r}: ask for the columns of this dataset")
    complete = df[[time_column, event_column]].dropna()
    least = max(min_count, LEAST_COUNT)
    if len(complete) < least:
        raise TooFewRecordsError(least)
    if not complete[event_column].isin((0, 1)).all():
        raise AlgorithmError(f"the column {event_column!r} must hold 0 and 1 only")
    times = [float(each) for each in complete[time_column]]
    if interval > 0:
        times = [math.ceil(each / interval) * interval for each in times]
    return times, [int(each) for each in complete[event_column]]


# For nodes that run the module without an image, in development.
DECLARATION = declaration_of(__name__)
