"""What is printed: one shape for people, one for programs, and nothing that steers a terminal."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from vantage.client.cli.output import Column, Output


class Colour(enum.StrEnum):
    RED = "RED"


@dataclass(frozen=True)
class Thing:
    name: str
    many: tuple[str, ...] = ()
    when: datetime | None = None
    colour: Colour = Colour.RED
    number: float = 1.5
    hidden: bytes = field(default=b"x", repr=False)


COLUMNS = (
    Column("NAME", "name"),
    Column("MANY", "many"),
    Column("COLOUR", "colour"),
    Column("WIDE", "number", wide=True),
)


def test_a_list_is_a_table_or_an_array(capsys: pytest.CaptureFixture[str]) -> None:
    things = [Thing("a" * 120, ("x", "y")), Thing("b")]
    Output().table(things, COLUMNS)
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["NAME", "MANY", "COLOUR"]
    assert first.split() == ["a" * 120, "x,", "y", "red"]
    assert second.split() == ["b", "red"]
    Output("json").table(iter(things), COLUMNS)
    assert json.loads(capsys.readouterr().out) == [
        {"name": "a" * 120, "many": ["x", "y"], "when": None, "colour": "RED", "number": 1.5},
        {"name": "b", "many": [], "when": None, "colour": "RED", "number": 1.5},
    ]


def test_an_empty_list_says_so_beside_the_answer(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table([], COLUMNS, none="nothing here")
    assert capsys.readouterr() == ("", "nothing here\n")
    Output("json").table([], COLUMNS)
    assert json.loads(capsys.readouterr().out) == []


def test_one_thing_shows_all_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Output().item(Thing("a", ("x", "y")), (*COLUMNS, Column("LINES", lambda _item: "1\n2")))
    assert capsys.readouterr().out.splitlines() == [
        "NAME    a",
        "MANY    x, y",
        "COLOUR  red",
        "WIDE    1.5",
        "LINES   1",
        "        2",
    ]


def test_json_has_what_json_can_have(capsys: pytest.CaptureFixture[str]) -> None:
    moment = datetime(2026, 11, 1, 12, tzinfo=UTC)
    Output("json").document(
        {"when": moment, "long": timedelta(minutes=1), "bytes": b"ab", "none": float("nan"), "letter": "é"}
    )
    out = capsys.readouterr().out
    assert json.loads(out) == {
        "when": "2026-11-01T12:00:00+00:00",
        "long": 60.0,
        "bytes": "YWI=",
        "none": None,
        "letter": "é",
    }
    assert "é" in out


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x9b2J", "\r", "\u202e", "\x07"])
def test_texts_from_elsewhere_do_not_steer_the_terminal(evil: str, capsys: pytest.CaptureFixture[str]) -> None:
    thing = Thing(f"a{evil}b", (f"c{evil}",))
    Output().table([thing], COLUMNS)
    Output().item(thing, COLUMNS)
    Output().done(f"made {thing.name}", thing)
    Output().note(thing.name)
    written = capsys.readouterr()
    assert evil not in written.out + written.err
    assert "a�" in written.out
    Output("json").document(thing)
    out = capsys.readouterr().out
    assert evil not in out
    assert json.loads(out)["name"] == thing.name
