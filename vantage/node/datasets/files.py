"""What is in a file or folder: its columns with their types, and how many rows it has. Blocks: call it on a thread."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Event
from typing import TypeVar

from vantage.common.errors import Reason, VantageError, error
from vantage.common.workbooks import remedy_for
from vantage.node.datasets.contents import MAX_COLUMNS, Table
from vantage.node.datasets.sections import DatasetSection

T = TypeVar("T")


def table_of(dataset: DatasetSection, stopped: Event, *, count: bool) -> Table:
    """The one table of a file; of a folder the number of its files.

    Args:
        dataset: a file or folder.
        stopped: set when nobody waits any more: counting ends then, with an error.
        count: whether the rows are counted; where that costs nothing they are told anyway.

    Raises:
        RunError: DATASET_UNREADABLE.
    """
    path = dataset.path or Path()
    try:
        match dataset.format:
            case "parquet":
                return _parquet(path)
            case "csv":
                return _csv(path, stopped, count=count)
            case "excel":
                return _excel(path, dataset.sheet, stopped, count=count)
        files = _wanted(path.rglob("*"), stopped)
        return Table("", (), sum(each.is_file() for each in files) if count else None)
    except ImportError as problem:
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"looking into {dataset.format} needs {problem.name}, which is not here: pip install 'vantage[datasets]'",
        ) from None
    except Exception as problem:  # noqa: BLE001  # parsers of foreign files raise whatever they like, and may quote them
        raise _unreadable(dataset, problem) from None


def _parquet(path: Path) -> Table:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(path)
    schema = metadata.schema.to_arrow_schema()
    return Table("", tuple((each.name, str(each.type)) for each in schema)[:MAX_COLUMNS], metadata.num_rows)


def _csv(path: Path, stopped: Event, *, count: bool) -> Table:
    """Types are those of the first block, as Arrow reads them; the rows are counted block by block."""
    import pyarrow.csv

    with pyarrow.csv.open_csv(path) as reader:
        columns = tuple((each.name, str(each.type)) for each in reader.schema)[:MAX_COLUMNS]
        return Table("", columns, sum(batch.num_rows for batch in _wanted(reader, stopped)) if count else None)


def _excel(path: Path, sheet: str | None, stopped: Event, *, count: bool) -> Table:
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        chosen = book[sheet] if sheet is not None else book.worksheets[0]
        rows = chosen.iter_rows(values_only=True)
        header = next(rows, ())
        first = next(rows, None)
        kinds = [type(each).__name__ for each in first] if first is not None else [""] * len(header)
        named = ((str(name), kind) for name, kind in zip(header, kinds, strict=False) if name is not None)
        columns = tuple(itertools.islice(named, MAX_COLUMNS))
        return Table("", columns, sum(1 for _ in _wanted(rows, stopped)) + (first is not None) if count else None)
    finally:
        book.close()


def _wanted(items: Iterable[T], stopped: Event) -> Iterator[T]:
    """All of them, unless nobody waits any more: a thread cannot be cancelled, and the process ends after it."""
    for each in items:
        if stopped.is_set():
            raise TimeoutError
        yield each


def _unreadable(dataset: DatasetSection, problem: Exception) -> VantageError:
    remedy = remedy_for(dataset.path) if dataset.format == "excel" and dataset.path is not None else ""
    return error(
        Reason.DATASET_UNREADABLE,
        f"the dataset {dataset.name} is not readable as {dataset.format} ({type(problem).__name__}){remedy}",
        dataset=dataset.name,
    )
