"""What a node tells its admin of what it does."""

from __future__ import annotations

import asyncio
import json

from vantage.node import admin
from vantage.testing import inprocess
from vantage.testing.program import vantage
from vantage.testing.station import Station, assign, send


async def test_runs_who_waits_and_what_is_not_acknowledged_are_shown(station: Station) -> None:
    data = station.directory / "data"
    async with station.running():
        session = await station.session()
        leases = [send(session, assign("hold", json.dumps({"gate": gate}))) for gate in "abc"]
        await inprocess.gates["a"].entered.wait()
        await inprocess.gates["b"].entered.wait()
        for _ in leases:
            await session.receive("accepted", "started")
        document = await asyncio.to_thread(admin.ask, data, "status")
        assert document["connected"]
        assert [(each["run"], each["phase"], each["requester"]) for each in document["runs"]] == [
            (leases[0].run, "running", "users/alice"),
            (leases[1].run, "running", "users/alice"),
            (leases[2].run, "waiting for room", "users/alice"),
        ]
        assert (document["waiting"], document["taken"]["slots"], document["total"]["slots"]) == (1, 2, 2)
        assert document["unacknowledged"] == 5  # three Accepted, two Started

        process = await asyncio.create_subprocess_exec(
            *vantage("node", "status", "--config", station.config_path), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        assert process.returncode == 0
        assert f"{leases[2].run} for users/alice: waiting for room" in said.decode()
        assert "2 of 2 slots; 1 runs wait" in said.decode()
