"""Datasets in a node's configuration: files, folders, and services with what may be asked of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, model_validator

from vantage.node.fields import Bytes, CollaborationName, Seconds, Section

DATASET_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
QUERY_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
MAX_VALUES = 1_000
MAX_TEXT = 10_000

Format = Literal["csv", "parquet", "excel", "folder", "postgresql", "omop", "sql", "sparql"]
FILES = frozenset({"csv", "parquet", "excel", "folder"})
POSTGRESQL = frozenset({"postgresql", "omop"})

_PORTS = {"postgresql": 5432, "omop": 5432}


class ParameterSection(Section):
    """A value that a question gives to a query: of one type, and within bounds."""

    type: Literal["integer", "number", "string", "boolean", "date"]
    minimum: int | float | date | None = None
    maximum: int | float | date | None = None
    values: tuple[str, ...] | None = Field(default=None, min_length=1, max_length=MAX_VALUES)
    max_length: int | None = Field(default=None, ge=1, le=MAX_TEXT)
    default: bool | int | float | date | str | None = None
    description: str = ""

    @model_validator(mode="after")
    def _bounded(self) -> ParameterSection:
        ranged = self.minimum is not None and self.maximum is not None
        if self.type in ("integer", "number", "date"):
            if not ranged:
                raise ValueError(f"a parameter of the type {self.type} needs minimum and maximum")
            kind = date if self.type == "date" else int | float
            if not isinstance(self.minimum, kind) or not isinstance(self.maximum, kind):
                raise ValueError(f"minimum and maximum must be of the type {self.type}")
            if self.minimum > self.maximum:  # type: ignore[operator]  # both of one kind
                raise ValueError("minimum must not be above maximum")
        elif self.minimum is not None or self.maximum is not None:
            raise ValueError("minimum and maximum go with integer, number and date")
        if (self.values is not None or self.max_length is not None) and self.type != "string":
            raise ValueError("values and max_length go with string")
        if self.type == "string" and (self.values is None) == (self.max_length is None):
            raise ValueError("a parameter of the type string needs either values or max_length")
        return self


class QuerySection(Section):
    """A question that the node asks on behalf of a run: a text with places for parameters."""

    query: str = Field(min_length=1, max_length=100_000)
    parameters: dict[str, ParameterSection] = Field(default_factory=dict)
    description: str = ""

    @model_validator(mode="after")
    def _named(self) -> QuerySection:
        for name in self.parameters:
            if not name.isidentifier():
                raise ValueError(f"the parameter {name!r} must be an identifier: letters, digits and '_'")
        return self


def _short_form(value: object) -> object:
    """A query without parameters may be its text alone."""
    return {"query": value} if isinstance(value, str) else value


Query = Annotated[QuerySection, BeforeValidator(_short_form)]


class DatasetSection(Section):
    """Something that algorithms may read.

    A file or folder has a ``path``. A service has a ``url``, which names the role but never its password, and is
    reached in one of two ways: ``access: query`` (the node asks one of ``queries`` and hands over the answer) or
    ``access: connection`` (the run gets the credentials and a connection).
    """

    _KEYS: ClassVar[dict[str, frozenset[str]]] = {
        "path": FILES,
        "sheet": frozenset({"excel"}),
        **dict.fromkeys(
            ("url", "password_file", "access", "queries", "timeout", "max_rows", "max_bytes"),
            POSTGRESQL | {"sql", "sparql"},
        ),
        **dict.fromkeys(("cdm_schema", "cdm_version"), frozenset({"omop"})),
    }
    """Key -> formats that it goes with; the others go with all."""

    name: str
    format: Format
    path: Path | None = None
    sheet: str | None = None
    url: str | None = None
    password_file: Path | None = None
    access: Literal["query", "connection"] = "query"
    queries: dict[str, Query] = Field(default_factory=dict)
    timeout: Seconds = 60
    max_rows: int = Field(default=1_000_000, ge=1)
    max_bytes: Bytes = 1024**3
    cdm_schema: str = Field(default="cdm", pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")
    cdm_version: str = Field(default="5.4", pattern=r"^\d+(\.\d+){0,2}$")
    collaborations: tuple[CollaborationName, ...] | None = None
    description: str = Field(default="", max_length=500)
    share: Literal["none", "name", "schema", "counts"] = "name"

    @model_validator(mode="after")
    def _consistent(self) -> DatasetSection:
        if DATASET_NAME.fullmatch(self.name) is None:
            raise ValueError("name must have 1 to 63 lower-case letters, digits, '.', '_' and '-'")
        for key in self.model_fields_set:
            formats = self._KEYS.get(key)
            if formats is not None and self.format not in formats:
                raise ValueError(f"{key} goes with {', '.join(sorted(formats))}, not with {self.format}")
        if self.is_service:
            self._check_service()
        elif self.path is None:
            raise ValueError(f"the format {self.format} needs a path")
        return self

    def _check_service(self) -> None:
        if not self.url:
            raise ValueError(f"the format {self.format} needs a url")
        try:
            parts = self.parts
            port = parts.port
        except ValueError:
            raise ValueError("url is not one: write e.g. postgresql://reader@db.example.org/registry") from None
        if parts.password is not None:
            raise ValueError("url must not hold the password: put it into a file and name that with password_file")
        scheme = parts.scheme.partition("+")[0]
        if self.format in POSTGRESQL and (scheme != "postgresql" or not parts.hostname):
            raise ValueError("url must be like postgresql://reader@db.example.org/registry")
        if self.format == "sparql" and (scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("url must be that of a SPARQL endpoint, http:// or https://")
        if self.access == "query":
            if not self.queries:
                raise ValueError("access: query needs queries; access: connection hands out the database itself")
        else:
            if self.format == "sparql":
                raise ValueError("a SPARQL endpoint is asked by the node: access: query")
            if self.queries:
                raise ValueError("queries go with access: query: make it a dataset of its own")
            if not parts.hostname or (port is None and self.format not in _PORTS):
                raise ValueError("access: connection needs a url with host and port")
        for name in self.queries:
            if QUERY_NAME.fullmatch(name) is None:
                raise ValueError(f"the query {name!r} must have 1 to 63 lower-case letters, digits, '_' and '-'")

    @property
    def is_service(self) -> bool:
        """Whether it is a service, not a file or folder."""
        return self.format not in FILES

    @property
    def parts(self) -> SplitResult:
        """The parts of a service's url."""
        return urlsplit(self.url or "")

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of a service that is handed out as a connection."""
        return self.parts.hostname or "", self.parts.port or _PORTS.get(self.format, 0)

    def serves(self, collaboration: str) -> bool:
        """Whether tasks of a collaboration may read it; without a list, those of all that the node serves."""
        return self.collaborations is None or collaboration in self.collaborations

    def missing(self) -> Iterator[tuple[str, str, Path]]:
        """What it names and is not there: key, kind, path."""
        if self.path is not None and not (self.path.is_dir() if self.format == "folder" else self.path.is_file()):
            yield "path", "directory" if self.format == "folder" else "file", self.path
        if self.password_file is not None and not self.password_file.is_file():
            yield "password_file", "file", self.password_file
