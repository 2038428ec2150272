"""Answers of services as Parquet files, written batch by batch and no larger than allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from vantage.common.errors import Reason, error
from vantage.node.datasets.folders import make_folder

MAX_COLUMNS = 1_000


class TableFile:
    """Writes one table. A column has one type: that of the database, or else of its first batch.

    Args:
        path: a new file, in a new folder.
        dataset: for people.
        max_rows: not one more is written.
        max_bytes: of the file, give or take a batch.

    Attributes:
        rows: written so far.
    """

    def __init__(self, path: Path, dataset: str, max_rows: int, max_bytes: int) -> None:
        self.rows = 0
        self._path = path
        self._dataset = dataset
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._names: list[str] = []
        self._types: list[pa.DataType | None] = []
        self._schema: pa.Schema | None = None
        self._writer: pq.ParquetWriter | None = None

    def begin(self, names: Sequence[str], types: Sequence[pa.DataType | None]) -> None:
        """Say which columns there are; a type that is not known is None.

        Raises:
            RunError: DATASET_UNREADABLE, two columns have one name, or there are too many.
        """
        if len(set(names)) != len(names) or not 0 < len(names) <= MAX_COLUMNS:
            raise error(
                Reason.DATASET_UNREADABLE,
                f"the query of {self._dataset} must answer with 1 to {MAX_COLUMNS} columns of different names: tell "
                "the node's admin",
            )
        self._names, self._types = list(names), list(types)

    def write(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write a batch.

        Raises:
            LimitExceededError: DATASET_TOO_LARGE.
            RunError: DATASET_UNREADABLE, a column changes its type.
        """
        self.rows += len(rows)
        if self.rows > self._max_rows:
            raise self._too_large(f"{self._max_rows} rows")
        try:
            arrays = [
                _column([row[index] for row in rows], None if self._schema is None else self._schema.field(index).type)
                if self._types[index] is None
                else _column([row[index] for row in rows], self._types[index])
                for index in range(len(self._names))
            ]
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as problem:
            raise error(
                Reason.DATASET_UNREADABLE,
                f"a column of the dataset {self._dataset} has values of several types: let the query cast it "
                f"({type(problem).__name__})",
            ) from None
        if self._writer is None:
            self._schema = pa.schema([(name, array.type) for name, array in zip(self._names, arrays, strict=True)])
            self._writer = pq.ParquetWriter(self._path, self._schema)
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        if self._path.stat().st_size > self._max_bytes:
            raise self._too_large(f"{self._max_bytes} bytes")

    def close(self) -> int:
        """Complete the file; returns its size in bytes."""
        if self._writer is None:
            self.write([])  # columns without rows are an answer, too
        assert self._writer is not None  # noqa: S101  # made by the first batch
        self._writer.close()
        # Whatever the umask is: the container's user is another one; the directory of the run above is closed.
        self._path.chmod(0o444)
        return self._path.stat().st_size

    def __enter__(self) -> Self:
        make_folder(self._path.parent)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if problem is not None and self._writer is not None:
            self._writer.close()

    def _too_large(self, limit: str) -> Exception:
        return error(
            Reason.DATASET_TOO_LARGE,
            f"the answer of the dataset {self._dataset} has more than {limit}: ask for less, or ask the node's admin "
            "for more (max_rows, max_bytes)",
        )


def _column(values: Sequence[Any], kind: pa.DataType | None) -> pa.Array:
    plain = [_plain(each) for each in values]
    if kind is not None and pa.types.is_string(kind):
        plain = [each if each is None or isinstance(each, str) else str(each) for each in plain]
    array = pa.array(plain, type=kind)
    # A column without a single value says nothing of its type, and Parquet's readers differ about it.
    return array.cast(pa.string()) if pa.types.is_null(array.type) else array


def _plain(value: Any) -> Any:
    """Decimals become floats: how many digits they have differs from row to row."""
    if isinstance(value, Decimal):
        number = float(value)
        return None if math.isnan(number) else number
    return value
