"""The node as the process that its admin starts and that dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psutil

from vantage.testing.station import Station, assign, send

MAX_IDLE_BYTES = 80 * 1024**2


@asynccontextmanager
async def started(station: Station) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from vantage.node.cli import node; node()",
        "start",
        "--config",
        str(station.write()),
        "--ready-file",
        str(station.directory / "ready"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_it_says_when_it_is_ready_and_ends_when_asked(station: Station) -> None:
    async with started(station) as process:
        await station.session()
        assert process.stdout is not None
        lines = [(await asyncio.wait_for(process.stdout.readline(), 20)).decode() for _ in range(2)]
        assert "WITHOUT ANY SANDBOX" in lines[0]
        assert lines[1].startswith("ready: organizations/clara/nodes/clara-1 connected to")
        assert psutil.Process(process.pid).memory_info().rss < MAX_IDLE_BYTES
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        rest = (await process.stdout.read()).decode()
        assert "stopping" in rest
        assert rest.endswith("stopped\n")


async def test_after_a_kill_nothing_that_was_said_is_lost(station: Station) -> None:
    async with started(station) as process:
        session = await station.session()
        done = send(session, assign())
        await session.receive("accepted")
        await session.receive("started")
        completed = await session.receive("completed")
        running = send(session, assign("hold", '{"gate": "a"}'))
        await session.receive("accepted")
        await session.receive("started")
        # What is known of the start reaches the disk with the next commit: make one.
        marker = send(session, assign())
        await session.receive("accepted")
        await session.receive("started")
        await session.receive("completed")
        process.kill()
        await process.wait()
    async with started(station):
        session = await station.session()
        assert {each.run for each in session.hello.leases} == {done.run, running.run, marker.run}
        assert await session.receive("completed") == completed
        assert (await session.receive("completed")).completed.lease == marker
        lost = (await session.receive("completed")).completed
        assert lost.lease == running
        assert lost.failure.reason == "NODE_LOST"
