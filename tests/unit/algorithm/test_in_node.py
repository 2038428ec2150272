"""The SDK in a real node, as a process: the local API of both sides fits."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vantage.testing.scripted_server import ScriptedServer
from vantage.testing.station import REPOSITORY, Station, assign, send


async def test_a_node_runs_declared_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Before what is there: the process finds the package in the same place as this one, installed or not.
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    # Deeper than the address of a socket may be long.
    directory = tmp_path / ("d" * 100)
    directory.mkdir()
    async with ScriptedServer() as server:
        station = Station.create(directory, server)
        station.settings["process"] = {"modules": {REPOSITORY: "sample"}}
        async with station.running():
            session = await station.session()
            send(session, assign("rows", "{}", datasets={"df": "lung"}))
            await session.receive("accepted")
            await session.receive("started")
            completed = (await session.receive("completed")).completed
            assert completed.result.media_type == "application/json", completed.failure
            assert json.loads(completed.result.inline) == 3

            send(session, assign("fail", '{"kind": "few"}'))
            await session.receive("accepted")
            await session.receive("started")
            completed = (await session.receive("completed")).completed
            assert completed.failure.reason == "TOO_FEW_RECORDS"

            send(session, assign("undeclared", "{}"))
            assert (await session.receive("refused")).refused.failure.reason == "FUNCTION_UNKNOWN"
