"""What waits for a person at the data station: decided by command, remembered, said to the researcher."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from typing import Any

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import Reason, VantageError
from vantage.node import admin
from vantage.testing.program import vantage
from vantage.testing.station import NODE, Station, assign, send


def demand(station: Station, approval: str, **more: Any) -> None:
    station.settings["policy"] = {"release": [{"approval": approval, **more}]}


async def command(station: Station, *words: str) -> tuple[int, str]:
    """``vantage node approvals``, as an admin types it."""
    process = await asyncio.create_subprocess_exec(
        *vantage("node", "approvals", *words, "--config", station.config_path),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


async def asked(station: Station, number: int = 1) -> str:
    """Name of what the console has said to wait, the so-manyth."""
    await station.heard("approvals show", number)
    lines = [line for line in station.said if "approvals show" in line]
    return lines[number - 1].split()[-1]


def audited(station: Station, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in (station.directory / "data" / "audit.log").read_text().splitlines())
    return [line for line in lines if line["event"] == event]


async def test_a_result_waits_is_shown_and_leaves_when_it_is_allowed(station: Station) -> None:
    demand(station, "every_result")
    async with station.running():
        session = await station.session()
        assert session.hello.slots > 2  # what waits takes none
        lease = send(session, assign("echo", '{"value": 77}'))
        await session.receive("accepted")
        await session.receive("started")
        name = await asked(station)
        told = (await session.receive("progress")).progress.message
        assert told == f"waits until the admin of {NODE} has looked at the result"
        status, shown = await command(station, "list")
        assert (status, name in shown, "users/alice" in shown) == (0, True, True)
        status, shown = await command(station, "show", name)
        assert status == 0
        for part in ('{"value":77}', "application/json", "12 bytes", lease.run, "users/alice", "function:  echo"):
            assert part in shown, shown
        assert station.runs != []
        status, _shown = await command(station, "allow", name)
        assert status == 0
        completed = (await session.receive("completed")).completed
        assert completed.result.inline == b'{"value":77}'
        assert station.runs == []
        assert (await command(station, "list"))[1] == "nothing waits\n"
        status, shown = await command(station, "allow", name)
        assert status == 1
        assert "nothing waits under" in shown
    (waits,), (decided,), (left,) = (audited(station, f"run.{each}") for each in ("waits", "approval", "result"))
    assert waits["approval"] == decided["approval"] == name
    assert (decided["decision"], decided["digest"]) == ("allowed", left["digest"])
    assert decided["who"].startswith("uid ")
    assert waits["seq"] < decided["seq"] < left["seq"]


async def test_what_an_algorithm_says_of_its_result_does_not_steer_the_terminal(station: Station) -> None:
    demand(station, "every_result")
    async with station.running():
        session = await station.session()
        send(session, assign("typed", json.dumps({"media_type": "text/x\x1b[2J\nfile:      other"})))
        status, shown = await command(station, "show", await asked(station))
        assert (status, shown.count("\nfile:"), "text/x" in shown, "\x1b" in shown) == (0, 1, True, False)


async def test_what_is_denied_stays_and_the_researcher_is_told_why(station: Station) -> None:
    demand(station, "every_result")
    async with station.running():
        session = await station.session()
        send(session, assign("echo", '{"value": 77}'))
        name = await asked(station)
        status, _said = await command(station, "deny", name, "--message", "ask me\x1b first")
        assert status == 0
        await session.receive("accepted")
        await session.receive("started")
        failure = (await session.receive("completed")).completed.failure
        assert failure.reason == "APPROVAL_DENIED"
        assert "ask me" in failure.message
        assert "\x1b" not in failure.message
        assert "77" not in failure.message
        assert station.runs == []
    assert audited(station, "run.result") == []


async def test_an_image_is_approved_of_once(station: Station) -> None:
    demand(station, "first_run", functions=["echo"])
    async with station.running():
        session = await station.session()
        for _ in range(2):
            send(session, assign("echo", '{"value": 1}'))
            await session.receive("accepted")
        name = await asked(station, 2)
        await asyncio.to_thread(admin.ask, station.directory / "data", "approvals.decide", id=name, allow=True)
        kinds = [(await session.receive("started", "completed")).WhichOneof("message") for _ in range(4)]
        assert sorted(map(str, kinds)) == ["completed", "completed", "started", "started"]
        assert any("approves of this image" in each.progress.message for each in session.received)
        send(session, assign("echo", '{"value": 1}'))
        for kind in ("accepted", "started", "completed"):
            await session.receive(kind)
        assert len([line for line in station.said if "approvals show" in line]) == 2
    # Also by the next process; and of another image it knows nothing.
    with sqlite3.connect(station.directory / "data" / "journal.db") as database:
        assert len(database.execute("SELECT * FROM approved_image").fetchall()) == 1
        assert database.execute("SELECT * FROM approval").fetchall() == []
    database.close()


async def test_a_run_that_may_not_start_is_refused(station: Station) -> None:
    demand(station, "first_run")
    async with station.running():
        session = await station.session()
        send(session, assign("echo", '{"value": 1}'))
        name = await asked(station)
        await session.receive("accepted")
        await command(station, "deny", name, "--message", "not reviewed")
        failure = (await session.receive("refused")).refused.failure
        assert failure.reason == "APPROVAL_DENIED"
        assert failure.message.endswith("not reviewed")
        send(session, assign("echo", '{"value": 1}'))  # that was one run, not the image for ever
        await asked(station, 2)


async def test_what_waits_is_found_again_by_the_next_process(station: Station) -> None:
    demand(station, "first_run")
    message = assign("echo", '{"value": 1}')
    async with station.running():
        send(await station.session(), message)
        name = await asked(station)
    station.said.clear()
    async with station.running() as agent:
        session = await station.session()
        assert [each.lease_id for each in session.hello.leases] == [message.lease.lease_id]
        assert await asked(station) == name
        session.acknowledge((await session.receive("accepted")).sequence)
        agent.stop.ask()  # finish what runs; what waits is left to the next process
        async with asyncio.timeout(30):
            await session.ended.wait()
    station.said.clear()
    async with station.running():
        session = await station.session()
        assert await asked(station) == name
        await command(station, "allow", name)
        kinds = [(await session.receive("accepted", "started", "completed")).WhichOneof("message") for _ in range(2)]
        assert kinds[-1] in ("started", "completed")


async def test_nothing_waits_longer_than_its_task(station: Station) -> None:
    demand(station, "every_result")
    async with station.running():
        session = await station.session()
        send(session, assign("echo", '{"value": 1}', seconds=4))
        name = await asked(station)
        await session.receive("accepted")
        await session.receive("started")
        assert (await session.receive("completed")).completed.failure.reason == "TASK_EXPIRED"
        with pytest.raises(VantageError) as caught:
            await asyncio.to_thread(admin.ask, station.directory / "data", "approvals.show", id=name)
        assert caught.value.reason is Reason.NOT_FOUND


async def test_a_cancelled_run_waits_no_more(station: Station) -> None:
    demand(station, "every_result")
    async with station.running():
        session = await station.session()
        lease = send(session, assign("echo", '{"value": 1}'))
        await asked(station)
        session.send(pb.ConnectResponse(cancel_run=pb.CancelRun(lease=lease, reason="TASK_CANCELLED")))
        await session.receive("accepted")
        await session.receive("started")
        assert (await session.receive("completed")).completed.cancelled.reason == "TASK_CANCELLED"
        assert await asyncio.to_thread(admin.ask, station.directory / "data", "approvals.list") == []
        assert station.runs == []


async def test_without_a_node_the_command_says_so(station: Station) -> None:
    station.write()
    status, said = await command(station, "list")
    assert status == 1
    assert "is it running" in said
