"""Questions to datasets that answer queries: how people write them, and how they travel.

People write ``registry:adults?min_age=50`` where they would write ``registry``. The name of the dataset is part of what
is signed and what the server sees; the rest travels under a key of its own in the arguments, sealed like these, so that
only the node reads it: ``{"$data": {"df": {"query": "adults", "arguments": {"min_age": "50"}}}}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from vantage.common.errors import Reason, error

KEY = "$data"
"""Key of the arguments that holds the questions: no function can have a parameter of this name."""
MAX_VALUES = 100


def split_reference(reference: str) -> tuple[str, dict[str, Any] | None]:
    """Name of the dataset, and the question if there is one.

    Raises:
        InvalidArgumentError: malformed.
    """
    dataset, colon, rest = reference.partition(":")
    if not colon:
        return dataset, None
    query, _, text = rest.partition("?")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=MAX_VALUES)
    except ValueError:
        pairs = [("", "")]
    arguments = dict(pairs)
    if not dataset or not query or "" in arguments or len(arguments) != len(pairs):
        raise error(
            Reason.INVALID_ARGUMENT,
            f"{reference[:200]!r} is not a dataset: write NAME, NAME:QUERY or NAME:QUERY?PARAMETER=VALUE&...",
            field="datasets",
        )
    return dataset, {"query": query, "arguments": arguments}


def split_references(references: Mapping[str, str]) -> tuple[dict[str, str], dict[str, Any]]:
    """Names of the datasets, and the questions, each by parameter.

    Raises:
        InvalidArgumentError: malformed.
    """
    names: dict[str, str] = {}
    questions: dict[str, Any] = {}
    for parameter, reference in references.items():
        names[parameter], question = split_reference(reference)
        if question is not None:
            questions[parameter] = question
    return names, questions


def take_questions(content: bytes) -> tuple[bytes, dict[str, tuple[str, dict[str, Any]]]]:
    """Arguments as the function gets them, and the questions by parameter: (query, values).

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID.
    """
    if KEY.encode() not in content:
        return content, {}
    try:
        arguments = json.loads(content)
    except (ValueError, RecursionError):
        return content, {}  # whoever checks the arguments says so
    if not isinstance(arguments, dict) or KEY not in arguments:
        return content, {}
    given = arguments.pop(KEY)
    questions = {name: _question(each) for name, each in given.items()} if isinstance(given, dict) else {"": None}
    if None in questions.values():
        raise error(
            Reason.ARGUMENTS_INVALID,
            f'{KEY} must be an object: data parameter -> {{"query": NAME, "arguments": {{...}}}}, with at most '
            f"{MAX_VALUES} values",
        )
    taken = {name: each for name, each in questions.items() if each is not None}
    return json.dumps(arguments, separators=(",", ":")).encode(), taken


def _question(given: object) -> tuple[str, dict[str, Any]] | None:
    """Query and values; None when malformed."""
    if not isinstance(given, dict) or not given.keys() <= {"query", "arguments"}:
        return None
    query, values = given.get("query"), given.get("arguments", {})
    if not isinstance(query, str) or not isinstance(values, dict) or len(values) > MAX_VALUES:
        return None
    return query, values
