"""What a bench finds out."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """What a figure should be; benches inform, they never fail."""

    text: str
    met: bool


@dataclass(frozen=True)
class Figure:
    """One line of the report.

    Attributes:
        name: what was measured.
        value: how much, as text with its unit.
        ceiling: the same of the least code that could do it, in the same run.
        ratio: value to ceiling.
        goal: what it should be.
    """

    name: str
    value: str
    ceiling: str = ""
    ratio: float | None = None
    goal: Goal | None = None


def at_most(limit: float, actual: float, unit: str = "") -> Goal:
    """A goal for what should be small."""
    return Goal(f"<= {limit:g}{unit}", actual <= limit)


def at_least(limit: float, actual: float, unit: str = "") -> Goal:
    """A goal for what should be large."""
    return Goal(f">= {limit:.2g}{unit}", actual >= limit)


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"


def mebibytes(count: float) -> str:
    return f"{count / 1024**2:.0f} MiB"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median of the ratios of rounds measured next to each other: what disturbs a round disturbs both sides."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
