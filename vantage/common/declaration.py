"""What an algorithm image says of itself: its functions, their arguments as JSON Schema, the data that they need.

The declaration is the image label ``org.vantage.declaration``; the signature of the image covers it. jsonschema is
imported only where something is checked: an algorithm that starts in a container needs none of it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vantage.common.errors import Reason, VantageError, error
from vantage.common.hosts import join_host, split_host

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

SCHEMA_VERSION = 1
LABEL = "org.vantage.declaration"
"""Image label that holds the declaration."""

MAX_PROBLEMS = 20
MAX_GPUS = 64
MAX_EGRESS = 100
"""Hosts that a function may declare."""


@dataclass(frozen=True)
class DataParameter:
    """A parameter that takes a dataset of the node."""

    name: str
    description: str = ""


@dataclass(frozen=True)
class Function:
    """A function that may be called.

    Attributes:
        arguments: JSON Schema (draft 2020-12) of the arguments object.
        kind: "central" for a function that asks others by subtasks and reads no data, "partial" for any other.
        gpus: graphics processors that a run of it needs, at most 64; a node lends them when its admin configured some.
        egress: hosts that it connects to where a node's policy allows it: ``HOST:PORT``.
    """

    name: str
    description: str = ""
    kind: str = "partial"
    arguments: Mapping[str, Any] = field(default_factory=lambda: {"type": "object"})
    data: tuple[DataParameter, ...] = ()
    gpus: int = 0
    egress: tuple[str, ...] = ()


@dataclass(frozen=True)
class Declaration:
    """All functions of an image."""

    functions: Mapping[str, Function]

    @classmethod
    def of(cls, functions: Iterable[Function]) -> Declaration:
        """Put functions together."""
        return cls({each.name: each for each in functions})

    @classmethod
    def parse(cls, document: object) -> Declaration:
        """Check a declaration that somebody else wrote.

        Args:
            document: the parsed JSON, or its text.

        Raises:
            RefusedError: IMAGE_DECLARATION_INVALID.
        """
        if isinstance(document, str | bytes):
            try:
                document = json.loads(document)
            except (ValueError, RecursionError):
                raise _invalid("it is not JSON") from None
        if not isinstance(document, dict):
            raise _invalid(f"it must be an object with the functions; set the label {LABEL}")
        if document.get("schema") != SCHEMA_VERSION:
            raise _invalid(f"its schema is {document.get('schema')!r}, this version knows {SCHEMA_VERSION}")
        functions = document.get("functions")
        if not isinstance(functions, dict) or not functions:
            raise _invalid("it declares no function")
        return cls({str(name): _function(str(name), each) for name, each in functions.items()})

    def dump(self) -> dict[str, Any]:
        """The document that ``parse`` reads."""
        return {
            "schema": SCHEMA_VERSION,
            "functions": {
                each.name: {
                    "description": each.description,
                    "kind": each.kind,
                    "arguments": dict(each.arguments),
                    "data": [{"parameter": one.name, "description": one.description} for one in each.data],
                    **({"gpus": each.gpus} if each.gpus else {}),
                    **({"egress": list(each.egress)} if each.egress else {}),
                }
                for each in self.functions.values()
            },
        }

    def dumps(self) -> str:
        """One line of JSON for the label; the same functions give the same text."""
        return json.dumps(self.dump(), separators=(",", ":"), sort_keys=True)

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


def argument_validator(schema: Mapping[str, Any]) -> Validator:
    """Checks arguments by a JSON Schema (draft 2020-12).

    Nothing that the schema refers to is fetched: it is a stranger's, and this is a node or a researcher's computer.
    What is no number (NaN, which parsers of JSON take) is within no bounds: every comparison with it is false.
    """
    from referencing import Registry

    return _validator_class()(schema, registry=Registry())


@functools.cache
def _validator_class() -> type[Validator]:
    import jsonschema

    plain = jsonschema.Draft202012Validator

    def bound(keyword: str) -> Callable[..., Iterator[ValidationError]]:
        def check(validator: Validator, limit: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
            if instance != instance:  # NaN alone is not itself
                yield jsonschema.ValidationError("it is no number")
                return
            try:
                yield from plain.VALIDATORS[keyword](validator, limit, instance, schema) or ()
            except ArithmeticError:
                yield jsonschema.ValidationError("it is too large to be compared")

        return check

    keywords = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
    extend: Any = jsonschema.validators.extend
    made: type[Validator] = extend(plain, {each: bound(each) for each in keywords})
    return made


def argument_problems(function: Function, arguments: Mapping[str, Any]) -> Iterator[ValidationError]:
    """What is wrong with arguments by a function's schema.

    Raises:
        RefusedError: IMAGE_DECLARATION_INVALID, the schema refers to what is not in it, or to itself for ever.
    """
    from referencing.exceptions import Unresolvable

    try:
        yield from argument_validator(function.arguments).iter_errors(dict(arguments))
    except (Unresolvable, RecursionError, ValueError):  # the last of a malformed $id
        raise _invalid(
            f"the arguments of {function.name!r} refer ($ref) to something that is not in their schema, or in circles"
        ) from None


def validate_arguments(function: Function, arguments: Mapping[str, Any]) -> list[str]:
    """Check arguments against a function's schema.

    Returns:
        One line per problem that names the argument and the rule, never the value; empty when all is well.
    """
    problems = []
    for problem in argument_problems(function, arguments):
        path = ".".join(str(step) for step in problem.absolute_path)
        match problem.validator:
            # These speak of names in the schema and the request, not of values.
            case "required" | "additionalProperties":
                what = problem.message[:300]
            case _:
                what = f"does not meet {problem.validator} {problem.validator_value!r}"[:300]
        problems.append(f"argument {path}: {what}" if path else what)
    return sorted(problems)[:MAX_PROBLEMS]


def _function(name: str, document: object) -> Function:
    import jsonschema
    from jsonschema.exceptions import SchemaError

    if not isinstance(document, dict):
        raise _invalid(f"the function {name!r} must be an object")
    schema = document.get("arguments", {"type": "object"})
    data = document.get("data", [])
    if not isinstance(schema, dict) or not isinstance(data, list):
        raise _invalid(f"the function {name!r} needs 'arguments' (a JSON Schema) and 'data' (a list)")
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except (SchemaError, RecursionError):
        raise _invalid(f"the arguments of {name!r} are not a JSON Schema (draft 2020-12), or too deep") from None
    parameters = []
    for each in data:
        parameter = each.get("parameter") if isinstance(each, dict) else None
        # An identifier: it becomes part of a path in the container.
        if not isinstance(parameter, str) or not parameter.isidentifier():
            raise _invalid(f"the function {name!r} has a data entry without a 'parameter' that is an identifier")
        parameters.append(DataParameter(parameter, str(each.get("description", ""))))
    gpus = document.get("gpus", 0)
    if type(gpus) is not int or not 0 <= gpus <= MAX_GPUS:
        raise _invalid(f"the function {name!r} asks for gpus: a whole number from 0 to {MAX_GPUS}")
    return Function(
        name,
        str(document.get("description", "")),
        str(document.get("kind", "partial")),
        schema,
        tuple(parameters),
        gpus,
        _egress(name, document.get("egress", [])),
    )


def _egress(name: str, hosts: object) -> tuple[str, ...]:
    if not isinstance(hosts, list) or len(hosts) > MAX_EGRESS:
        raise _invalid(f"the egress of {name!r} must be a list of at most {MAX_EGRESS} hosts, each HOST:PORT")
    try:
        return tuple(join_host(*split_host(str(each))) for each in hosts)
    except ValueError as problem:
        raise _invalid(f"the egress of {name!r}: a host {problem}") from None


def _invalid(why: str) -> VantageError:
    return error(
        Reason.IMAGE_DECLARATION_INVALID,
        f"the declaration of the image is not usable: {why}: ask the author to build it again",
    )
