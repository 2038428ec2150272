"""Databases that runs connect to: through the door, with the credentials of that dataset alone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.testing.postgres import Postgres
from vantage.testing.scripted_server import ScriptedSession
from vantage.testing.station import Station, assign, send

pytestmark = pytest.mark.postgresql


def offer(station: Station, postgres: Postgres, role: str = "reader", name: str = "registry", **more: Any) -> None:
    """Add a database to a station's datasets."""
    (station.directory / "password").write_text(f"{postgres.password}\n")
    station.settings["datasets"].append(
        {
            "name": name,
            "format": "postgresql",
            "url": postgres.url(role),
            "password_file": "password",
            "access": "connection",
            **more,
        }
    )


async def answer(
    session: ScriptedSession, function: str, arguments: str = "{}", *, begins: bool = True, **datasets: str
) -> pb.Completed:
    send(session, assign(function, arguments, datasets=datasets))
    await session.receive("accepted")
    if begins:
        await session.receive("started")
    return (await session.receive("completed")).completed


def events(station: Station, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(each) for each in (station.directory / "data" / "audit.log").read_text().splitlines()]
    return [each for each in lines if each["event"] == event]


async def test_unchanged_drivers_reach_the_database_and_every_connection_is_noted(
    reading: Station, postgres: Postgres
) -> None:
    offer(reading, postgres)
    async with reading.running():
        session = await reading.session()
        done = await answer(session, "through_psycopg", '{"minimum": 50}', db="registry")
        assert done.failure.message == ""
        assert json.loads(done.result.inline) == {"count": 12500, "mean": 74.5, "who": ["reader"], "psql": 25000}
    opened, closed = events(reading, "run.connect"), events(reading, "run.disconnect")
    assert [each["decision"] for each in opened] == ["connected"] * 3
    assert {each["to"] for each in opened + closed} == {"dataset:registry"}
    assert all(each["bytes_sent"] > 50 and each["bytes_received"] > 50 for each in closed)
    assert reading.runs == []


async def test_credentials_reach_the_run_that_asked_and_nothing_else(
    reading: Station, postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    offer(reading, postgres)
    async with reading.running():
        session = await reading.session()
        done = await answer(session, "surroundings", db="registry", df="lung")
        seen = json.loads(done.result.inline)
        refused = await answer(session, "through_another_parameter", df="lung")
        assert json.loads(refused.result.inline) == "DATASET_ACCESS_REFUSED DATASET_NOT_REQUESTED broken"
        said = [each.SerializeToString() for each in session.received]
    secret = postgres.password
    assert secret not in json.dumps(seen)
    assert secret not in caplog.text
    assert not any(secret.encode() in each for each in said)
    assert "reader" not in seen["environment"].values()
    kept = [each for each in (reading.directory / "data").rglob("*") if each.is_file()]
    assert [each for each in kept if secret.encode() in each.read_bytes()] == []
    assert [each["reason"] for each in events(reading, "run.connect")] == [
        "DATASET_ACCESS_REFUSED",
        "DATASET_NOT_REQUESTED",
        "DATASET_NOT_REQUESTED",
    ]


async def test_a_role_that_may_write_is_not_handed_out(reading: Station, postgres: Postgres) -> None:
    offer(reading, postgres, role="writer")
    offer(reading, postgres, role="admin", name="everything")
    async with reading.running():
        session = await reading.session()
        for name in ("registry", "everything"):
            refused = await answer(session, "through_psycopg", '{"minimum": 1}', begins=False, db=name)
            assert refused.failure.reason == "DATASET_UNSAFE"
        # What a role may do is looked at each time.
        postgres.sql("REVOKE INSERT ON cases FROM writer")
        done = await answer(session, "through_psycopg", '{"minimum": 1}', db="registry")
        assert json.loads(done.result.inline)["who"] == ["writer"]
        postgres.sql("GRANT pg_write_all_data TO writer")
        refused = await answer(session, "through_psycopg", '{"minimum": 1}', begins=False, db="registry")
        assert refused.failure.reason == "DATASET_UNSAFE"
        postgres.sql("REVOKE pg_write_all_data FROM writer; GRANT INSERT ON cases TO writer")


async def test_a_file_is_no_database_and_a_database_that_is_away_is_said_to_be(
    reading: Station, postgres: Postgres
) -> None:
    offer(reading, postgres)
    offer(reading, postgres, name="away", url="postgresql://reader@127.0.0.1:1/registry")
    (reading.directory / "wrong").write_text("something else")
    offer(reading, postgres, name="wrong", password_file="wrong")
    async with reading.running():
        session = await reading.session()
        mistaken = await answer(session, "through_psycopg", '{"minimum": 1}', db="lung")
        assert mistaken.failure.reason == "ARGUMENTS_INVALID"
        mistaken = await answer(session, "rows", df="registry")
        assert mistaken.failure.reason == "ARGUMENTS_INVALID"
        for name in ("away", "wrong"):
            away = await answer(session, "through_psycopg", '{"minimum": 1}', begins=False, db=name)
            assert away.failure.reason == "DATASET_UNAVAILABLE"
            assert postgres.password not in away.failure.message
