"""The declaration: what is refused, what the problems say."""

from __future__ import annotations

import json
from pathlib import Path
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


def test_hosts_are_kept_in_one_form_and_malformed_ones_refused() -> None:
    def parsed(*hosts: object) -> Declaration:
        return Declaration.parse({"schema": 1, "functions": {"f": {"egress": list(hosts)}}})

    declared = parsed("API.Example.org:443", "[2001:DB8::1]:80")
    assert declared.function("f").egress == ("api.example.org:443", "[2001:db8::1]:80")
    assert Declaration.parse(declared.dumps()) == declared
    for wrong in ("*:443", "example.org", "http://example.org:80", 443, ""):
        with pytest.raises(VantageError) as caught:
            parsed(wrong)
        assert caught.value.reason is Reason.IMAGE_DECLARATION_INVALID
    with pytest.raises(VantageError):
        parsed(*(f"host-{number}.org:80" for number in range(101)))


def test_unknown_function_names_the_known() -> None:
    with pytest.raises(VantageError, match="count") as caught:
        Declaration.of([COUNT]).function("other")
    assert caught.value.reason is Reason.FUNCTION_UNKNOWN


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"n": {"$ref": "FILE"}}},
        {"$id": "FILE.other", "properties": {"n": {"$ref": "schema.json"}}},
        {"properties": {"n": {"$dynamicRef": "FILE"}}},
        {"$ref": "#/nowhere"},
        {"$ref": "#"},
        {"$id": "http://[", "properties": {"n": {"$ref": "x"}}},
    ],
)
def test_nothing_is_fetched_that_a_schema_refers_to(tmp_path: Path, schema: Any) -> None:
    """A file of the node, or an address in its network, is no part of an image."""
    (tmp_path / "schema.json").write_text('{"const": "secret"}')
    written = json.dumps(schema).replace("FILE", (tmp_path / "schema.json").as_uri())
    function = Function("f", arguments=json.loads(written))
    with pytest.raises(VantageError) as caught:
        validate_arguments(function, {"n": 1})
    assert caught.value.reason is Reason.IMAGE_DECLARATION_INVALID
    local = Function("f", arguments={"$defs": {"x": {"type": "string"}}, "properties": {"n": {"$ref": "#/$defs/x"}}})
    assert validate_arguments(local, {"n": 1}) == ["argument n: does not meet type 'string'"]


@pytest.mark.parametrize("keyword", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"])
def test_what_is_no_number_is_within_no_bounds(keyword: str) -> None:
    function = Function("f", arguments={"properties": {"n": {keyword: 0.5}}})
    found = validate_arguments(function, {"n": float("nan")})
    assert found == [f"argument n: does not meet {keyword} 0.5"]
    assert validate_arguments(function, {"n": "no number"}) == []
    assert validate_arguments(Function("f", arguments={"properties": {"n": {}}}), {"n": float("nan")}) == []


def test_numbers_too_large_to_be_compared_are_refused() -> None:
    function = Function("f", arguments={"properties": {"n": {"multipleOf": 0.5}}})
    assert validate_arguments(function, {"n": 10**400}) == ["argument n: does not meet multipleOf 0.5"]
    assert validate_arguments(function, {"n": 1.5}) == []


def test_a_schema_too_deep_to_be_checked_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(400):
        schema = {"items": schema}
    with pytest.raises(VantageError, match="too deep") as caught:
        Declaration.parse({"schema": 1, "functions": {"f": {"arguments": schema}}})
    assert caught.value.reason is Reason.IMAGE_DECLARATION_INVALID


def test_problems_name_the_argument_never_the_value() -> None:
    assert validate_arguments(COUNT, {"n": 5}) == []
    assert validate_arguments(COUNT, {"n": 777}) == ["argument n: does not meet maximum 5"]
    assert len(validate_arguments(COUNT, {"other": 1})) == 2
