"""Files that are not what they are said to be: a node must start all the same."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from vantage.common.errors import Reason, VantageError
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
        table_of(dataset, count=True)
    assert caught.value.reason is Reason.DATASET_UNREADABLE
    assert "Jansen" not in caught.value.message
