"""Node.js' driver for PostgreSQL, unchanged, against the database of a dataset."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from vantage.testing.postgres import Postgres
from vantage.testing.scripted_server import ScriptedServer
from vantage.testing.station import REPOSITORY, Station, assign, send

pytestmark = [pytest.mark.nodejs, pytest.mark.postgresql]

ROOT = str(Path(__file__).parents[2])


async def test_a_driver_of_another_language_needs_nothing_but_its_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("PYTHONPATH", ROOT)
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    sys.modules.pop("tests.interop.querying", None)
    with Postgres() as postgres:
        postgres.sql("CREATE TABLE cases (age integer); GRANT SELECT ON cases TO reader")
        postgres.sql("INSERT INTO cases SELECT n FROM generate_series(1, 100) AS n")
        async with ScriptedServer() as server:
            station = Station.create(tmp_path, server)
            (tmp_path / "password").write_text(postgres.password)
            station.settings["process"] = {"modules": {REPOSITORY: "tests.interop.querying"}}
            station.settings["datasets"] = [
                {
                    "name": "registry",
                    "format": "postgresql",
                    "url": postgres.url(),
                    "password_file": "password",
                    "access": "connection",
                }
            ]
            async with station.running():
                session = await station.session()
                send(session, assign("in_nodejs", '{"minimum": 91}', datasets={"db": "registry"}))
                await session.receive("accepted")
                await session.receive("started")
                done = (await session.receive("completed")).completed
    assert done.failure.message == ""
    expected = {"who": "reader", "number": 10, "ages": 955, "secrets": 0}
    assert json.loads(done.result.inline) == {"function": expected, "entry": expected}
