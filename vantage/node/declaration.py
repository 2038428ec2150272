"""Whether a call fits what an algorithm image says of its functions."""

from __future__ import annotations

import json
from typing import NoReturn

from jsonschema.exceptions import best_match

from vantage.common.declaration import Function, argument_problems
from vantage.common.errors import Reason, error
from vantage.common.unique_keys import RepeatedKeyError, unique_keys


def _no_number(name: str) -> NoReturn:
    """NaN and infinity, which JSON does not have and Python's reader takes: a schema with ``not`` lets NaN pass."""
    raise error(
        Reason.ARGUMENTS_INVALID, f"the arguments have {name}, which JSON does not have: give null, or leave it out"
    )


def check_arguments(function: Function, content: bytes) -> None:
    """Check arguments against a function's schema.

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID; the message says which argument and why, without its value.
        RefusedError: IMAGE_DECLARATION_INVALID, see ``argument_problems``.
    """
    try:
        arguments = json.loads(content or b"{}", object_pairs_hook=unique_keys, parse_constant=_no_number)
    except RepeatedKeyError:
        raise error(Reason.ARGUMENTS_INVALID, "the arguments have a key twice: give each once") from None
    except (ValueError, RecursionError):
        raise error(Reason.ARGUMENTS_INVALID, "the arguments are not JSON") from None
    if not isinstance(arguments, dict):
        raise error(Reason.ARGUMENTS_INVALID, "the arguments must be a JSON object: parameter -> value")
    problem = best_match(argument_problems(function, arguments))
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
