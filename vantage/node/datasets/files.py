"""What is in a file or folder: its columns with their types, and how many rows it has. Blocks: call it on a thread."""

from __future__ import annotations

import itertools
from pathlib import Path

from vantage.common.errors import Reason, VantageError, error
from vantage.node.datasets.contents import MAX_COLUMNS, Table
from vantage.node.datasets.sections import DatasetSection


def table_of(dataset: DatasetSection, *, count: bool) -> Table:
    """The one table of a file; of a folder the number of its files.

    Raises:
        RunError: DATASET_UNREADABLE.
    """
    path = dataset.path or Path()
    try:
        match dataset.format:
            case "parquet":
                return _parquet(path)
            case "csv":
                return _csv(path, count=count)
            case "excel":
                return _excel(path, dataset.sheet)
        return Table("", (), sum(each.is_file() for each in path.rglob("*")) if count else None)
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


def _csv(path: Path, *, count: bool) -> Table:
    """Types are those of the first block, as Arrow reads them; the rows are counted block by block."""
    import pyarrow.csv

    with pyarrow.csv.open_csv(path) as reader:
        columns = tuple((each.name, str(each.type)) for each in reader.schema)[:MAX_COLUMNS]
        return Table("", columns, sum(batch.num_rows for batch in reader) if count else None)


def _excel(path: Path, sheet: str | None) -> Table:
    import openpyxl

    book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    try:
        chosen = book[sheet] if sheet is not None else book.worksheets[0]
        rows = chosen.iter_rows(values_only=True)
        names = [str(each) for each in next(rows, ()) if each is not None]
        first = next(rows, None)
        kinds = [type(each).__name__ for each in first] if first is not None else [""] * len(names)
        columns = tuple(itertools.islice(zip(names, kinds, strict=False), MAX_COLUMNS))
        return Table("", columns, sum(1 for _ in rows) + (first is not None))
    finally:
        book.close()


def _unreadable(dataset: DatasetSection, problem: Exception) -> VantageError:
    return error(
        Reason.DATASET_UNREADABLE,
        f"the dataset {dataset.name} is not readable as {dataset.format} ({type(problem).__name__})",
        dataset=dataset.name,
    )
