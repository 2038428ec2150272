from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vantage.testing.postgres import Postgres
from vantage.testing.station import REPOSITORY, Station

ROOT = str(Path(__file__).parents[3])
MODULE = "tests.node.datasets.algorithm"

TABLES = """
CREATE TABLE cases (patient integer PRIMARY KEY, age integer, weight numeric(6, 2), sex text, seen date, note text);
INSERT INTO cases SELECT n, n % 100, n / 7.0, CASE WHEN n % 2 = 0 THEN 'f' ELSE 'm' END,
  date '2020-01-01' + n, NULL FROM generate_series(1, 25000) AS n;
CREATE TABLE secret (name text);
GRANT SELECT ON cases TO reader;
GRANT SELECT, INSERT ON cases TO writer;
"""


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        running.sql(TABLES)
        yield running


@pytest.fixture
def reading(station: Station, monkeypatch: pytest.MonkeyPatch) -> Station:
    """A station that runs the functions of this directory, each in a process."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    sys.modules.pop(MODULE, None)
    station.settings["process"] = {"modules": {REPOSITORY: MODULE}}
    return station
