"""Means and variances over several organizations by a ring all-reduce: nobody, not even a central run, gets all parts.

Each run holds one array. In n-1 steps every run hands a piece to its right neighbour and adds what comes from the left,
so that each ends up with one piece of the sum; in n-1 further steps the finished pieces go round. Each run sends
2 (n-1)/n of the array's size, however many take part.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vantage.algorithm import AlgorithmError, Context, DataFrame, TooFewRecordsError, declaration_of, function

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from vantage.algorithm.streams import MessageChannel

MIN_COUNT = 5


async def ring_allreduce(
    array: npt.NDArray[np.float64], position: int, size: int, left: MessageChannel, right: MessageChannel
) -> npt.NDArray[np.float64]:
    """The sum of the arrays of all runs, at each of them.

    Args:
        array: of this run; all have the same length.
        position: of this run in the ring.
        size: how many runs there are.
        left: from the neighbour before.
        right: to the neighbour after.
    """
    import asyncio

    import numpy as np

    pieces = [piece.copy() for piece in np.array_split(array, size)]

    async def exchange(out: int, into: int) -> npt.NDArray[np.float64]:
        _, received = await asyncio.gather(right.send(pieces[out].tobytes()), left.receive())
        if received is None or len(received) != pieces[into].nbytes:
            raise AlgorithmError("a neighbour in the ring sent something else than its piece")
        return np.frombuffer(received, dtype=np.float64)

    for step in range(size - 1):
        into = (position - step - 1) % size
        pieces[into] += await exchange((position - step) % size, into)
    for step in range(size - 1):
        into = (position - step) % size
        pieces[into] = await exchange((position - step + 1) % size, into)
    return np.concatenate(pieces)


@function
async def partial_moments(ctx: Context, df: DataFrame, columns: list[str]) -> dict[str, Any]:
    """Count, mean and sample variance of columns over all organizations that run this in one task.

    Args:
        df: the records.
        columns: numeric columns; all organizations need the same.
    """
    import numpy as np

    for column in columns:
        if column not in df.columns:
            raise AlgorithmError(f"there is no column {column!r}")
    values = df[columns].to_numpy(dtype=float)
    present = ~np.isnan(values)
    if present.sum(axis=0).min() < MIN_COUNT:
        raise TooFewRecordsError(MIN_COUNT)
    filled = np.where(present, values, 0.0)
    parts = np.concatenate([present.sum(axis=0), filled.sum(axis=0), (filled**2).sum(axis=0)]).astype(np.float64)

    async with ctx.peers() as peers:
        ring = await peers.wait_for()
        position, size = ring.index(ctx.organization), len(ring)
        if size < 3:
            raise AlgorithmError("a ring needs three organizations: of two, each could compute the other's part")
        async with peers.listen("ring") as arriving:
            ctx.progress(0.3, "connecting to the neighbours")
            right = (await peers.connect(ring[(position + 1) % size], "ring")).messages()
            left = (await anext(arriving)).messages()
            total = await ring_allreduce(parts, position, size, left, right)
            await right.finish()
            await left.receive()  # the neighbour has finished as well
    count, first, second = np.split(total, 3)
    mean = first / count
    variance = (second - count * mean**2) / (count - 1)
    return {
        column: {"count": int(count[index]), "mean": float(mean[index]), "variance": float(variance[index])}
        for index, column in enumerate(columns)
    }


@function
def moments(
    ctx: Context, columns: list[str], organizations: list[str] | None = None, dataset: str = "lung"
) -> dict[str, Any]:
    """Count, mean and sample variance over all organizations: starts the ring, and compares what its members say.

    Args:
        columns: numeric columns.
        organizations: who takes part; all of the collaboration when left out.
        dataset: name of the dataset at the nodes.
    """
    arguments = {"columns": columns}
    answers = ctx.subtask(
        partial_moments, arguments, organizations=organizations, datasets={"df": dataset}, title="ring"
    )
    results = [each.get() for each in answers]
    if any(each != results[0] for each in results):
        raise AlgorithmError("the members of the ring do not agree on the sum")
    answer: dict[str, Any] = results[0]
    return answer


DECLARATION = declaration_of(__name__)
