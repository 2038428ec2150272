"""What is in a dataset, as a catalogue tells it."""

from __future__ import annotations

from dataclasses import dataclass

MAX_TABLES = 200
MAX_COLUMNS = 1_000


@dataclass(frozen=True)
class Table:
    """A table of a dataset; that of a file has no name.

    Attributes:
        columns: (name, type), the types in the words of the source.
        rows: None when they were not counted.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    rows: int | None = None


@dataclass(frozen=True)
class Rights:
    """What the role of a database may do beyond reading.

    Attributes:
        writes: why it can change something; empty when it cannot, as far as the database's catalogue tells.
        advice: what is missing in the role's own limits.
    """

    writes: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
