"""SPARQL endpoints: queries with values in their places, answers as tables (SPARQL 1.1 Query Results JSON Format)."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from datetime import date
from typing import Any

import httpx
import pyarrow as pa

from vantage.common.errors import Reason, VantageError, error
from vantage.node.datasets.credentials import password_of, username_of
from vantage.node.datasets.sections import DatasetSection, QuerySection
from vantage.node.datasets.tables import TableFile
from vantage.node.datasets.values import Value

MAX_ANSWER = 256 * 1024 * 1024
"""Bytes of an answer as it is sent, whatever ``max_bytes`` says: it is read as a whole."""
_RESULTS = "application/sparql-results+json"
_XSD = "http://www.w3.org/2001/XMLSchema#"
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}


def _int64(text: str) -> int:
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError
    return value


_KINDS: dict[str, tuple[pa.DataType, Any]] = {
    **dict.fromkeys(("integer", "int", "long", "short", "nonNegativeInteger", "positiveInteger"), (pa.int64(), _int64)),
    **dict.fromkeys(("decimal", "double", "float"), (pa.float64(), float)),
    "boolean": (pa.bool_(), lambda text: text in ("true", "1")),
    "date": (pa.date32(), date.fromisoformat),
}


def fill(text: str, values: Mapping[str, Value]) -> str:
    """A query with literals in place of ``$parameter``; other variables are left as they are."""
    return re.sub(r"\$(\w+)", lambda found: literal(values[found[1]]) if found[1] in values else found[0], text)


def literal(value: Value) -> str:
    """A value as SPARQL writes it: nothing in it can end the literal."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return f'"{value!r}"^^<{_XSD}double>'
        case date():
            return f'"{value.isoformat()}"^^<{_XSD}date>'
        case str():
            return '"' + "".join(_ESCAPES.get(each, each) for each in value) + '"'


async def ask(dataset: DatasetSection, query: QuerySection, values: Mapping[str, Value]) -> bytes:
    """The answer of an endpoint as it is sent, within the time and size that the dataset allows; see ``write``.

    Raises:
        VantageError: DATASET_UNAVAILABLE, DATASET_TOO_LARGE.
    """
    limit = min(dataset.max_bytes, MAX_ANSWER)
    password = password_of(dataset)
    parts = dataset.parts
    # The role is named by the url, and sent as HTTP has it.
    url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    auth = httpx.BasicAuth(username_of(dataset), password) if password is not None else None
    text = fill(query.query, values)
    content = bytearray()
    try:
        async with (
            asyncio.timeout(dataset.timeout),
            httpx.AsyncClient(timeout=dataset.timeout, trust_env=False, auth=auth) as client,
            client.stream("POST", url, data={"query": text}, headers={"Accept": _RESULTS}) as answer,
        ):
            if answer.status_code != httpx.codes.OK:
                raise _unavailable(dataset, f"HTTP {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > limit:
                    raise error(
                        Reason.DATASET_TOO_LARGE,
                        f"the answer of the dataset {dataset.name} has more than {limit} bytes: ask for less",
                    )
    except (httpx.HTTPError, TimeoutError) as problem:
        raise _unavailable(dataset, type(problem).__name__) from None
    return bytes(content)


def write(dataset: DatasetSection, content: bytes, file: TableFile) -> None:
    """Write an answer as a table; blocks.

    Raises:
        VantageError: DATASET_UNAVAILABLE, DATASET_TOO_LARGE, DATASET_UNREADABLE.
    """
    try:
        document = json.loads(content)
        names = [str(each) for each in document["head"]["vars"]]
        bindings = document["results"]["bindings"]
        columns = [_column([row.get(name) for row in bindings]) for name in names]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise _unavailable(dataset, f"{type(problem).__name__} in its answer") from None
    file.begin(names, [kind for kind, _ in columns])
    file.write(list(zip(*(values for _, values in columns), strict=True)))


def _column(terms: list[Mapping[str, str] | None]) -> tuple[pa.DataType, list[Any]]:
    """A column of one type where all of its terms have it, else of text."""
    kinds = {each.get("datatype", "").removeprefix(_XSD) for each in terms if each is not None}
    kind, convert = _KINDS.get(next(iter(kinds), ""), (pa.string(), str)) if len(kinds) == 1 else (pa.string(), str)
    try:
        return kind, [None if each is None else convert(each["value"]) for each in terms]
    except ValueError:  # e.g. an integer beyond 64 bits is none for Arrow, and "1/2" none for anybody
        return pa.string(), [None if each is None else each["value"] for each in terms]


def _unavailable(dataset: DatasetSection, why: str) -> VantageError:
    return error(
        Reason.DATASET_UNAVAILABLE,
        f"the dataset {dataset.name} cannot answer: ask the node's admin ({why})",
        dataset=dataset.name,
    )
