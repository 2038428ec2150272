"""The example on real databases, by the local runner."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.unit.examples.test_examples import load
from vantage.algorithm import AlgorithmError, local
from vantage.common.errors import Reason
from vantage.testing.postgres import Postgres

pytestmark = pytest.mark.postgresql

TABLES = """
CREATE SCHEMA {0};
CREATE TABLE {0}.person (person_id integer);
CREATE TABLE {0}.condition_occurrence (person_id integer, condition_concept_id integer);
INSERT INTO {0}.person SELECT n FROM generate_series(1, {1}) AS n;
INSERT INTO {0}.condition_occurrence SELECT n % {2}, 4311499 FROM generate_series(1, 200) AS n;
GRANT USAGE ON SCHEMA {0} TO reader;
GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO reader;
"""


def test_prevalence_over_organizations() -> None:
    example = load("omop-prevalence")
    with Postgres() as postgres:
        for name, persons, cases in (("clara", 400, 40), ("hilda", 600, 60), ("beatrix", 500, 5)):
            postgres.sql(TABLES.format(name, persons, cases))
        url = postgres.url_with_password()
        data = {name: {"omop": f"{url}?cdm_schema={name}"} for name in ("clara", "hilda", "beatrix")}
        asked = {"concept_id": 4311499, "dataset": "omop"}
        assert local.run(example.prevalence, asked, data) == {
            "persons": 1000,
            "cases": 100,
            "prevalence": 0.1,
            "without_answer": ["beatrix"],
        }
        with pytest.raises(AlgorithmError) as caught:
            local.run(example.partial_prevalence, {"concept_id": 1}, {"clara": {"db": "postgresql:///nowhere"}})
        assert caught.value.reason is Reason.ARGUMENTS_INVALID
