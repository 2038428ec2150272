"""Type hints of arguments: to JSON Schema for the declaration, and from JSON values when the function is called."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from vantage.algorithm.errors import AlgorithmError
from vantage.common.errors import Reason

_SIMPLE: dict[Any, str] = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


def schema_of(hint: Any) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a type hint.

    Raises:
        TypeError: arguments cannot have this type; says which can.
    """
    if hint is Any:
        return {}
    if hint in _SIMPLE:
        return {"type": _SIMPLE[hint]}
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(part) for part in parts]}
    if origin is list and len(parts) == 1:
        return {"type": "array", "items": schema_of(parts[0])}
    if origin is dict and len(parts) == 2 and parts[0] is str:
        return {"type": "object", "additionalProperties": schema_of(parts[1])}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        hints = get_type_hints(hint)
        fields = dataclasses.fields(hint)
        return {
            "type": "object",
            "properties": {each.name: schema_of(hints[each.name]) for each in fields},
            "required": [each.name for each in fields if _required(each)],
            "additionalProperties": False,
        }
    raise TypeError(
        f"an argument cannot be {hint!r}: use int, float, str, bool, list[...], dict[str, ...], Literal[...], "
        "Optional[...] or a dataclass of these"
    )


def convert(hint: Any, value: Any, path: str) -> Any:
    """A JSON value as the type that the function asks for.

    Raises:
        AlgorithmError: ARGUMENTS_INVALID, with the path of the argument and never its value.
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint is int and not isinstance(value, bool):
        # JSON has one kind of number: 3.0 is an integer there.
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
    elif hint in (str, bool, type(None)) and type(value) is hint:
        return value
    elif origin is Literal:
        for part in parts:
            if type(part) is type(value) and part == value:
                return value
    elif origin in (Union, types.UnionType):
        for part in parts:
            try:
                return convert(part, value, path)
            except AlgorithmError:
                continue
    elif origin is list and isinstance(value, list):
        return [convert(parts[0], each, f"{path}.{index}") for index, each in enumerate(value)]
    elif origin is dict and isinstance(value, Mapping):
        return {str(key): convert(parts[1], each, f"{path}.{key}") for key, each in value.items()}
    elif dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, Mapping):
        return _build(hint, value, path)
    raise invalid(f"argument {path}: does not have the type {getattr(hint, '__name__', None) or hint}")


def invalid(message: str) -> AlgorithmError:
    """The error of arguments that do not fit."""
    return AlgorithmError(message, reason=Reason.ARGUMENTS_INVALID)


def _build(hint: type, value: Mapping[str, Any], path: str) -> Any:
    hints = get_type_hints(hint)
    fields = dataclasses.fields(hint)
    for key in value:
        if key not in {each.name for each in fields}:
            raise invalid(f"argument {path}: has no field {key!r}")
    for each in fields:
        if _required(each) and each.name not in value:
            raise invalid(f"argument {path}: {each.name!r} is missing")
    return hint(**{key: convert(hints[key], each, f"{path}.{key}") for key, each in value.items()})


def _required(each: dataclasses.Field[Any]) -> bool:
    return each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING
