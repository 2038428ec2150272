"""Files that are not what they are said to be: a node must start all the same."""

from __future__ import annotations

import asyncio
import zipfile
from pathlib import Path
from threading import Event

import openpyxl
import pytest

from vantage.common.errors import Reason, VantageError
from vantage.node.datasets import catalogue
from vantage.node.datasets.asking import Asker
from vantage.node.datasets.contents import Table
from vantage.node.datasets.files import table_of
from vantage.node.datasets.sections import DatasetSection


def zipped(path: Path, **members: str) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name.replace("__", "/") + ".xml", content)


@pytest.mark.parametrize(
    "name", ["empty.csv", "text.parquet", "text.xlsx", "old.xls", "zip.xlsx", "xml.xlsx", "absent.csv"]
)
def test_a_file_that_is_damaged_is_unreadable_and_nothing_worse(tmp_path: Path, name: str) -> None:
    for each in ("empty.csv", "old.xls"):
        (tmp_path / each).write_bytes(b"")
    for each in ("text.parquet", "text.xlsx"):
        (tmp_path / each).write_text("name Jansen")
    zipped(tmp_path / "zip.xlsx", other="")
    zipped(tmp_path / "xml.xlsx", **{"[Content_Types]": "<Jansen"})
    kind = {"csv": "csv", "parquet": "parquet"}.get(name.partition(".")[2], "excel")
    dataset = DatasetSection.model_validate({"name": "damaged", "format": kind, "path": tmp_path / name})
    with pytest.raises(VantageError) as caught:
        table_of(dataset, Event(), count=True)
    assert caught.value.reason is Reason.DATASET_UNREADABLE
    assert "Jansen" not in caught.value.message


def test_a_workbook_with_a_password_or_of_old_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(4096))
    dataset = DatasetSection.model_validate({"name": "old", "format": "excel", "path": tmp_path / "t.xlsx"})
    with pytest.raises(VantageError, match=r"save it as \.xlsx without a password"):
        table_of(dataset, Event(), count=True)


def filled(directory: Path, kind: str) -> DatasetSection:
    """A file, or folder, with two rows."""
    path = directory / kind
    match kind:
        case "csv":
            path.write_text("age\n61\n74\n")
        case "folder":
            path.mkdir()
            for each in "ab":
                (path / each).touch()
        case _:
            book = openpyxl.Workbook()
            for row in (("age", None, "name"), (61, 1.5, "Anna"), (74, 2.5, "Bo")):
                book.active.append(row)
            path = path.with_suffix(".xlsx")
            book.save(path)
    return DatasetSection.model_validate({"name": "two", "format": kind, "path": path})


@pytest.mark.parametrize("kind", ["csv", "excel", "folder"])
def test_rows_are_counted_when_they_are_asked_for_and_while_somebody_waits(tmp_path: Path, kind: str) -> None:
    dataset, stopped = filled(tmp_path, kind), Event()
    assert [table_of(dataset, stopped, count=count).rows for count in (True, False)] == [2, None]
    stopped.set()
    with pytest.raises(VantageError):
        table_of(dataset, stopped, count=True)


def test_a_column_of_a_sheet_without_a_name_does_not_shift_the_types(tmp_path: Path) -> None:
    found = table_of(filled(tmp_path, "excel"), Event(), count=False)
    assert found.columns == (("age", "int"), ("name", "str"))


async def test_a_thread_that_counts_is_told_when_nobody_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def slow(_dataset: DatasetSection, stopped: Event, *, count: bool) -> Table:
        told.append(stopped.wait(10))
        return Table("", (), None)

    monkeypatch.setattr(catalogue, "table_of", slow)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await catalogue.tables_of(Asker(1), filled(tmp_path, "csv"), count=True)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert told == [True]
