"""What an algorithm says of itself: its functions, their arguments as JSON Schema, the data they need."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError, best_match

from vantage.common.errors import Reason, VantageError, error

SCHEMA_VERSION = 1
LABEL = "org.vantage.declaration"
"""Image label that holds the declaration."""


@dataclass(frozen=True)
class Function:
    """A function that may be called.

    Attributes:
        arguments: JSON Schema of the arguments object.
        data: names of the parameters that take a dataset.
    """

    name: str
    arguments: Mapping[str, Any]
    data: tuple[str, ...]

    @cached_property
    def validator(self) -> jsonschema.Draft202012Validator:
        """Checks arguments."""
        return jsonschema.Draft202012Validator(self.arguments)


@dataclass(frozen=True)
class Declaration:
    """All functions of an image; only ``parse`` builds it."""

    functions: Mapping[str, Function]

    @classmethod
    def parse(cls, document: object) -> Declaration:
        """Check a declaration.

        Args:
            document: the parsed JSON, or its text.

        Raises:
            RefusedError: IMAGE_DECLARATION_INVALID.
        """
        if isinstance(document, str | bytes):
            try:
                document = json.loads(document)
            except ValueError:
                raise _invalid("it is not JSON") from None
        if not isinstance(document, dict):
            raise _invalid(f"it must be an object with the functions; set the label {LABEL}")
        if document.get("schema") != SCHEMA_VERSION:
            raise _invalid(f"its schema is {document.get('schema')!r}, this node knows {SCHEMA_VERSION}")
        functions = document.get("functions")
        if not isinstance(functions, dict) or not functions:
            raise _invalid("it declares no function")
        return cls({str(name): _function(str(name), each) for name, each in functions.items()})

    def function(self, name: str) -> Function:
        """A function by name.

        Raises:
            InvalidArgumentError: FUNCTION_UNKNOWN.
        """
        found = self.functions.get(name)
        if found is None:
            known = ", ".join(sorted(self.functions))
            raise error(
                Reason.FUNCTION_UNKNOWN, f"the image declares no function {name!r}; it has {known}", function=name
            )
        return found


def check_arguments(function: Function, content: bytes) -> None:
    """Check arguments against a function's schema.

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID; the message says which argument and why, without its value.
    """
    try:
        arguments = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        raise error(Reason.ARGUMENTS_INVALID, "the arguments are not JSON") from None
    if not isinstance(arguments, dict):
        raise error(Reason.ARGUMENTS_INVALID, "the arguments must be a JSON object: parameter -> value")
    problem = best_match(function.validator.iter_errors(arguments))
    if problem is None:
        return
    path = ".".join(str(step) for step in problem.absolute_path)
    rule = f"{problem.validator} {problem.validator_value!r}"[:200]
    match problem.validator:
        # These speak of names in the schema and the request, not of values.
        case "required" | "additionalProperties":
            what = problem.message[:300]
        case _:
            what = f"does not meet {rule}"
    raise error(
        Reason.ARGUMENTS_INVALID,
        f"{function.name}: {f'argument {path}: ' if path else ''}{what}",
        function=function.name,
        argument=path,
    )


def _function(name: str, document: object) -> Function:
    if not isinstance(document, dict):
        raise _invalid(f"the function {name!r} must be an object")
    schema = document.get("arguments", {"type": "object"})
    data = document.get("data", [])
    if not isinstance(schema, dict) or not isinstance(data, list):
        raise _invalid(f"the function {name!r} needs 'arguments' (a JSON Schema) and 'data' (a list)")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except SchemaError:
        raise _invalid(f"the arguments of {name!r} are not a JSON Schema (draft 2020-12)") from None
    parameters = []
    for each in data:
        parameter = each.get("parameter") if isinstance(each, dict) else None
        # An identifier: it becomes part of a path in the container.
        if not isinstance(parameter, str) or not parameter.isidentifier():
            raise _invalid(f"the function {name!r} has a data entry without a 'parameter' that is an identifier")
        parameters.append(parameter)
    return Function(name, schema, tuple(parameters))


def _invalid(why: str) -> VantageError:
    return error(
        Reason.IMAGE_DECLARATION_INVALID,
        f"the declaration of the image is not usable: {why}: ask the author to build it again",
    )
