"""An algorithm for the tests."""

from __future__ import annotations

import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vantage.algorithm import (
    AlgorithmError,
    Context,
    DataFrame,
    SubtaskResult,
    TooFewRecordsError,
    declaration_of,
    function,
)


@dataclass
class Window:
    low: float
    high: float = 10.0


@function
def shapes(
    count: int,
    share: float,
    names: list[str],
    weights: dict[str, float],
    mode: Literal["fast", "exact"] = "fast",
    note: str | None = None,
    window: Window | None = None,
) -> dict[str, Any]:
    """Echo arguments.

    More text.

    Args:
        count: how many
            of them.
        share: a part.
    """
    return {"count": count, "share": share, "names": names, "mode": mode, "high": window.high if window else None}


@function
def rows(df: DataFrame) -> int:
    return len(df)


@function
def table(df: DataFrame) -> DataFrame:
    return df


@function
def fail(kind: str) -> int:
    match kind:
        case "few":
            raise TooFewRecordsError(10)
        case "chosen":
            raise AlgorithmError("choose another column")
        case "infinite":
            return float("inf")  # type: ignore[return-value]
    raise ValueError("patient Jansen")


@function
def big(size: int) -> str:
    return "x" * size


@function
async def central(ctx: Context, dataset: str) -> dict[str, Any]:
    """Ask everyone."""
    ctx.progress(0.5, "asking")
    results = await ctx.subtask_async(rows, datasets={"df": dataset})
    return {each.organization: each.failure.reason if each.failure else each.value for each in results}


@function
def enough(ctx: Context, quorum: int, cancel_rest: bool = False) -> dict[str, Any]:
    """Ask everyone, and be content with less."""
    on_failure: Literal["continue", "cancel-rest"] = "cancel-rest" if cancel_rest else "continue"
    results = ctx.subtask(
        rows, datasets={"df": "lung"}, quorum=quorum, on_failure=on_failure, max_runtime=1.5, timeout=60
    )
    return {each.organization: each.failure.reason if each.failure else each.value for each in results}


@function
def report(text: str) -> Path:
    path = Path(tempfile.mkdtemp()) / "report.csv"
    path.write_text(text)
    return path


@function
def reports(ctx: Context, into: str | None = None) -> dict[str, Any]:
    """Ask everyone for a file."""
    results = ctx.subtask(report, {"text": "a,b\n"}, into=into)
    return {each.organization: each.failure.reason if each.failure else _shown(each) for each in results}


def _shown(result: SubtaskResult) -> list[str]:
    value = result.value
    shown = [value.name, value.read_text()] if isinstance(value, Path) else [value.decode()]
    return [result.media_type, *shown]


@function
def computed(ctx: Context, kind: str) -> str:
    """Ask with what came out of a computation."""
    import numpy as np

    value: Any = {"nan": float("nan"), "inf": float("inf"), "array": np.array([1.5, 2.0])}[kind]
    (answer,) = ctx.subtask(weigh, {"weights": {"of": value}}, organizations=["clara"])
    return str(answer.get())


@function
def weigh(weights: Any) -> str:
    return repr(weights)


@function
def measure(model: Path, cohort: DataFrame, text: str = "") -> dict[str, Any]:
    return {"model": model.name, "bytes": model.read_bytes().decode(), "rows": len(cohort), "text": len(text)}


@function
def send(ctx: Context, size: int = 0, files: bool = True, more: bool = False) -> dict[str, Any]:
    """Ask everyone, with files."""
    import pyarrow as pa

    sent = {"model": b"weights", "cohort": pa.table({"age": [61, 44]})} if files else {}
    sent |= {"more": b"than it reads"} if more else {}
    results = ctx.subtask(measure, {"text": "x" * size}, files=sent)
    return {each.organization: each.failure.reason if each.failure else each.value for each in results}


@function
def send_wrong(ctx: Context, what: str) -> None:
    """Send what cannot be sent."""
    files: dict[str, dict[str, Any]] = {
        "object": {"model": object()},
        "missing": {"model": "/nowhere"},
        "name": {"a/b": b""},
        "both": {"df": b""},
    }
    ctx.subtask(measure, files=files[what], datasets={"df": "lung"})


@function
def modules() -> list[str]:
    return [name for name in ("pandas", "pyarrow", "jsonschema", "vantage.node") if name in sys.modules]


@function
def wait(ctx: Context) -> None:
    ctx.progress(0.1)
    signal.pause()


def undeclared() -> str:
    return "secret"


DECLARATION = declaration_of(__name__)
