"""``kill -9`` of server and node at every durable step: nothing is lost, and nothing happens twice."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from vantage.client import AsyncClient, AsyncTaskHandle, caller, models
from vantage.common.backoff import Backoff
from vantage.common.errors import UnavailableError
from vantage.server.config import ServerConfig
from vantage.testing.counted import Gate, Ledger
from vantage.testing.fault_points import arm
from vantage.testing.processes import RESEARCHER, Installation, Program
from vantage.testing.server import PASSWORD
from vantage.testing.station import COLLABORATION, IMAGE, REPOSITORY

PATIENCE = 60.0


@dataclass
class World:
    """A server and a node as processes with fault points, and a researcher who does not give up."""

    network: Installation
    client: AsyncClient
    ledger: Ledger

    async def ask(self, function: str, **arguments: Any) -> AsyncTaskHandle:
        """Ask, with one request id until the server has said that the task is there."""
        given = {"ledger": str(self.ledger.path), "key": function, **arguments}
        request_id = str(uuid.uuid4())
        while True:
            try:
                return await self.client.tasks.run(
                    IMAGE, function, given, COLLABORATION, ["organizations/clara"], request_id=request_id
                )
            except UnavailableError:  # it has waited between attempts
                continue

    async def cancel(self, handle: AsyncTaskHandle) -> None:
        while True:
            try:
                await handle.cancel()
                return
            except UnavailableError:
                continue

    async def died(self, program: Program) -> None:
        """Wait until a process has killed itself, and start it again."""
        async with asyncio.timeout(PATIENCE):
            assert await program.wait() == -signal.SIGKILL
        if program is self.network.server:
            await self.network.start_server()
        else:
            await program.start("ready: ")

    async def ended(self, handle: AsyncTaskHandle) -> models.Run:
        """How the only run of a task ended; its events tell the same, each once."""
        async with asyncio.timeout(PATIENCE):
            events = [event async for event in self.client.tasks.watch(handle.name, 1)]
        sequences = [event.sequence for event in events if event.sequence]
        assert sequences == list(range(2, 2 + len(sequences)))
        finished = [event for event in events if isinstance(event, models.RunFinished)]
        assert len(finished) == 1
        assert isinstance(events[-1], models.TaskFinished)
        (run,) = (await handle.refresh()).runs
        assert run.state is finished[0].run.state
        return run

    def check_once(self, run: models.Run) -> None:
        """It has one result, of its only execution."""
        assert run.state is models.RunState.SUCCEEDED, run.failure
        assert run.attempt == 1
        assert self.ledger.executions()[run.name] == 1

    def check_lost(self, run: models.Run) -> None:
        """Its execution was lost with the node: it was executed once more, or said to be lost, but ended once."""
        if run.state is not models.RunState.SUCCEEDED:
            assert run.failure is not None
            assert run.failure.reason == "NODE_LOST"
        assert 1 <= self.ledger.executions()[run.name] <= run.attempt + 1


@pytest.fixture(scope="module")
def impatience() -> Iterator[None]:
    """The researcher asks again soon: how long she waits before is not what is tested."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caller, "Backoff", partial(Backoff, base=0.05))
        yield


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def world(impatience: None, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("k")
    settings = {"process": {"modules": {REPOSITORY: "vantage.testing.counted"}}}
    config = ServerConfig(stop_grace_seconds=1, trial=True, heartbeat_seconds=1, lease_seconds=20)
    async with Installation.running(
        directory / "network", tls=False, settings=settings, config=config, faulty=True
    ) as network:
        async with AsyncClient.connect(network.address, tls=False) as client:
            await client.auth.login(RESEARCHER, PASSWORD)
            yield World(network, client, Ledger(directory / "ledger"))
        await network.nodes["clara"].stop()
        left = directory / "network" / "clara" / "data"
        assert not list((left / "runs").iterdir())
        with sqlite3.connect(left / "journal.db") as journal:
            for table in ("assignment", "outgoing"):
                assert journal.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)  # noqa: S608  # a constant
        journal.close()
        with sqlite3.connect(network.data / "server.db") as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()


@pytest.mark.parametrize("moment", ["before_commit", "committed"])
@pytest.mark.parametrize("step", ["create", "claim", "start", "succeed"])
@pytest.mark.asyncio(loop_scope="module")
async def test_the_server_dies(world: World, step: str, moment: str) -> None:
    arm(world.network.faults("server"), f"server.{step}.{moment}")
    async with Gate.at(world.ledger.path.parent) as gate:
        asking = asyncio.create_task(world.ask("hold", gate=str(gate.path)))
        if step == "succeed":
            await gate.entered()
            gate.open()
        await world.died(world.network.server)
        await gate.entered()
        gate.open()
        run = await world.ended(await asking)
    world.check_once(run)


@pytest.mark.parametrize("moment", ["before_commit", "committed"])
@pytest.mark.asyncio(loop_scope="module")
async def test_the_server_dies_while_it_cancels(world: World, moment: str) -> None:
    async with Gate.at(world.ledger.path.parent) as gate:
        handle = await world.ask("hold", gate=str(gate.path))
        await gate.entered()
        arm(world.network.faults("server"), f"server.cancel.{moment}")
        cancelling = asyncio.create_task(world.cancel(handle))
        await world.died(world.network.server)
        await cancelling
        await gate.left()
        run = await world.ended(handle)
    assert run.state is models.RunState.CANCELLED
    assert world.ledger.executions()[run.name] == 1


@pytest.mark.asyncio(loop_scope="module")
async def test_the_server_dies_and_a_run_goes_on(world: World) -> None:
    async with Gate.at(world.ledger.path.parent) as gate:
        handle = await world.ask("hold", gate=str(gate.path))
        await gate.entered()
        await world.network.server.stop(kill=True)
        gate.open()  # it ends while nobody can be told
        await world.network.start_server()
        world.check_once(await world.ended(handle))


@pytest.mark.parametrize(
    "point",
    [
        "accept.before_commit",
        "accept.committed",
        "run.before",
        "run.started",
        "finish.committed",
        "ack.before",
        "ack.after",
        "acknowledge.before_commit",
        "acknowledge.committed",
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_node_dies_and_no_execution_with_it(world: World, point: str) -> None:
    node = world.network.nodes["clara"]
    arm(world.network.faults("clara"), f"node.{point}")
    handle = await world.ask("count")
    await world.died(node)
    world.check_once(await world.ended(handle))


@pytest.mark.parametrize(
    "point", ["mark_started.before_commit", "mark_started.committed", "result.stored", "finish.before_commit"]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_node_dies_with_what_it_executes(world: World, point: str) -> None:
    node = world.network.nodes["clara"]
    arm(world.network.faults("clara"), f"node.{point}")
    handle = await world.ask("count")
    await world.died(node)
    world.check_lost(await world.ended(handle))


@pytest.mark.asyncio(loop_scope="module")
async def test_both_die_with_a_result_on_its_way(world: World) -> None:
    arm(world.network.faults("clara"), "node.finish.committed")
    async with Gate.at(world.ledger.path.parent) as gate:
        handle = await world.ask("hold", gate=str(gate.path))
        await gate.entered()
        await world.network.server.stop(kill=True)
        gate.open()
        async with asyncio.timeout(PATIENCE):
            assert await world.network.nodes["clara"].wait() == -signal.SIGKILL
        await world.network.start_server()
        await world.network.nodes["clara"].start("ready: ")
        world.check_once(await world.ended(handle))
