"""Datasets as the command line shows them."""

from __future__ import annotations

from vantage.client.cli.datasets import COLUMNS, Offer
from vantage.client.datasets import Dataset, DatasetTable


def test_only_a_dataset_of_one_table_has_a_number_of_rows() -> None:
    (rows,) = (each for each in COLUMNS if each.title == "ROWS")
    tables = DatasetTable("", (), 3), DatasetTable("visits", (), 5), DatasetTable("doses", ())

    def shown(*chosen: DatasetTable) -> str:
        return rows.of(Offer("organizations/clara/nodes/clara-1", Dataset("lung", "csv", tables=chosen)))

    assert [shown(tables[0]), shown(*tables), shown(tables[2]), shown()] == ["3", "", "", ""]
