"""The declaration: what is refused, what the problems say."""

from __future__ import annotations

from typing import Any

import pytest

from vantage.common.declaration import DataParameter, Declaration, Function, validate_arguments
from vantage.common.errors import Reason, VantageError

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer", "maximum": 5}},
    "required": ["n"],
    "additionalProperties": False,
}
COUNT = Function("count", "Counts.", "partial", SCHEMA, (DataParameter("df", "records"),))


def test_round_trip() -> None:
    declared = Declaration.of([COUNT])
    assert Declaration.parse(declared.dumps()) == declared


@pytest.mark.parametrize(
    "document",
    [
        "{",
        "[]",
        {"schema": 2, "functions": {"f": {}}},
        {"schema": 1, "functions": {}},
        {"schema": 1, "functions": {"f": 1}},
        {"schema": 1, "functions": {"f": {"arguments": {"type": 5}}}},
        {"schema": 1, "functions": {"f": {"data": [{"parameter": "../x"}]}}},
    ],
)
def test_refuses(document: Any) -> None:
    with pytest.raises(VantageError) as caught:
        Declaration.parse(document)
    assert caught.value.reason is Reason.IMAGE_DECLARATION_INVALID


def test_unknown_function_names_the_known() -> None:
    with pytest.raises(VantageError, match="count") as caught:
        Declaration.of([COUNT]).function("other")
    assert caught.value.reason is Reason.FUNCTION_UNKNOWN


def test_problems_name_the_argument_never_the_value() -> None:
    assert validate_arguments(COUNT, {"n": 5}) == []
    assert validate_arguments(COUNT, {"n": 777}) == ["argument n: does not meet maximum 5"]
    assert len(validate_arguments(COUNT, {"other": 1})) == 2
