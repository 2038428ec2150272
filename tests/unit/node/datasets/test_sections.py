from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from vantage.common.data_questions import split_references, take_questions
from vantage.common.errors import Reason, VantageError
from vantage.node.datasets.asking import problems_of
from vantage.node.datasets.sections import DatasetSection, QuerySection
from vantage.node.datasets.sparql import _column, fill
from vantage.node.datasets.values import check_values, wrong_defaults

CONNECTION = {"name": "r", "format": "postgresql", "url": "postgresql://reader@db/registry", "access": "connection"}
QUERY = {"name": "r", "format": "sparql", "url": "https://db/sparql", "queries": {"all": "SELECT * {?s ?p ?o}"}}


def test_services_as_they_are_written() -> None:
    dataset = DatasetSection.model_validate(CONNECTION)
    assert dataset.address == ("db", 5432)
    assert DatasetSection.model_validate(QUERY).queries["all"].query.startswith("SELECT")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"url": "postgresql://reader:hidden@db/registry"}, "password_file"),
        ({"url": "mysql://reader@db/registry"}, "postgresql://"),
        ({"url": None}, "needs a url"),
        ({"path": "x.csv"}, "path goes with"),
        ({"sheet": "x"}, "sheet goes with"),
        ({"cdm_schema": "cdm"}, "cdm_schema goes with"),
        ({"access": "query"}, "needs queries"),
        ({"queries": {"a": "SELECT 1"}}, "access: query"),
        ({"format": "sql", "url": "mysql://reader@db/registry"}, "host and port"),
        ({"format": "sparql", "url": "https://db/sparql"}, "asked by the node"),
        ({"format": "csv"}, "goes with"),
        ({"url": "postgresql://reader@db:port/registry"}, "url is not one"),
    ],
)
def test_mistakes_are_said(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says) as caught:
        DatasetSection.model_validate({key: value for key, value in (CONNECTION | change).items() if value})
    # What a person sees is made without the value, see YamlSource.
    assert "hidden" not in "".join(str(each["ctx"]["error"]) for each in caught.value.errors())


@pytest.mark.parametrize(
    "parameter",
    [
        {"type": "integer"},
        {"type": "integer", "minimum": 1},
        {"type": "integer", "minimum": "a", "maximum": 2},
        {"type": "date", "minimum": 1, "maximum": 2},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "date", "minimum": date(2021, 1, 1), "maximum": date(2020, 1, 1)},
        {"type": "string"},
        {"type": "string", "values": ["a"], "max_length": 3},
        {"type": "boolean", "minimum": 1, "maximum": 2},
        {"type": "number", "minimum": 1, "maximum": 2, "values": ["1"]},
    ],
)
def test_every_parameter_has_bounds(parameter: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        QuerySection.model_validate({"query": "SELECT :x", "parameters": {"x": parameter}})


@pytest.mark.parametrize(
    ("parameter", "says"),
    [
        ({"type": "integer", "minimum": 0, "maximum": 9, "default": 10}, "an integer from 0 to 9"),
        ({"type": "string", "max_length": 3, "default": 10}, "a text of at most 3 characters"),
        ({"type": "string", "values": ["a", "b"], "default": "c"}, "one of a, b"),
        ({"type": "date", "minimum": date(2020, 1, 1), "maximum": date(2021, 1, 1), "default": "then"}, "a date"),
        ({"type": "boolean", "default": "yes"}, "true or false"),
    ],
)
def test_a_default_that_cannot_be_is_said_before_anybody_asks(parameter: dict[str, Any], says: str) -> None:
    query = {"query": "SELECT ?s {?s ?p $x}", "parameters": {"x": parameter}}
    (problem,) = problems_of([DatasetSection.model_validate(QUERY | {"queries": {"all": query}})])
    assert f"dataset r: the query all: the default of x must be {says}" in problem


def test_defaults_that_can_be_are_no_problem() -> None:
    assert wrong_defaults(SECTION) == []


SECTION = QuerySection.model_validate(
    {
        "query": "SELECT 1",
        "parameters": {
            "age": {"type": "integer", "minimum": 18, "maximum": 99},
            "dose": {"type": "number", "minimum": 0, "maximum": 1.5, "default": 1},
            "site": {"type": "string", "values": ["noord", "zuid"], "default": "zuid"},
            "text": {"type": "string", "max_length": 5, "default": ""},
            "old": {"type": "boolean", "default": False},
            "since": {
                "type": "date",
                "minimum": date(2020, 1, 1),
                "maximum": date(2021, 1, 1),
                "default": "2020-02-01",
            },
        },
    }
)


def test_values_are_of_their_type_and_within_bounds() -> None:
    assert check_values("q", SECTION, {"age": "40"}) == {
        "age": 40,
        "dose": 1.0,
        "site": "zuid",
        "text": "",
        "old": False,
        "since": date(2020, 2, 1),
    }
    assert check_values("q", SECTION, {"age": 40, "old": "true", "since": "2021-01-01", "dose": "0.5"})["old"] is True


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"age": 17},
        {"age": 100},
        {"age": True},
        {"age": 40.5},
        {"age": "40; DROP TABLE cases"},
        {"age": None},
        {"age": [40]},
        {"age": 40, "dose": "nan"},
        {"age": 40, "dose": 1e400},
        {"age": 40, "site": "oost"},
        {"age": 40, "text": "longer"},
        {"age": 40, "text": "a\0"},
        {"age": 40, "text": "a\ud800"},
        {"age": 40, "old": "yes"},
        {"age": 40, "since": "2019-12-31"},
        {"age": 40, "since": "yesterday"},
        {"age": 40, "other": 1},
    ],
)
def test_other_values_are_refused_without_being_repeated(given: dict[str, Any]) -> None:
    with pytest.raises(VantageError) as caught:
        check_values("q", SECTION, given)
    assert caught.value.reason is Reason.DATASET_QUERY_INVALID
    assert "DROP" not in caught.value.message


def test_questions_travel_apart_from_the_names_of_datasets() -> None:
    names, questions = split_references({"df": "registry:adults?age=40&site=no%26ord", "other": "lung", "all": "r:q"})
    assert names == {"df": "registry", "other": "lung", "all": "r"}
    assert questions == {
        "df": {"query": "adults", "arguments": {"age": "40", "site": "no&ord"}},
        "all": {"query": "q", "arguments": {}},
    }
    content, taken = take_questions(b'{"x": 1, "$data": {"df": {"query": "adults", "arguments": {"age": 40}}}}')
    assert content == b'{"x":1}'
    assert taken == {"df": ("adults", {"age": 40})}
    for untouched in (b'{"x": "$data"}', b'["$data"]', b"$data"):
        assert take_questions(untouched) == (untouched, {})
    for wrong in ("r:", ":q", "r:q?=1", "r:q?a=1&a=2", "r:q?a"):
        with pytest.raises(VantageError):
            split_references({"df": wrong})
    for content in (b'{"$data": 1}', b'{"$data": {"df": "adults"}}', b'{"$data": {"df": {"query": 1}}}'):
        with pytest.raises(VantageError) as caught:
            take_questions(content)
        assert caught.value.reason is Reason.ARGUMENTS_INVALID


def test_values_in_sparql_stay_literals() -> None:
    query = fill(
        "SELECT $x { ?s <p> $name ; <q> $age . FILTER($dose = $since || $old) }",
        {"name": 'a" . } #\\\n', "age": 4, "dose": 0.1, "since": date(2020, 1, 2), "old": True},
    )
    assert query == (
        'SELECT $x { ?s <p> "a\\" . } #\\\\\\n" ; <q> 4 . FILTER("0.1"^^<http://www.w3.org/2001/XMLSchema#double> = '
        '"2020-01-02"^^<http://www.w3.org/2001/XMLSchema#date> || true) }'
    )


def test_an_integer_that_arrow_does_not_hold_is_text() -> None:
    kind = "http://www.w3.org/2001/XMLSchema#integer"
    for value, expected in ((2**63 - 1, ("int64", 2**63 - 1)), (2**63, ("string", str(2**63)))):
        found, values = _column([{"value": str(value), "datatype": kind}])
        assert (str(found), values[0]) == expected
