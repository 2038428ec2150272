"""What leaves a node: results that meet the data owner's rules, and nothing by another way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import ConfigurationError
from vantage.node import config as node_config
from vantage.testing.scripted_server import ScriptedSession
from vantage.testing.station import Station, assign, send


def rule(station: Station, **demands: Any) -> None:
    station.settings["policy"] = {"release": [demands]}


async def finish(session: ScriptedSession, message: pb.Assign) -> pb.Completed:
    send(session, message)
    await session.receive("accepted")
    await session.receive("started")
    return (await session.receive("completed")).completed


def audited(station: Station, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (station.directory / "data" / "audit.log").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


async def test_a_count_that_is_too_small_stays(station: Station) -> None:
    rule(station, datasets=["lung"], counts=["rows"], minimum_count=4)
    async with station.running():
        session = await station.session()
        completed = await finish(session, assign("count", "{}", datasets={"table": "lung"}))
        assert completed.failure.reason == "DISCLOSURE_REFUSED"
        assert "rows is below 4" in completed.failure.message
        assert "3" not in completed.failure.message
        assert station.runs == []
        completed = await finish(session, assign("echo", '{"value": 1}'))  # reads nothing: the rule is not about it
        assert json.loads(completed.result.inline) == {"value": 1}
    assert [each["reason"] for each in audited(station, "run.ended")] == ["DISCLOSURE_REFUSED"]
    assert [each["bytes"] for each in audited(station, "run.result")] == [len(completed.result.inline)]


async def test_a_count_that_is_large_enough_leaves(station: Station) -> None:
    rule(station, datasets=["lung"], counts=["rows"], minimum_count=3)
    async with station.running():
        completed = await finish(await station.session(), assign("count", "{}", datasets={"table": "lung"}))
        assert completed.result.inline == b'{"rows":3}'
        assert completed.result.size_bytes == 10
        assert station.runs == []


async def test_what_was_blanked_is_said_and_noted(station: Station) -> None:
    rule(station, counts=["*"], minimum_count=4, small_counts="suppress")
    async with station.running():
        session = await station.session()
        completed = await finish(session, assign("count", "{}", datasets={"table": "lung"}))
        assert completed.result.inline == b'{"rows":null}'
        said = [each.progress.message for each in session.received if each.HasField("progress")]
        assert said == ["1 parts of the result stay at the node: counts too small"]
    (noted,) = audited(station, "run.blanked")
    assert noted["parts"] == 1


@pytest.mark.parametrize(
    ("demands", "question", "reason"),
    [
        ({"media_types": ["application/json"]}, ("large", '{"size": 10}'), "DISCLOSURE_REFUSED"),
        ({"max_result_bytes": 9}, ("large", '{"size": 10}'), "RESULT_TOO_LARGE"),
        ({"columns": ["rows"]}, ("echo", '{"value": 1}'), "DISCLOSURE_REFUSED"),
        ({"columns": ["rows"]}, ("large", '{"size": 10}'), "DISCLOSURE_REFUSED"),
        ({"columns": ["**"]}, ("typed", '{"media_type": "patient/Jansen"}'), "DISCLOSURE_REFUSED"),
        ({"media_types": ["text/csv"]}, ("typed", '{"media_type": "patient/Jansen"}'), "DISCLOSURE_REFUSED"),
    ],
)
async def test_only_kinds_sizes_and_fields_that_are_allowed_leave(
    station: Station, demands: dict[str, Any], question: tuple[str, str], reason: str
) -> None:
    rule(station, **demands)
    async with station.running():
        completed = await finish(await station.session(), assign(*question))
        assert completed.failure.reason == reason
        assert "jansen" not in completed.failure.message.lower()
        assert station.runs == []
    assert audited(station, "run.result") == []


async def test_what_an_algorithm_prints_or_says_stays_where_its_results_are_looked_at(station: Station) -> None:
    station.settings["policy"] = {
        "allow_logs": True,
        "release": [{"functions": ["report", "talk", "crash"], "columns": ["lines"]}],
    }
    async with station.running():
        session = await station.session()
        completed = await finish(session, assign("report", '{"reason": "TOO_FEW_RECORDS"}'))
        assert completed.failure.reason == "TOO_FEW_RECORDS"
        assert "too few rows" not in completed.failure.message
        completed = await finish(session, assign("crash", "{}"))
        assert "secret value 42" not in completed.failure.message
        await finish(session, assign("talk", '{"lines": 2.3}'))
        assert not any(each.HasField("log_lines") for each in session.received)
        assert not any(each.progress.message for each in session.received)
        assert [each.progress.fraction for each in session.received if each.HasField("progress")][-1] == 0.87


TYPED = "Application/JSON; patient=Jansen"


@pytest.mark.parametrize(
    ("demands", "expected"),
    [
        ({"columns": ["$"]}, "application/json"),
        ({"media_types": ["application/json"]}, "application/json"),
        ({"max_result_bytes": "1KiB"}, TYPED),
    ],
)
async def test_nothing_is_said_beside_the_type_of_a_result_that_is_looked_at(
    station: Station, demands: dict[str, Any], expected: str
) -> None:
    rule(station, **demands)
    async with station.running():
        completed = await finish(await station.session(), assign("typed", json.dumps({"media_type": TYPED})))
        assert (completed.result.media_type, completed.result.inline) == (expected, b"1")
    assert ("Jansen" in expected) == ("Jansen" in (station.directory / "data" / "audit.log").read_text())


async def test_where_results_are_looked_at_peers_and_hosts_are_told_nothing(station: Station) -> None:
    station.settings["policy"] = {"peers": True, "pin_peer_authorities": True, "release": [{"columns": ["**"]}]}
    async with station.running():
        completed = await finish(await station.session(), assign("whisper", "{}"))
        said = json.loads(completed.result.inline)
        assert sorted(said) == ["host", "listen", "peer"]
        assert all("policy.release" in each for each in said.values())


async def test_a_result_that_the_parser_cannot_bear_harms_nobody(
    station: Station,
) -> None:
    rule(station, columns=["**"])
    deep = {"value": 1}
    async with station.running():
        session = await station.session()
        completed = await finish(session, assign("nested", '{"depth": 100000}'))
        assert completed.failure.reason == "DISCLOSURE_REFUSED"
        completed = await finish(session, assign("echo", json.dumps(deep)))
        assert json.loads(completed.result.inline) == deep


def test_a_rule_about_a_dataset_that_there_is_not_is_a_mistake(station: Station, tmp_path: Path) -> None:
    rule(station, datasets=["lungs"], columns=["n"])
    station.config_path.write_text(json.dumps({**station.settings, "server": {"address": "127.0.0.1:1"}}))
    with pytest.raises(ConfigurationError, match="lungs"):
        node_config.load(station.config_path)
