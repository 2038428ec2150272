"""Functions, their schema, values, and the local runner."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.unit.algorithm import sample
from vantage.algorithm import AlgorithmError, Context, Database, function, local
from vantage.algorithm.functions import declare, described
from vantage.algorithm.values import decode, encode
from vantage.common.declaration import Declaration, validate_arguments
from vantage.common.errors import Reason

GOOD: dict[str, Any] = {"count": 1, "share": 1, "names": ["a"], "weights": {"a": 1.5}}


def test_declares_what_is_decorated() -> None:
    declared = declare(sample)
    assert "undeclared" not in declared.functions
    shapes = declared.function("shapes")
    assert shapes.description == "Echo arguments."
    assert shapes.arguments["required"] == ["count", "share", "names", "weights"]
    assert shapes.arguments["properties"]["count"] == {"type": "integer", "description": "how many of them."}
    assert shapes.arguments["properties"]["mode"] == {"enum": ["fast", "exact"], "default": "fast"}
    assert declared.function("central").kind == "central"
    assert [each.name for each in declared.function("rows").data] == ["df"]
    assert Declaration.parse(declared.dumps()) == Declaration.parse(declared.dump())


def test_arguments_become_their_types() -> None:
    answer = local.run(sample.shapes, {**GOOD, "window": {"low": 1}})
    assert answer == {"count": 1, "share": 1.0, "names": ["a"], "mode": "fast", "high": 10.0}


@pytest.mark.parametrize(
    "change",
    [
        {"count": 1.5},
        {"count": True},
        {"share": "1"},
        {"names": [1]},
        {"weights": {"a": "b"}},
        {"mode": "slow"},
        {"window": {}},
        {"window": {"low": 1, "more": 1}},
        {"extra": 1},
    ],
)
def test_schema_and_types_refuse_the_same(change: dict[str, Any]) -> None:
    found = described(sample.shapes)
    assert validate_arguments(found.declared, GOOD | change)
    with pytest.raises(AlgorithmError) as caught:
        found.arguments(GOOD | change)
    assert caught.value.reason is Reason.ARGUMENTS_INVALID


def test_a_type_that_json_cannot_carry_is_refused_at_once() -> None:
    def bad(value: set[int]) -> int:
        return 1

    def bare(value) -> int:  # type: ignore[no-untyped-def]
        return 1

    with pytest.raises(TypeError, match="cannot be"):
        function(bad)
    with pytest.raises(TypeError, match="type hint"):
        function(bare)


def test_values() -> None:
    value = {"nan": math.nan, "n": np.float64(1.5), "i": np.int64(2), "a": np.arange(2), "na": pd.NA, "t": (1,)}
    media_type, content = encode(value)
    assert decode(media_type, content) == {"nan": None, "n": 1.5, "i": 2, "a": [0, 1], "na": None, "t": [1]}
    assert decode(*encode(b"raw")) == b"raw"
    for wrong in ({1: 2}, object(), [math.inf], {"s": {1}}):
        with pytest.raises(AlgorithmError) as caught:
            encode(wrong)
        assert caught.value.reason is Reason.RESULT_NOT_SERIALIZABLE


def test_local_subtasks_answer_and_fail_per_organization(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("a\n1\n2\n")
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00a\x80")
    data = {"clara": {"lung": tmp_path / "good.csv"}, "hilda": {"lung": tmp_path / "bad.csv"}, "beatrix": {}}
    answer = local.run(sample.central, {"dataset": "lung"}, data)
    assert answer == {"clara": 2, "hilda": "DATASET_UNREADABLE", "beatrix": "ARGUMENTS_INVALID"}


def test_local_subtasks_read_the_files_that_they_are_sent() -> None:
    answer = local.run(sample.send, {"size": 2}, {"clara": {}, "hilda": {}})
    told = {"model": "model", "bytes": "weights", "rows": 2, "text": 2}
    assert answer == {"clara": told, "hilda": told}
    for wrong in ({"files": False}, {"more": True}):
        assert local.run(sample.send, wrong, {"clara": {}}) == {"clara": "ARGUMENTS_INVALID"}


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("object", "neither a file nor a table"),
        ("missing", "is not a file"),
        ("name", "cannot be given for 'a/b'"),
        ("both", "df: a data parameter reads"),
    ],
)
def test_files_that_cannot_be_sent_fail_the_function(what: str, text: str) -> None:
    with pytest.raises(AlgorithmError, match=text):
        local.run(sample.send_wrong, {"what": what}, {"clara": {}})


@pytest.mark.parametrize("name", ["text.xlsx", "member.xlsx", "xml.xlsx", "text.parquet", "text.arrow", "text.csv"])
def test_data_that_is_damaged_is_unreadable_whatever_its_kind(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    path.write_text('Jansen\n"Jansen')
    if name in ("member.xlsx", "xml.xlsx"):
        pd.DataFrame({"name": ["Jansen"]}).to_excel(tmp_path / "good.xlsx", index=False)
        with zipfile.ZipFile(tmp_path / "good.xlsx") as good, zipfile.ZipFile(path, "w") as damaged:
            for each in good.namelist():
                content = b"<Jansen" if name == "xml.xlsx" and "sheet1" in each else good.read(each)
                damaged.writestr(each, content, zipfile.ZIP_DEFLATED)
        if name == "member.xlsx":
            whole = bytearray(path.read_bytes())
            start = whole.index(b"xl/worksheets/sheet1.xml") + 30
            whole[start : start + 50] = bytes(50)
            path.write_bytes(whole)
    with pytest.raises(AlgorithmError) as caught:
        local.run(sample.rows, {}, {"clara": {"df": path}})
    assert caught.value.reason is Reason.DATASET_UNREADABLE
    assert "the dataset of 'df'" in caught.value.message
    assert "Jansen" not in caught.value.message
    assert "Traceback" in capsys.readouterr().err  # the node's admin sees what is wrong


def test_a_workbook_with_a_password_or_of_old_is_said_to_be_that(tmp_path: Path) -> None:
    (tmp_path / "t.xlsx").write_bytes(bytes.fromhex("d0cf11e0a1b11ae1") + bytes(4096))
    with pytest.raises(AlgorithmError, match=r"save it as \.xlsx without a password") as caught:
        local.run(sample.rows, {}, {"clara": {"df": tmp_path / "t.xlsx"}})
    assert caught.value.reason is Reason.DATASET_UNREADABLE


def test_arguments_are_json_in_the_local_runner_too() -> None:
    with pytest.raises(AlgorithmError, match="no NaN") as caught:
        local.run(sample.shapes, GOOD | {"share": math.nan}, {})
    assert caught.value.reason is Reason.ARGUMENTS_INVALID


def test_arguments_of_subtasks_become_json_as_results_do() -> None:
    data: dict[str, dict[str, Path]] = {"clara": {}}
    assert local.run(sample.computed, {"kind": "array"}, data) == "{'of': [1.5, 2.0]}"
    assert local.run(sample.computed, {"kind": "nan"}, data) == "{'of': None}"
    with pytest.raises(AlgorithmError, match=r"the subtask's arguments\.weights\.of is infinite") as caught:
        local.run(sample.computed, {"kind": "inf"}, data)
    assert caught.value.reason is Reason.ARGUMENTS_INVALID


def test_local_subtasks_answer_with_files(tmp_path: Path) -> None:
    data: dict[str, dict[str, Path]] = {"clara": {}, "hilda": {}}
    answer = local.run(sample.reports, {}, data)
    assert answer == {each: ["text/csv", "a,b\n"] for each in data}
    answer = local.run(sample.reports, {"into": str(tmp_path)}, data)
    assert answer == {each: ["text/csv", f"{each}.csv", "a,b\n"] for each in data}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["clara.csv", "hilda.csv"]


def test_local_subtasks_end_early_as_they_do_in_a_network(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text("a\n1\n2\n")
    good, none = {"lung": tmp_path / "good.csv"}, dict[str, Path]()
    data = {"beatrix": none, "clara": good, "hilda": good}
    answer = local.run(sample.enough, {"quorum": 1}, data)
    assert answer == {"beatrix": "ARGUMENTS_INVALID", "clara": 2, "hilda": "QUORUM_REACHED"}
    answer = local.run(sample.enough, {"quorum": 0, "cancel_rest": True}, data)
    assert answer == {"beatrix": "ARGUMENTS_INVALID", "clara": "OTHER_RUN_FAILED", "hilda": "OTHER_RUN_FAILED"}
    with pytest.raises(AlgorithmError, match="a quorum is at most as many as are asked"):
        local.run(sample.enough, {"quorum": 4}, data)


def test_hosts_and_databases_are_declared() -> None:
    @function(egress=["API.example.org:443"])
    def both(ctx: Context, db: Database) -> int:
        return 1

    declared = described(both).declared
    assert declared.egress == ("api.example.org:443",)
    assert [each.name for each in declared.data] == ["db"]
    assert described(both).data == {"db": "database"}
    with pytest.raises(TypeError, match="HOST:PORT"):
        function(egress=["api.example.org"])(lambda: None)


def test_a_database_by_its_url_shows_no_password() -> None:
    database = Database.at("postgresql://me:a%3Ab@localhost/registry?cdm_schema=cdm")
    assert (database.address, database.username, database.password) == (("localhost", 5432), "me", "a:b")
    assert (database.database, database.cdm_schema) == ("registry", "cdm")
    assert database.url == "postgresql://me:a%3Ab@localhost:5432/registry"
    assert "a:b" not in repr(database)
    environment = database.environment()
    assert "a:b" not in environment.values()
    file = Path(environment["PGPASSFILE"])
    assert file.read_text() == "localhost:5432:registry:me:a\\:b\n"
    assert file.stat().st_mode & 0o777 == 0o600
    with pytest.raises(ValueError):
        Database.at("mysql://me@localhost:3306/x").environment()


def test_tools(tmp_path: Path) -> None:
    def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vantage.algorithm", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
        )

    path = tmp_path / "d.csv"
    path.write_text("a\n1\n")
    assert Declaration.parse(tool("declare", "sample").stdout).functions.keys() == declare(sample).functions.keys()
    assert json.loads(tool("run", "sample", "rows", "--data", f"clara:df={path}").stdout) == 1
    assert tool("run", "sample", "rows").returncode == 1
    assert tool("run", "sample", "rows", "--data", "nonsense").returncode == 2
