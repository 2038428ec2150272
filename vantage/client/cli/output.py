"""What commands print: tables for people, JSON for programs.

A noun says once which columns it has; lists, single things and JSON follow from that. Answers go to stdout, everything
else to stderr. Texts that came from elsewhere lose their control characters before a terminal sees them.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import click

from vantage.common.text import escaped, printable


class Column(NamedTuple):
    """One column of a table, or one line about a single thing.

    Attributes:
        title: heading.
        value: the value of a thing: name of its attribute, or a function of it.
        wide: only shown for a single thing, not in a table.
    """

    title: str
    value: str | Callable[[Any], object]
    wide: bool = False

    def of(self, item: object) -> str:
        """The text for a thing."""
        found = getattr(item, self.value) if isinstance(self.value, str) else self.value(item)
        return text(found)


class Output:
    """Prints the answer of one command.

    Args:
        form: "table" or "json".
    """

    def __init__(self, form: str = "table") -> None:
        self.is_json = form == "json"

    def table(self, items: Iterable[object], columns: Sequence[Column], *, none: str = "none") -> None:
        """Print a list; ``none`` is said (on stderr) when it is empty."""
        if self.is_json:
            _write_array(items)
            return
        shown = [column for column in columns if not column.wide]
        rows = [[column.of(item) for column in shown] for item in items]
        if not rows:
            self.note(none)
            return
        self.rows([column.title for column in shown], rows)

    def item(self, item: object, columns: Sequence[Column]) -> None:
        """Print one thing, a line per column."""
        if self.is_json:
            self.document(item)
            return
        lines = [(column.title, printable(column.of(item))) for column in columns]
        width = max(len(title) for title, _value in lines)
        for title, value in lines:
            first, *rest = value.splitlines() or [""]
            click.echo(f"{title:<{width}}  {first}".rstrip())
            for line in rest:
                click.echo(f"{'':<{width}}  {line}")

    def done(self, sentence: str, item: object) -> None:
        """Say that something was done: the sentence for people, the thing for programs."""
        if self.is_json:
            self.document(item)
        else:
            click.echo(printable(sentence))

    def document(self, item: object) -> None:
        """Print one JSON document."""
        click.echo(_dumps(item))

    def rows(self, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table: within the terminal's width, or, into a file or pipe, each row on one line."""
        if sys.stdout.isatty():
            _draw(titles, rows)
            return
        lines = [list(titles), *([printable(cell).replace("\n", "; ") for cell in row] for row in rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip())

    def note(self, sentence: str) -> None:
        """Tell a person something beside the answer."""
        click.echo(printable(sentence), err=True)


def _draw(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console(file=sys.stdout, highlight=False).print(table)


def text(value: object) -> str:
    """A value as a cell shows it."""
    match value:
        case None | "":
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone().isoformat(" ", "seconds")
        case enum.Enum():
            return value.name.lower()
        case str():
            return value
        case Mapping():
            return _dumps(value, indent=None)
        case list() | tuple() | set() | frozenset():
            return ", ".join(text(each) for each in value)
    return str(value)


def plain(value: object) -> Any:
    """A value as JSON has it.

    Dataclasses become objects of the fields that they show of themselves, moments ISO 8601, durations seconds, enums
    their names, bytes base64; numbers that JSON does not have (NaN, infinity) null.
    """
    match value:
        case enum.Enum():
            return value.name
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return {str(key): plain(each) for key, each in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(each) for each in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value) if field.repr}
    return str(value)


def _dumps(value: object, indent: int | None = 2) -> str:
    return escaped(json.dumps(plain(value), indent=indent, ensure_ascii=False, allow_nan=False))


def _write_array(items: Iterable[object]) -> None:
    """A JSON array, element by element: a long list is not held in memory."""
    iterator: Iterator[object] = iter(items)
    first = next(iterator, None)
    if first is None:
        click.echo("[]")
        return
    click.echo("[")
    click.echo(_indented(first), nl=False)
    for item in iterator:
        click.echo(",")
        click.echo(_indented(item), nl=False)
    click.echo("\n]")


def _indented(item: object) -> str:
    return "\n".join(f"  {line}" for line in _dumps(item).splitlines())
