"""Values that a question gives to a query: of the declared type, within the declared bounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import date
from typing import Any

from vantage.common.errors import Reason, VantageError, error
from vantage.node.datasets.sections import ParameterSection, QuerySection

Value = bool | int | float | str | date
_BOOLEANS = {"true": True, "false": False}


def check_values(name: str, query: QuerySection, given: Mapping[str, Any]) -> dict[str, Value]:
    """The values of a question, as the database gets them.

    Args:
        name: of the query, for people.
        query: what it takes.
        given: parameter -> JSON value, or the same as text.

    Raises:
        RefusedError: DATASET_QUERY_INVALID; names the parameter and the rule, never the value.
    """
    for parameter in given:
        if parameter not in query.parameters:
            known = ", ".join(query.parameters) or "none"
            raise _invalid(f"the query {name} has no parameter {str(parameter)[:100]!r}; it has {known}")
    values: dict[str, Value] = {}
    for parameter, section in query.parameters.items():
        if parameter in given:
            value = _typed(section, given[parameter])
        elif section.default is not None:
            value = _typed(section, section.default)
        else:
            raise _invalid(f"the query {name} needs a value for {parameter}")
        if value is None or not _within(section, value):
            raise _invalid(f"the query {name}: {parameter} must be {_describe(section)}")
        values[parameter] = value
    return values


def wrong_defaults(query: QuerySection) -> list[str]:
    """What is wrong with the values that parameters take when nothing is said: else only who asks would learn it."""
    return [
        f"the default of {parameter} must be {_describe(section)}"
        for parameter, section in query.parameters.items()
        if section.default is not None
        and ((value := _typed(section, section.default)) is None or not _within(section, value))
    ]


def _typed(section: ParameterSection, value: object) -> Value | None:
    """The value as its type; None when it is not of it."""
    try:
        match section.type, value:
            case "integer", bool():
                return None
            case "integer", int() | str():
                return int(value)
            case "number", bool():
                return None
            case "number", int() | float() | str():
                return float(value)
            case "boolean", bool():
                return value
            case "boolean", str():
                return _BOOLEANS.get(value)
            case "date", date():
                return value
            case "date", str():
                return date.fromisoformat(value)
            case "string", str():
                return value
    except (ValueError, OverflowError):
        return None
    return None


def _within(section: ParameterSection, value: Value) -> bool:
    if isinstance(value, str):
        # NUL ends a text for some databases, and is none for others; half a surrogate pair is no text at all.
        if "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
            return False
        return value in section.values if section.values is not None else len(value) <= (section.max_length or 0)
    if isinstance(value, bool):
        return True
    if isinstance(value, float) and not math.isfinite(value):
        return False
    low: Any = section.minimum
    high: Any = section.maximum
    return bool(low <= value <= high)


def _describe(section: ParameterSection) -> str:
    if section.type == "string":
        if section.values is not None:
            return f"one of {', '.join(section.values)}"[:500]
        return f"a text of at most {section.max_length} characters"
    if section.type == "boolean":
        return "true or false"
    kind = {"integer": "an integer", "number": "a number", "date": "a date like 2020-12-31"}[section.type]
    return f"{kind} from {section.minimum} to {section.maximum}"


def _invalid(message: str) -> VantageError:
    return error(Reason.DATASET_QUERY_INVALID, message)
