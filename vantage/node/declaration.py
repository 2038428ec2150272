"""Whether a call fits what an algorithm image says of its functions."""

from __future__ import annotations

from jsonschema.exceptions import best_match

from vantage.common import strict_json
from vantage.common.declaration import Function, argument_problems
from vantage.common.errors import Reason, error
from vantage.common.unique_keys import RepeatedKeyError


def check_arguments(function: Function, content: bytes) -> None:
    """Check arguments against a function's schema.

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID; the message says which argument and why, without its value.
        RefusedError: IMAGE_DECLARATION_INVALID, see ``argument_problems``.
    """
    try:
        arguments = strict_json.loads(content or b"{}")
    except (RepeatedKeyError, strict_json.NotANumberError) as found:
        raise error(Reason.ARGUMENTS_INVALID, f"the arguments have {found}") from None
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
