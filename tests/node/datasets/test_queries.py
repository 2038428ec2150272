"""Databases and endpoints that the node asks on behalf of a run."""

from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.node.datasets.test_connections import answer, events, offer
from vantage.testing.postgres import Postgres
from vantage.testing.scripted_server import ScriptedSession
from vantage.testing.sparql import SparqlEndpoint
from vantage.testing.station import Station, assign, send

pytestmark = pytest.mark.postgresql

AGE = {"type": "integer", "minimum": 0, "maximum": 120, "default": 90}
QUERIES: dict[str, Any] = {
    "adults": {
        "query": "SELECT patient, age, weight, sex, seen, note, patient::text || '\\:' AS label FROM cases "
        "WHERE age >= :min_age AND sex = ANY(string_to_array(:sexes, ',')) ORDER BY patient",
        "parameters": {
            "min_age": AGE,
            "sexes": {"type": "string", "max_length": 10, "default": "f,m"},
        },
    },
    "everybody": "SELECT * FROM cases ORDER BY patient",
    "slow": "SELECT pg_sleep(60) AS nothing",
    "writes": "INSERT INTO cases VALUES (0) RETURNING patient",
    "hidden": "SELECT * FROM secret",
    "broken": "SELECT 'private'::integer AS x FROM cases",
    "late": "SELECT 1 / (24000 - patient) AS x FROM cases ORDER BY patient",
    "twice": "SELECT 1 AS a, 2 AS a",
}


def ask(query: str, **values: Any) -> str:
    return json.dumps({"$data": {"df": {"query": query, "arguments": values}}})


async def refused(session: ScriptedSession, arguments: str, **datasets: str) -> Any:
    send(session, assign("rows", arguments, datasets=datasets))
    return (await session.receive("refused")).refused.failure


async def test_an_answer_arrives_as_a_table_with_the_databases_types(reading: Station, postgres: Postgres) -> None:
    offer(reading, postgres, access="query", queries=QUERIES)
    async with reading.running():
        session = await reading.session()
        done = await answer(session, "rows", ask("adults", min_age="95", sexes="f"), df="registry")
        assert done.failure.message == ""
        seen = json.loads(done.result.inline)
        assert seen["rows"] == 500
        assert seen["types"] == ["int32", "int32", "float64", "object", "object", "object", "object"]
        assert seen["first"][0]["weight"] == "13.71"
        assert seen["first"][0]["label"] == "96:"
        # More than one batch; and nothing of what is bound can change the query.
        done = await answer(session, "rows", ask("everybody"), df="registry")
        assert json.loads(done.result.inline)["rows"] == 25000
        done = await answer(session, "rows", ask("adults", sexes="f' OR 1=1"), df="registry")
        assert json.loads(done.result.inline)["rows"] == 0
    assert [(each["query"], each["rows"]) for each in events(reading, "run.query")] == [
        ("adults", 500),
        ("everybody", 25000),
        ("adults", 0),
    ]
    assert "min_age" not in (reading.directory / "data" / "audit.log").read_text()
    assert reading.runs == []


async def test_what_is_not_offered_or_out_of_bounds_is_refused_before_anything_runs(
    reading: Station, postgres: Postgres
) -> None:
    offer(reading, postgres, access="query", queries=QUERIES)
    async with reading.running():
        session = await reading.session()
        for arguments in (ask("none"), ask("adults", min_age=121), ask("adults", other=1), "{}"):
            assert (await refused(session, arguments, df="registry")).reason == "DATASET_QUERY_INVALID"
        assert (await refused(session, ask("adults"), df="lung")).reason == "DATASET_ACCESS_REFUSED"
        stray = json.dumps({"$data": {"other": {"query": "adults"}}})
        assert (await refused(session, stray, df="lung")).reason == "ARGUMENTS_INVALID"
        denied = await answer(session, "through_another_parameter", ask("everybody"), df="registry")
        assert json.loads(denied.result.inline).startswith("DATASET_ACCESS_REFUSED")


async def test_limits_hold_and_nothing_of_the_data_is_in_an_error(
    reading: Station, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    offer(reading, postgres, access="query", queries=QUERIES)
    offer(reading, postgres, access="query", queries=QUERIES, name="hurried", timeout=1)
    offer(reading, postgres, access="query", queries=QUERIES, name="rows", max_rows=24_999)
    offer(reading, postgres, access="query", queries=QUERIES, name="bytes", max_bytes=1_000)
    offer(reading, postgres, role="writer", access="query", queries=QUERIES, name="writer")
    async with reading.running():
        session = await reading.session()
        for name, query, reason in (
            ("hurried", "slow", "DATASET_UNAVAILABLE"),
            ("rows", "everybody", "DATASET_TOO_LARGE"),
            ("bytes", "everybody", "DATASET_TOO_LARGE"),
            ("writer", "writes", "DATASET_UNAVAILABLE"),
            ("registry", "hidden", "DATASET_UNAVAILABLE"),
            ("registry", "broken", "DATASET_UNAVAILABLE"),
            ("registry", "late", "DATASET_UNAVAILABLE"),
            ("registry", "twice", "DATASET_UNREADABLE"),
        ):
            failed = await answer(session, "rows", ask(query), begins=False, df=name)
            assert (query, failed.failure.reason) == (query, reason), failed.failure.message
            assert "private" not in failed.failure.message
            assert reading.runs == []
    assert postgres.sql("SELECT count(*) FROM cases") == "25000"
    assert "private" not in caplog.text
    assert postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vantage'") == "0"


async def test_other_databases_through_their_urls(reading: Station) -> None:
    path = reading.directory / "other.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE t (a INTEGER, b TEXT, c REAL)")
        database.execute("INSERT INTO t VALUES (1, 'x', NULL), (2, NULL, NULL)")
    database.close()
    reading.settings["datasets"].append(
        {
            "name": "other",
            "format": "sql",
            "url": f"sqlite:///file:{path}?mode=ro&uri=true",
            "queries": {
                "all": {"query": "SELECT * FROM t WHERE a >= :low", "parameters": {"low": AGE | {"default": 0}}}
            },
        }
    )
    async with reading.running():
        session = await reading.session()
        # The only query of a dataset need not be named.
        done = await answer(session, "rows", df="other")
        assert json.loads(done.result.inline)["rows"] == 2
        assert json.loads(done.result.inline)["columns"] == ["a", "b", "c"]


TURTLE = """
@prefix : <http://example.org/> . @prefix xsd: <http://www.w3.org/2001/XMLSchema#> .
:a :age 61 ; :name "Anna \\"A\\"" ; :seen "2020-05-01"^^xsd:date . :b :age 74 ; :name "Bo" . :c :age 35 ; :name "Cy" .
"""
SPARQL = """
PREFIX : <http://example.org/>
SELECT ?age ?name ?seen { ?who :age ?age ; :name ?name . OPTIONAL { ?who :seen ?seen }
  FILTER(?age >= $low && ?name != $not) } ORDER BY ?age
"""


async def test_a_sparql_endpoint(reading: Station) -> None:
    (reading.directory / "password").write_text("hidden\n")
    parameters = {"low": AGE, "not": {"type": "string", "max_length": 20, "default": ""}}
    with SparqlEndpoint(TURTLE, "reader", "hidden") as endpoint:
        service = {"format": "sparql", "queries": {"old": {"query": SPARQL, "parameters": parameters}}}
        url = f"http://reader@{endpoint.address}/sparql"
        reading.settings["datasets"] += [
            {"name": "graph", "url": url, "password_file": "password", **service},
            {"name": "wrong", "url": url, **service},
            {"name": "small", "url": url, "password_file": "password", "max_bytes": 10, **service},
        ]
        async with reading.running():
            session = await reading.session()
            done = await answer(session, "rows", ask("old", low=50, **{"not": 'Anna "A"'}), df="graph")
            assert json.loads(done.result.inline) == {
                "rows": 1,
                "columns": ["age", "name", "seen"],
                "types": ["int64", "object", "object"],
                "first": [{"age": "74", "name": "Bo", "seen": "None"}],
            }
            done = await answer(session, "rows", ask("old", low=50), df="graph")
            assert json.loads(done.result.inline)["first"] == [{"age": "61", "name": 'Anna "A"', "seen": "2020-05-01"}]
            failed = await answer(session, "rows", ask("old"), begins=False, df="wrong")
            assert failed.failure.reason == "DATASET_UNAVAILABLE"
            assert "HTTP 401" in failed.failure.message
            failed = await answer(session, "rows", ask("old", low=0), begins=False, df="small")
            assert failed.failure.reason == "DATASET_TOO_LARGE"
        assert "hidden" not in "".join(endpoint.queries)
