"""Sum and mean over hospitals by secure multi-party computation: nobody sees the part of anybody else.

The computation itself is an ordinary MPyC program, unchanged, over forwarded TCP ports (``program.py``).
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from vantage.algorithm import AlgorithmError, Context, DataFrame, TooFewRecordsError, declaration_of, function

PROGRAM = Path(__file__).with_name("program.py")
PORT = 11365
MIN_COUNT = 5


async def run_program(parties: list[str], index: int, numbers: list[float]) -> list[float]:
    """Run the MPyC program as one of its parties."""
    addresses = [argument for party in parties for argument in ("-P", party)]
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAM), *addresses, "-I", str(index), "--no-log",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate(json.dumps(numbers).encode())
    if process.returncode != 0:
        raise AlgorithmError(f"the MPyC program ended with status {process.returncode}: see the node's log")
    found: list[float] = json.loads(output)
    return found


@function
async def partial_secure_mean(ctx: Context, df: DataFrame, column: str) -> dict[str, Any]:
    """Count, sum and mean of a column over all organizations that run this in one task.

    Args:
        df: the records.
        column: a numeric column.
    """
    if column not in df.columns:
        raise AlgorithmError(f"there is no column {column!r}")
    values = df[column].dropna()
    if len(values) < MIN_COUNT:
        raise TooFewRecordsError(MIN_COUNT)
    async with ctx.peers() as peers:
        organizations = await peers.wait_for()
        if len(organizations) < 3:
            raise AlgorithmError("a sum of two tells each the part of the other: ask at least three organizations")
        ports = await peers.forward(PORT)
        parties = [f"127.0.0.1:{ports[each]}" for each in organizations]
        index = organizations.index(ctx.organization)
        total, count = await run_program(parties, index, [float(values.sum()), float(len(values))])
    return {"count": round(count), "sum": total, "mean": total / count}


@function
def secure_mean(
    ctx: Context, column: str, organizations: list[str] | None = None, dataset: str = "lung"
) -> dict[str, Any]:
    """Count, sum and mean over all organizations, of which none sees the part of another.

    Args:
        column: a numeric column.
        organizations: who takes part; all of the collaboration when left out.
        dataset: name of the dataset at the nodes.
    """
    answers = ctx.subtask(
        partial_secure_mean,
        {"column": column},
        organizations=organizations,
        datasets={"df": dataset},
        title="secure sum",
    )
    results = [each.get() for each in answers]
    if any(each != results[0] for each in results):
        raise AlgorithmError("the parties do not agree on the sum")
    answer: dict[str, Any] = results[0]
    return answer


DECLARATION = declaration_of(__name__)
