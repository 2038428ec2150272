"""What a node lets be tried again, and for how long a server can have it run an order: never past its answer."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.node.test_orders import again
from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.testing import inprocess
from vantage.testing.orders import Asker
from vantage.testing.scripted_server import ScriptedSession
from vantage.testing.station import REPOSITORY, Station, send


@pytest.fixture
def asker(station: Station, tmp_path: Path) -> Asker:
    return Asker(tmp_path / "asking", station)


async def test_without_room_the_order_may_be_run_again_until_it_is_answered(
    station: Station, asker: Asker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The process and the node find the algorithm in the same place.
    modules = str(Path(__file__).parents[1] / "unit" / "algorithm")
    monkeypatch.setenv("PYTHONPATH", modules, prepend=os.pathsep)
    monkeypatch.syspath_prepend(modules)
    station.settings["process"] = {"modules": {REPOSITORY: "sample"}}
    message = asker.ask("big", '{"size": 3}')
    runs = station.directory / "data" / "runs"
    async with station.running():
        session = await station.session()
        shutil.rmtree(runs, ignore_errors=True)
        runs.write_text("in the way")
        failed = await _completed(session, message, ("accepted",))
        assert (failed.failure.reason, failed.retryable) == ("SCRATCH_UNAVAILABLE", True)
        assert failed.statement  # it may be the last attempt that the task allows
        runs.unlink()
        message = again(message)
        answered = await _completed(session, message)
        assert json.loads(asker.open(answered.result)) == "xxx"
        send(session, again(message))
        refused = (await session.receive("refused")).refused
        assert (refused.failure.reason, refused.retryable) == ("ORDER_REPLAYED", False)


async def test_what_an_algorithm_says_is_an_answer_whatever_it_says(station: Station, asker: Asker) -> None:
    message = asker.ask("report", '{"reason": "SCRATCH_UNAVAILABLE"}')
    async with station.running():
        session = await station.session()
        failed = await _completed(session, message)
        assert (failed.failure.reason, failed.retryable) == ("SCRATCH_UNAVAILABLE", False)
        send(session, again(message))
        assert (await session.receive("refused")).refused.failure.reason == "ORDER_REPLAYED"


async def test_a_run_that_was_lost_with_its_process_may_be_run_again_until_it_is_answered(
    station: Station, asker: Asker
) -> None:
    message = asker.ask("hold", '{"gate": "a"}')
    async with station.running():
        await _started(await station.session(), message)
    inprocess.gates["a"].leave.set()
    async with station.running():
        session = await station.session()
        lost = (await session.receive("completed")).completed
        assert (lost.failure.reason, lost.retryable) == ("NODE_LOST", True)
        message = again(message)
        assert json.loads(asker.open((await _completed(session, message)).result)) == {"gate": "a"}
        send(session, again(message))
        assert (await session.receive("refused")).refused.failure.reason == "ORDER_REPLAYED"
    assert inprocess.gates["a"].count == 2


async def test_the_shortest_limit_of_the_time_of_a_run_counts(station: Station, asker: Asker) -> None:
    message = asker.ask("hold", '{"gate": "a"}', order=lambda fields: fields.update(max_runtime=60))
    message.spec.max_runtime.FromSeconds(1)  # a server may narrow; a longer one than the order's would not count
    async with station.running():
        completed = await _completed(await station.session(), message)
    assert completed.failure.reason == "RUNTIME_EXCEEDED"
    assert "longer than the task allows" in completed.failure.message
    assert not completed.retryable


async def _started(session: ScriptedSession, message: pb.Assign) -> None:
    send(session, message)
    await session.receive("accepted")
    await session.receive("started")


async def _completed(
    session: ScriptedSession, message: pb.Assign, before: tuple[str, ...] = ("accepted", "started")
) -> pb.Completed:
    send(session, message)
    for kind in before:
        await session.receive(kind)
    return (await session.receive("completed")).completed
