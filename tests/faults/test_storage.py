"""Disks that are full, a database that is locked or gone: said, nothing lost, and over when the cause is."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.client import AsyncClient, AsyncTaskHandle, models
from vantage.common.errors import LimitExceededError, Reason
from vantage.node.journal import Journal
from vantage.server.config import ServerConfig
from vantage.testing.counted import Gate, Ledger
from vantage.testing.disks import SmallDisk
from vantage.testing.processes import RESEARCHER, Installation
from vantage.testing.server import PASSWORD
from vantage.testing.station import COLLABORATION, IMAGE, REPOSITORY

PATIENCE = 60.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if not SmallDisk.possible():
        # CI is root: were it not, it must not pass without these tests.
        say = pytest.fail if "CI" in os.environ else pytest.skip
        say("mounting a small file system needs root")
    with SmallDisk.mounted(tmp_path / "disk") as disk:
        yield disk


@dataclass
class World:
    """A server and a node as processes, and a researcher."""

    network: Installation
    client: AsyncClient
    ledger: Ledger

    async def ask(self, function: str, **arguments: Any) -> AsyncTaskHandle:
        given = {"ledger": str(self.ledger.path), "key": function, **arguments}
        return await self.client.tasks.run(IMAGE, function, given, COLLABORATION, ["organizations/clara"])

    async def check_once(self, handle: AsyncTaskHandle, attempt: int = 1) -> None:
        """It has succeeded with its only execution."""
        await handle.result(PATIENCE)
        (run,) = (await handle.refresh()).runs
        assert (run.state, run.attempt) == (models.RunState.SUCCEEDED, attempt)
        assert self.ledger.executions()[run.name] == 1


@asynccontextmanager
async def world(directory: Path, **settings: Any) -> AsyncIterator[World]:
    config = ServerConfig(stop_grace_seconds=1, trial=True, heartbeat_seconds=1, lease_seconds=30)
    module = {"process": {"modules": {REPOSITORY: "vantage.testing.counted"}}}
    async with (
        # With fault points, none of which is armed: such a node does not wait long before it comes back.
        Installation.running(directory, tls=False, settings=module | settings, config=config, faulty=True) as network,
        AsyncClient.connect(network.address, tls=False) as client,
    ):
        await client.auth.login(RESEARCHER, PASSWORD)
        yield World(network, client, Ledger(directory / "ledger"))


def completed(lease: pb.Lease) -> pb.ConnectRequest:
    return pb.ConnectRequest(completed=pb.Completed(lease=lease))


async def test_what_a_journal_could_not_write_it_writes_when_there_is_room(disk: SmallDisk) -> None:
    leases = [pb.Lease(run=f"tasks/t/runs/{name}", lease_id=name, attempt=1) for name in ("done", "begun", "ended")]
    journal = await Journal.open(disk.path / "journal.db")
    for lease in leases:
        assert await journal.accept(pb.Assign(lease=lease))
    await journal.finish("done", completed(leases[0]))
    disk.fill()
    journal.acknowledge(next(journal.unsent(0)).sequence)
    journal.mark_started("begun")
    journal.mark_started("ended")
    await journal.finish("ended", completed(leases[2]))  # could not be written, is said all the same
    assert [message.completed.lease.lease_id for message in journal.unsent(0)] == ["ended"]
    with pytest.raises(sqlite3.OperationalError):
        await journal.write(lambda db: db.execute("INSERT INTO meta VALUES ('x', 1)"))
    disk.free()
    await journal.write(lambda db: None)
    # What a process would find that comes after a kill -9 of this one.
    with sqlite3.connect(f"file:{disk.path / 'journal.db'}?mode=ro", uri=True) as found:
        assert set(found.execute("SELECT lease_id, started FROM assignment")) == {("begun", 1), ("ended", 1)}
        assert found.execute("SELECT lease_id FROM outgoing").fetchall() == [("ended",)]
    found.close()
    await journal.close()


async def test_what_is_owed_is_written_without_anybody_asking(disk: SmallDisk) -> None:
    journal = await Journal.open(disk.path / "journal.db")
    await journal.accept(pb.Assign(lease=pb.Lease(run="tasks/t/runs/r", lease_id="one", attempt=1)))
    disk.fill()
    written = asyncio.Event()
    loop = asyncio.get_running_loop()
    journal.mark_started("one")
    journal.later(lambda db: loop.call_soon_threadsafe(written.set) if _started(db) else None)
    with pytest.raises(sqlite3.OperationalError):
        await journal.write(lambda db: db.execute("INSERT INTO meta VALUES ('x', 1)"))
    written.clear()  # it was tried, and undone
    disk.free()
    async with asyncio.timeout(PATIENCE):
        await written.wait()
    await journal.close()


def _started(db: sqlite3.Connection) -> bool:
    return bool(db.execute("SELECT started FROM assignment").fetchone()[0])


async def test_a_node_whose_disk_is_full_loses_no_run(tmp_path: Path, disk: SmallDisk) -> None:
    async with (
        world(tmp_path / "network", data_dir=str(disk.path / "data")) as here,
        Gate.at(tmp_path) as gate,
    ):
        handle = await here.ask("hold", gate=str(gate.path))
        await gate.entered()
        disk.fill()
        gate.open()
        await here.check_once(handle)  # it has nowhere to be kept, but it arrives
        waiting = await here.ask("count")
        async with asyncio.timeout(PATIENCE):
            async for event in waiting.events():
                if isinstance(event, models.RunChanged) and event.run.last_failure is not None:
                    assert event.run.last_failure.reason == Reason.SCRATCH_UNAVAILABLE.name
                    break
        disk.free()
        await waiting.result(PATIENCE)
        (run,) = (await waiting.refresh()).runs
        assert here.ledger.executions()[run.name] == 1
        await here.network.nodes["clara"].stop()
        with sqlite3.connect(disk.path / "data" / "journal.db") as journal:
            assert journal.execute("SELECT count(*) FROM assignment").fetchone() == (0,)
        journal.close()


async def test_a_server_whose_disk_is_full_loses_no_result(tmp_path: Path, disk: SmallDisk) -> None:
    directory = tmp_path / "network"
    directory.mkdir()
    (disk.path / "server").mkdir()
    (directory / "server").symlink_to(disk.path / "server")
    async with world(directory) as here, Gate.at(tmp_path) as gate:
        handle = await here.ask("hold", gate=str(gate.path))
        await gate.entered()
        disk.fill()
        with pytest.raises(LimitExceededError) as caught:
            await here.ask("count")
        assert caught.value.reason is Reason.STORAGE_FULL
        gate.open()
        await gate.left()
        await here.network.server.said("database commit failed", again=True)
        disk.free()
        await here.check_once(handle)
        await here.check_once(await here.ask("count"))


async def test_a_database_that_is_locked_for_long(tmp_path: Path) -> None:
    async with world(tmp_path / "network") as here, Gate.at(tmp_path) as gate:
        handle = await here.ask("hold", gate=str(gate.path))
        await gate.entered()
        lock = sqlite3.connect(here.network.data / "server.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        gate.open()
        asking = asyncio.create_task(here.ask("count"))
        await here.network.server.said("database commit failed")
        lock.execute("ROLLBACK")
        lock.close()
        await here.check_once(handle)
        await here.check_once(await asking)


async def test_a_database_that_was_moved_away_and_comes_back(tmp_path: Path) -> None:
    async with world(tmp_path / "network") as here, Gate.at(tmp_path) as gate:
        handle = await here.ask("hold", gate=str(gate.path))
        await gate.entered()
        place = here.network.data / "server.db"
        place.rename(place.with_suffix(".away"))
        gate.open()
        asking = asyncio.create_task(here.ask("count"))
        await here.network.server.said("database file is gone")
        place.with_suffix(".away").rename(place)
        await here.check_once(handle)
        await here.check_once(await asking)
        await here.network.server.stop(kill=True)
        with sqlite3.connect(place) as database:  # all that was answered is in the file that is there
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert database.execute("SELECT count(*) FROM task").fetchone() == (2,)
        database.close()
