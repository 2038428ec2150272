"""Calls a declared function: the same code in the container and in the local runner."""

from __future__ import annotations

import asyncio
import errno
import inspect
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from vantage.algorithm.context import Context
from vantage.algorithm.database import Database
from vantage.algorithm.errors import AlgorithmError
from vantage.algorithm.functions import Function
from vantage.algorithm.schema import invalid
from vantage.algorithm.values import encode, media_type_of
from vantage.common.errors import Reason, VantageError
from vantage.common.workbooks import remedy_for

BLOCK = 64 * 1024
"""Bytes of a message: the fastest size of one."""


@dataclass(frozen=True)
class Source:
    """What a data parameter reads.

    Attributes:
        path: of the file or folder.
        format: "csv", "parquet", "arrow", "excel", "folder", or "file" for any other; for a database its service's.
        sheet: of a workbook; the first when empty.
        database: for a dataset that is connected to.
    """

    path: Path
    format: str
    sheet: str = ""
    database: Database | None = None


@dataclass(frozen=True)
class Answer:
    """A result as bytes, or as the file that holds them."""

    media_type: str
    content: bytes | Path

    def blocks(self) -> Iterator[bytes]:
        """The bytes, in blocks of ``BLOCK``; of a file only one is in memory."""
        with self.content.open("rb") if isinstance(self.content, Path) else BytesIO(self.content) as stream:
            while block := stream.read(BLOCK):
                yield block


def invoke(function: Function, arguments: Mapping[str, Any], data: Mapping[str, Source], context: Context) -> Answer:
    """Call a function.

    Args:
        arguments: JSON values.
        data: data parameter -> dataset.

    Raises:
        AlgorithmError: the arguments, the data or the result are not usable, or the author reports a failure.
        Exception: whatever the function raises; pass it to ``failure_of``.
    """
    values = function.arguments(arguments)
    for parameter, kind in function.data.items():
        if parameter not in data:
            raise invalid(f"{function.name} needs a dataset for the parameter {parameter!r}")
        values[parameter] = _load(parameter, data[parameter], kind)
    if function.context:
        values[function.context] = context
    result = function.call(**values)
    if inspect.iscoroutinefunction(function.call):
        result = asyncio.run(result)
    return Answer(media_type_of(result), result) if isinstance(result, Path) else Answer(*encode(result))


def failure_of(problem: Exception, where: str) -> AlgorithmError:
    """What leaves the organization when a function raises.

    The message of an exception that the author did not choose often holds data ("could not convert 'Jansen' to
    float"): only the name of its type leaves; the traceback goes to stderr, which is the node's.
    """
    if isinstance(problem, AlgorithmError):
        return problem
    traceback.print_exception(problem, file=sys.stderr)
    if isinstance(problem, VantageError):
        return AlgorithmError(problem.message, reason=problem.reason)
    if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:
        # Seen only from inside: the scratch area is gone when the container has ended.
        return AlgorithmError(
            "the algorithm's temporary files did not fit: ask the node's admin for a higher limits.scratch",
            reason=Reason.SCRATCH_UNAVAILABLE,
        )
    return AlgorithmError(f"{type(problem).__name__} in {where}: ask the admin of the node for its log")


def _load(parameter: str, source: Source, kind: str) -> Any:
    if (kind == "database") != (source.database is not None):
        what = "a database to connect to" if source.database is not None else f"a {source.format} file"
        raise invalid(f"the parameter {parameter!r} cannot take {what}: bind another dataset")
    if kind == "database":
        return source.database
    if kind == "path":
        return source.path
    try:
        return _read(source, kind)
    except (AlgorithmError, ImportError, MemoryError):  # none of which says anything of the file
        raise
    except Exception as problem:  # noqa: BLE001  # parsers of foreign files raise whatever they like, and may quote them
        traceback.print_exception(problem, file=sys.stderr)  # see ``failure_of``
        remedy = remedy_for(source.path) if source.format == "excel" else ""
        raise AlgorithmError(
            f"the dataset of {parameter!r} is not readable as {source.format} ({type(problem).__name__}){remedy}",
            reason=Reason.DATASET_UNREADABLE,
        ) from None


def _read(source: Source, kind: str) -> Any:
    match source.format, kind:
        case "csv", "pandas":
            import pandas as pd

            return pd.read_csv(source.path)
        case "parquet", "pandas":
            import pandas as pd

            return pd.read_parquet(source.path)
        case "csv", "arrow":
            import pyarrow.csv

            return pyarrow.csv.read_csv(source.path)
        case "parquet", "arrow":
            import pyarrow.parquet

            return pyarrow.parquet.read_table(source.path)
        case "arrow", _:
            table = _arrow(source.path)
            return table if kind == "arrow" else table.to_pandas()
        case "excel", _:
            import pandas as pd

            # Left to choose, pandas asks for a library for what it takes for an old workbook.
            frame = pd.read_excel(source.path, sheet_name=source.sheet or 0, engine="openpyxl")
            if kind == "pandas":
                return frame
            import pyarrow as pa

            return pa.Table.from_pandas(frame, preserve_index=False)
    raise AlgorithmError(
        f"the function needs a table, and was given what is none: {source.format!r}",
        reason=Reason.DATASET_UNREADABLE,
    )


def _arrow(path: Path) -> Any:
    import pyarrow as pa

    # Mapped, not read: a table that is larger than the memory of the run can still be gone through.
    with pa.ipc.open_file(pa.memory_map(str(path))) as reader:
        return reader.read_all()
