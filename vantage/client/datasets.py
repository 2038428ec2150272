"""What nodes say of their datasets, as far as their admins share it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DatasetTable:
    """A table of a dataset.

    Attributes:
        name: empty for a file, which is one table.
        columns: (name, type), the types in the words of the source.
        row_count: None when it is not shared.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    row_count: int | None = None


@dataclass(frozen=True)
class QueryParameter:
    """A value that a query takes.

    Attributes:
        type: "integer", "number", "string", "boolean" or "date".
        minimum: smallest value as text; empty where there is none.
        maximum: likewise.
        values: the only values; empty when others are allowed.
        max_length: most characters of a string; 0 when not limited like that.
        required: whether it must be given.
    """

    name: str
    type: str
    description: str = ""
    minimum: str = ""
    maximum: str = ""
    values: tuple[str, ...] = ()
    max_length: int = 0
    required: bool = False


@dataclass(frozen=True)
class DatasetQuery:
    """A query that a dataset answers: ask it as ``DATASET:QUERY?PARAMETER=VALUE&...``."""

    name: str
    description: str = ""
    parameters: tuple[QueryParameter, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What a node says of one of its datasets.

    Attributes:
        name: to bind it by.
        format: e.g. "csv" or "postgresql".
        description: for people.
        access: "file", "connection" or "query"; empty where the node does not say.
        tables: what is in it, where that is shared.
        queries: what it answers, where that is shared.
    """

    name: str
    format: str
    description: str = ""
    access: str = ""
    tables: tuple[DatasetTable, ...] = ()
    queries: tuple[DatasetQuery, ...] = ()
