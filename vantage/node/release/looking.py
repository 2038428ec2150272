"""Looks into a result as the rules say, and writes it anew, so that nothing leaves but what was looked at. Pure.

Formats: JSON, CSV (UTF-8, first line names), Arrow streams and Parquet files. pyarrow is imported for the last two.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from vantage.common import strict_json
from vantage.common.unique_keys import RepeatedKeyError
from vantage.node.release.paths import Path, fits, leaves, steps, uncounted

JSON = "application/json"
CSV = "text/csv"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
READABLE = frozenset({JSON, CSV, ARROW, PARQUET})


@dataclass(frozen=True)
class Look:
    """What a rule wants to know of a result.

    Attributes:
        columns: patterns of what may be in it; None when anything may.
        counts: patterns of values that say how many persons something is about.
        minimum: the least that they may be.
        suppress: whether what is about fewer is blanked; otherwise the whole result stays.
    """

    columns: tuple[str, ...] | None = None
    counts: tuple[str, ...] = ()
    minimum: int = 0
    suppress: bool = False


class WithheldError(Exception):
    """The result must not leave.

    Args:
        why: for the researcher; names fields by the rule's own patterns, never by what was found.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def bare_type(media_type: str) -> str:
    """A media type without its parameters, in lower case."""
    return media_type.partition(";")[0].strip().lower()


def look(media_type: str, content: bytes, looks: Sequence[Look]) -> tuple[bytes, int]:
    """Check a result.

    Returns:
        The result written anew, and how many parts of it were blanked.

    Raises:
        WithheldError: a rule does not let it out, or it cannot be read.
    """
    kind = bare_type(media_type)
    if kind == JSON:
        document = _read_json(content)
        # All look at what was there: what one blanks, the next would miss.
        places = {place for each in looks for place in _small_places(document, each)}
        blanked = sum(_blank(document, place) for place in sorted(places))
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode(), blanked
    if kind == CSV:
        header, rows = _read_csv(content)
        small = {number for each in looks for number in _small_rows(header, rows, each)}
        kept = [[""] * len(header) if number in small else row for number, row in enumerate(rows)]
        return _write_csv(header, kept), len(small)
    if kind not in READABLE:
        # What type it is, is the algorithm's own text.
        _withhold(f"a result of its type cannot be looked into; of these it can: {', '.join(sorted(READABLE))}")
    from vantage.node.release import tables

    return tables.look(kind, content, looks)


def _withhold(why: str) -> NoReturn:
    raise WithheldError(why)


# JSON


def _read_json(content: bytes) -> Any:
    try:
        return strict_json.loads(content.decode())
    except RepeatedKeyError:
        _withhold("it has a key twice")
    except strict_json.NotANumberError:
        _withhold("it has a number that JSON does not have")
    except (ValueError, RecursionError):
        _withhold("it is not readable JSON")


def _small_places(document: Any, rule: Look) -> list[Path]:
    if rule.columns is not None:
        patterns = [steps(each) for each in rule.columns]
        for path, _value in leaves(document):
            if not any(fits(pattern, path) for pattern in patterns):
                _withhold("it holds a field that the node does not let out")
    places = []
    for text in rule.counts:
        pattern = steps(text)
        found = [(path, value) for path, value in leaves(document) if fits(pattern, path)]
        if not found:
            _withhold(f"it has no count {text}, which the node looks at")
        # A count with a name speaks for the object that holds it; one of many counts for itself.
        small = [
            path if pattern[-1:] == ("*",) else path[:-1] for path, value in found if not is_enough(value, rule.minimum)
        ]
        small += uncounted(document, pattern)
        if not all(place and rule.suppress for place in small):
            _withhold(f"the count {text} is below {rule.minimum}, missing, or not a number")
        places += small
    return places


def is_enough(value: object, minimum: int) -> bool:
    """Whether a count may leave. One that is missing, or no number, is not known to be large enough."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= minimum


def _blank(document: Any, path: Path) -> int:
    """Put null at a place; returns whether that changed anything: what is around it may be blank already."""
    holder = document
    for step in path[:-1]:
        holder = holder[int(step)] if isinstance(holder, list) else holder[step]
        if holder is None:
            return 0
    last: Any = int(path[-1]) if isinstance(holder, list) else path[-1]
    was, holder[last] = holder[last], None
    return int(was is not None)


# CSV


def _read_csv(content: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (ValueError, csv.Error):
        _withhold("it is not readable CSV")
    if not rows:
        _withhold("it has no line with names")
    header, rest = rows[0], [row for row in rows[1:] if row]
    if len(set(header)) != len(header):
        _withhold("it has two columns of one name")
    if any(len(row) != len(header) for row in rest):
        _withhold("its lines have different numbers of values")
    return header, rest


def _write_csv(header: list[str], rows: Iterable[list[str]]) -> bytes:
    text = io.StringIO(newline="")
    # A value with a line break of any kind must be quoted, or it is another row for whoever reads it; the writer of
    # Python 3.11 looks only for those that its own line breaks consist of.
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue().encode()


def _small_rows(header: list[str], rows: list[list[str]], rule: Look) -> set[int]:
    check_names(header, rule)
    small: set[int] = set()
    for index in counted(header, rule):
        small.update(number for number, row in enumerate(rows) if not is_enough(_number(row[index]), rule.minimum))
    if small and not rule.suppress:
        _withhold(f"a count in {', '.join(rule.counts)} is below {rule.minimum}, or is not a number")
    return small


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return None if math.isnan(value) else value


# Tables of any kind


def check_names(names: Sequence[str], rule: Look) -> None:
    """See that a table has no column that the rule does not allow.

    Raises:
        WithheldError: it has one.
    """
    if rule.columns is None:
        return
    patterns = [steps(each) for each in rule.columns]
    if not all(any(fits(pattern, (name,)) for pattern in patterns) for name in names):
        _withhold("it has a column that the node does not let out")


def counted(names: Sequence[str], rule: Look) -> list[int]:
    """Positions of the columns that hold counts.

    Raises:
        WithheldError: a pattern fits none.
    """
    found: set[int] = set()
    for text in rule.counts:
        fitting = {index for index, name in enumerate(names) if fits(steps(text), (name,))}
        if not fitting:
            _withhold(f"it has no count {text}, which the node looks at")
        found |= fitting
    return sorted(found)
