from __future__ import annotations

import json

import pytest

from vantage.common.declaration import Function
from vantage.common.errors import Reason, VantageError
from vantage.node.argument_bounds import ArgumentBounds, check_bounds

FUNCTION = Function(
    "summary",
    arguments={
        "type": "object",
        "properties": {
            "min_count": {"type": "integer", "default": 5},
            "columns": {"type": "array"},
            "method": {"default": "mean"},
        },
    },
)
TEN = ArgumentBounds({"min_count": {"minimum": 10}})
COLUMNS = ArgumentBounds({"columns": {"items": {"enum": ["age", "sex"]}, "maxItems": 2}})


@pytest.mark.parametrize(
    ("bounds", "arguments"),
    [
        ((), {}),
        ((TEN,), {"min_count": 10}),
        ((TEN,), {"min_count": 11, "columns": ["anything"]}),
        ((COLUMNS,), {"columns": ["age"]}),
        ((TEN, COLUMNS), {"min_count": 1, "columns": ["sex"]}),
        ((ArgumentBounds({"method": {"enum": ["mean"]}}),), {}),
    ],
)
def test_arguments_within_one_of_the_bounds_pass(
    bounds: tuple[ArgumentBounds, ...], arguments: dict[str, object]
) -> None:
    check_bounds(FUNCTION, bounds, json.dumps(arguments).encode())


@pytest.mark.parametrize(
    ("bounds", "arguments", "why"),
    [
        ((TEN,), {"min_count": 9}, "the argument min_count must meet minimum 10"),
        # Parsers of JSON take it; no comparison with it is true.
        ((TEN,), {"min_count": float("nan")}, "the argument min_count must meet minimum 10"),
        # What is left out is what the algorithm takes instead.
        ((TEN,), {}, "the argument min_count must meet minimum 10"),
        ((COLUMNS,), {}, "the argument columns must be given"),
        ((COLUMNS,), {"columns": ["age", "name"]}, "the argument columns must meet enum"),
        ((COLUMNS,), {"columns": ["age", "sex", "age"]}, "the argument columns must meet maxItems 2"),
        ((TEN, COLUMNS), {"min_count": 1, "columns": ["name"]}, "min_count"),
        ((ArgumentBounds({"other": {}}),), {}, "the argument other must be given"),
    ],
)
def test_others_are_refused_without_telling_their_values(
    bounds: tuple[ArgumentBounds, ...], arguments: dict[str, object], why: str
) -> None:
    with pytest.raises(VantageError) as caught:
        check_bounds(FUNCTION, bounds, json.dumps(arguments).encode())
    assert caught.value.reason is Reason.ARGUMENTS_NOT_ALLOWED
    assert why in caught.value.message
    assert "'name'" not in caught.value.message


def test_without_arguments_the_defaults_are_judged() -> None:
    with pytest.raises(VantageError, match="min_count"):
        check_bounds(FUNCTION, (TEN,), b"")
