"""What a node tells of its datasets, and to whom."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from google.protobuf import json_format

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.node.datasets.test_connections import offer
from tests.node.datasets.test_queries import QUERIES
from vantage.node.cli import node
from vantage.testing.postgres import Postgres
from vantage.testing.station import Station, assign, send

pytestmark = pytest.mark.postgresql


def files(station: Station, share: str) -> None:
    directory = station.directory
    pq.write_table(pa.table({"age": [61, 74], "name": ["a", "b"]}), directory / "t.parquet")
    book = openpyxl.Workbook()
    book.active.title = "first"
    sheet = book.create_sheet("second")
    for row in (("age", "name"), (61, "Anna"), (74, "Bo"), (35, "Cy")):
        sheet.append(row)
    book.save(directory / "t.xlsx")
    (directory / "images" / "a").mkdir(parents=True)
    (directory / "images" / "a" / "1.png").write_bytes(b"1")
    (directory / "images" / "2.png").write_bytes(b"2")
    station.settings["datasets"] += [
        {"name": "table", "format": "parquet", "path": "t.parquet", "share": share},
        {"name": "book", "format": "excel", "path": "t.xlsx", "sheet": "second", "share": share},
        {"name": "images", "format": "folder", "path": "images", "share": share},
    ]


async def told(station: Station) -> dict[str, Any]:
    async with station.running():
        session = await station.session()
        found = {each.name: json_format.MessageToDict(each) for each in session.hello.datasets}
        send(session, assign("count", "{}", datasets={"table": "no-such"}))
        refused = (await session.receive("refused")).refused.failure
        assert refused.reason == "DATASET_UNKNOWN"
        assert ("hidden" in refused.message) == ("hidden" in found)
    return found


async def test_no_more_is_told_than_each_dataset_shares(station: Station, postgres: Postgres) -> None:
    files(station, "counts")
    postgres.sql('CREATE TABLE "a ""table"". of 2" (n integer); GRANT SELECT ON "a ""table"". of 2" TO reader')
    lung = station.settings["datasets"][0]
    station.settings["datasets"].append(lung | {"name": "schema", "share": "schema"})
    station.settings["datasets"].append(lung | {"name": "hidden", "share": "none"})
    offer(station, postgres, name="asked", access="query", queries=QUERIES, share="counts", description="All cases")
    offer(station, postgres, name="whole", share="counts")
    offer(station, postgres, name="away", url="postgresql://reader@127.0.0.1:1/registry", share="counts")
    found = await told(station)
    columns = [{"name": "time", "type": "int64"}, {"name": "status", "type": "int64"}]
    assert found.pop("lung") == {"name": "lung", "format": "csv", "access": "file"}
    assert found.pop("schema")["tables"] == [{"columns": columns}]
    assert found.pop("table")["tables"] == [
        {"columns": [{"name": "age", "type": "int64"}, {"name": "name", "type": "string"}], "rowCount": "2"}
    ]
    assert found.pop("book")["tables"] == [
        {"columns": [{"name": "age", "type": "int"}, {"name": "name", "type": "str"}], "rowCount": "3"}
    ]
    assert found.pop("images")["tables"] == [{"rowCount": "2"}]
    asked = found.pop("asked")
    assert (asked["access"], asked["description"], "tables" in asked) == ("query", "All cases", False)
    assert asked["queries"][0] == {
        "name": "adults",
        "parameters": [
            {"name": "min_age", "type": "integer", "minimum": "0", "maximum": "120"},
            {"name": "sexes", "type": "string", "maxLength": 10},
        ],
    }
    postgres.sql('DROP TABLE "a ""table"". of 2"')
    odd, cases = found.pop("whole")["tables"]  # and not the one that the role may not read
    assert (odd["name"], odd["rowCount"]) == ('public.a "table". of 2', "0")
    assert (cases["name"], cases["rowCount"], len(cases["columns"])) == ("public.cases", "25000", 6)
    assert found.pop("away") == {"name": "away", "format": "postgresql", "access": "connection"}
    assert found == {}


def inspect(station: Station, name: str) -> Any:
    return CliRunner().invoke(node, ["dataset", "inspect", name, "--config", str(station.config_path)])


def test_an_admin_looks_into_a_dataset(station: Station, postgres: Postgres) -> None:
    files(station, "none")
    offer(station, postgres)
    offer(station, postgres, role="writer", name="unsafe")
    offer(station, postgres, access="query", queries=QUERIES | {"typo": "SELECT :nothing"}, name="asked")
    (station.directory / "wrong").write_text("something else")
    offer(station, postgres, name="wrong", password_file="wrong")
    station.write()
    listed = CliRunner().invoke(node, ["dataset", "list", "--config", str(station.config_path)])
    assert "registry  postgresql  connection  the server is told: name, format, description" in listed.output
    assert "table  parquet  file  the server is told: not told" in listed.output
    good = inspect(station, "registry")
    assert (good.exit_code, "public.cases  25000 rows" in good.output, "advice" in good.output) == (0, True, False)
    assert "2 files" in inspect(station, "images").output
    unsafe = inspect(station, "unsafe")
    assert unsafe.exit_code == 1
    assert "the role is no reader: it may change cases" in unsafe.output
    assert "ALTER ROLE writer SET default_transaction_read_only = on" in unsafe.output
    typo = inspect(station, "asked")
    assert (typo.exit_code, "the query typo has places for nothing" in typo.output) == (1, True)
    checked = CliRunner().invoke(node, ["check", "--config", str(station.config_path)])
    assert checked.exit_code == 2
    assert "dataset asked: the query typo has places for nothing" in checked.output
    wrong = inspect(station, "wrong")
    assert "password authentication failed" in wrong.output
    assert postgres.password not in wrong.output + unsafe.output
    assert inspect(station, "no-such").exit_code == 2
