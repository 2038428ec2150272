"""What people type for a task."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import click
import pytest

from vantage.client import Target
from vantage.client.cli.asking import DurationType, parse_arguments, parse_targets


def test_arguments_come_from_the_line_a_file_or_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert parse_arguments('{"columns": ["age"]}') == {"columns": ["age"]}
    (tmp_path / "ask.json").write_text('{"a": "é"}', "utf-8")
    assert parse_arguments(f"@{tmp_path / 'ask.json'}") == {"a": "é"}
    with (tmp_path / "ask.json").open(encoding="utf-8") as file:
        monkeypatch.setattr("sys.stdin", file)
        assert parse_arguments("@-") == {"a": "é"}


def test_a_large_file_is_left_to_the_client(tmp_path: Path) -> None:
    path = tmp_path / "large.json"
    path.write_text(json.dumps({"text": "x" * 2_000_000}))
    assert parse_arguments(f"@{path}") == path


def test_files_for_all_and_for_one() -> None:
    targets, _common, files = parse_targets(["clara", "hilda"], [], [], ["model=a=b.bin", "hilda:model=c.bin"])
    assert files == {"model": Path("a=b.bin")}
    assert targets == [Target("clara"), Target("hilda", files={"model": Path("c.bin")})]
    with pytest.raises(click.UsageError, match=r"--file must have the form PARAM=PATH"):
        parse_targets(["clara"], [], [], ["model"])
    with pytest.raises(click.UsageError, match="not asked"):
        parse_targets(["clara"], [], [], ["hilda:model=c.bin"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("columns", "write @FILE"),
        ("{'a': 1}", "is not JSON"),
        ("[1]", "must be a JSON object"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "--arguments has a key twice"),
        ('{"a": [NaN]}', "has NaN, which JSON does not have"),
        ('{"a": -Infinity}', "has -Infinity, which JSON does not have"),
        ('{"a": 1e999}', "has 1e999, which is too large"),
        ("@/nowhere/ask.json", "cannot read /nowhere/ask.json"),
    ],
)
def test_malformed_arguments_are_said(text: str, why: str) -> None:
    with pytest.raises(click.UsageError, match=why):
        parse_arguments(text)


def test_a_file_that_is_no_text_is_said(tmp_path: Path) -> None:
    (tmp_path / "ask.json").write_bytes(b"\xff\xfe")
    with pytest.raises(click.UsageError, match="UTF-8"):
        parse_arguments(f"@{tmp_path / 'ask.json'}")


def test_targets_with_what_differs_for_each() -> None:
    targets, common, _files = parse_targets(
        ["clara", "organizations/hilda/nodes/hilda-2", "beatrix/beatrix-1"],
        ["df=lung", "ref=codes", "hilda:df=lung-2024"],
        ['beatrix={"min_count": 20}'],
    )
    assert common == {"df": "lung", "ref": "codes"}
    assert targets == [
        Target("clara"),
        Target("hilda", node="hilda-2", datasets={"df": "lung-2024", "ref": "codes"}),
        Target("beatrix", node="beatrix-1", arguments={"min_count": 20}),
    ]


@pytest.mark.parametrize(
    ("organizations", "datasets", "overrides", "why"),
    [
        (["clara", "clara/clara-1"], [], [], "twice"),
        (["clara"], ["df"], [], "PARAM=DATASET"),
        (["clara"], ["df="], [], "PARAM=DATASET"),
        (["clara"], ["clara:=lung"], [], "PARAM=DATASET"),
        (["clara"], ["hilda:df=lung"], [], "not asked"),
        (["clara"], [], ["hilda={}"], "not asked"),
        (["clara"], [], ["clara"], "ORGANIZATION=JSON"),
        (["clara"], [], ["clara=[]"], "--arguments-for clara must be a JSON object"),
    ],
)
def test_malformed_targets_are_said(
    organizations: list[str], datasets: list[str], overrides: list[str], why: str
) -> None:
    with pytest.raises(click.UsageError, match=why):
        parse_targets(organizations, datasets, overrides)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("1.5h", 5400), ("30m", 1800), ("7d", 604_800)])
def test_durations(text: str, seconds: float) -> None:
    assert DurationType().convert(text, None, None) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "90", "-5s", "1h30m", "s", "nan", "999999999d", "99999999999999d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is not a duration"):
        DurationType().convert(text, None, None)
