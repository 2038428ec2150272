"""Bounds that the node's policy sets to arguments, within what the algorithm declares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vantage.common.declaration import Function, argument_validator
from vantage.common.errors import Reason, error

_MISSING = object()


@dataclass(frozen=True)
class ArgumentBounds:
    """JSON Schemas that arguments must meet, by argument.

    Attributes:
        schemas: an argument that is not named here is as free as the algorithm declares it.
    """

    schemas: Mapping[str, Mapping[str, Any]]

    def problem(self, function: Function, arguments: Mapping[str, Any]) -> str | None:
        """What is out of bounds, without its value; None when nothing is.

        An argument that was left out is taken for its declared default; without one it must be given.
        """
        from jsonschema.exceptions import best_match

        properties = function.arguments.get("properties")
        declared = properties if isinstance(properties, dict) else {}
        for name, schema in self.schemas.items():
            value = arguments.get(name, _MISSING)
            if value is _MISSING:
                known = declared.get(name)
                value = known.get("default", _MISSING) if isinstance(known, dict) else _MISSING
            if value is _MISSING:
                return f"the argument {name} must be given"
            found = best_match(argument_validator(schema).iter_errors(value))
            if found is not None:
                return f"the argument {name} must meet {found.validator} {json.dumps(found.validator_value)[:200]}"
        return None


def check_bounds(function: Function, bounds: Sequence[ArgumentBounds], content: bytes) -> None:
    """Check that arguments are within one of the bounds; without any they are free.

    Args:
        function: that is called.
        bounds: of the rules that allow the call.
        content: the arguments, which meet the function's own schema.

    Raises:
        RefusedError: ARGUMENTS_NOT_ALLOWED.
    """
    if not bounds:
        return
    arguments = json.loads(content or b"{}")
    problems = [each.problem(function, arguments) for each in bounds]
    if all(problems):
        raise error(
            Reason.ARGUMENTS_NOT_ALLOWED,
            f"the node's policy does not allow {function.name} with these arguments: {problems[0]}: ask its admin",
            function=function.name,
        )
