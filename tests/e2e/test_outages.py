"""A registry that is down, a disk that is full: said to the researcher, and over when it is over."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from vantage.api.task.v1 import task_pb2
from vantage.node.images.source import EVIDENCE
from vantage.testing.disks import SmallDisk
from vantage.testing.process_network import NodeStation, ProcessNetwork
from vantage.testing.registry import Registry

pytestmark = pytest.mark.docker


async def test_a_registry_that_is_down_is_said_and_the_run_goes_on_when_it_is_back(
    network: ProcessNetwork, engine: docker.DockerClient, registry: Registry, unruly: str
) -> None:
    clara = network.nodes["clara"]
    await asyncio.to_thread(clara.program.stop)
    # What it knows of the image from runs before would do, as long as the engine has it.
    await asyncio.to_thread(shutil.rmtree, clara.data / EVIDENCE, ignore_errors=True)
    await asyncio.to_thread(clara.start)
    pid = clara.program.pid
    await asyncio.to_thread(registry.stop)
    started = False
    run = task_pb2.Run()
    try:
        async with network.researcher() as researcher:
            run = await researcher.ask(unruly, "echo", {"value": 7}, max_attempts=1)
            assert run.failure.reason == "REGISTRY_UNAVAILABLE"
            async for event in researcher.follow(researcher.question(unruly, "echo", {"value": 7}, max_attempts=10)):
                if event.run_changed.run.HasField("retry_time") and not started:
                    assert event.run_changed.run.last_failure.reason == "REGISTRY_UNAVAILABLE"
                    assert registry.address in event.run_changed.run.last_failure.message
                    await asyncio.to_thread(registry.start)
                    started = True
                if event.HasField("run_finished"):
                    run = event.run_finished.run
    finally:
        if not started:
            await asyncio.to_thread(registry.start)
    assert json.loads(run.result.inline) == 7, run.failure.message
    assert run.attempt > 1
    assert clara.program.pid == pid
    assert clara.leftovers(engine) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """A file system of 12 MB."""
    if not SmallDisk.possible():
        # With a rootless engine one cannot mount. CI is root: were it not, it must not pass without these tests.
        say = pytest.fail if "CI" in os.environ else pytest.skip
        say("mounting a small file system needs root")
    with SmallDisk.mounted(tmp_path / "disk") as disk:
        yield disk


@pytest.fixture
def cramped(network: ProcessNetwork, small_disk: SmallDisk) -> Iterator[NodeStation]:
    """The node of hilda with its state on the small disk."""
    hilda = network.nodes["hilda"]
    hilda.program.stop()
    before = str(hilda.data)
    hilda.configure(data_dir=str(small_disk.path / "data"))
    hilda.start()
    yield hilda
    hilda.program.stop()
    hilda.configure(data_dir=before)
    hilda.start()


async def test_a_result_that_does_not_fit_on_the_disk_is_said_to_be_that(
    network: ProcessNetwork, cramped: NodeStation, engine: docker.DockerClient, unruly: str
) -> None:
    pid = cramped.program.pid
    async with network.researcher() as researcher:
        run = await researcher.ask(unruly, "large", {"megabytes": 30}, to=["hilda"], max_attempts=1)
        assert run.failure.reason == "SCRATCH_UNAVAILABLE", run.failure
        assert "disk" in run.failure.message
        run = await researcher.ask(unruly, "echo", {"value": 7}, to=["hilda"])
        assert json.loads(run.result.inline) == 7, run.failure.message
    assert cramped.program.pid == pid
    assert cramped.leftovers(engine) == []


async def test_a_full_disk_is_said_and_the_node_goes_on_when_there_is_room_again(
    network: ProcessNetwork, cramped: NodeStation, engine: docker.DockerClient, small_disk: SmallDisk, unruly: str
) -> None:
    pid = cramped.program.pid
    async with network.researcher() as researcher:
        run = await researcher.ask(unruly, "echo", {"value": 6}, to=["hilda"])
        assert json.loads(run.result.inline) == 6, run.failure.message
        small_disk.fill()
        run = await researcher.ask(unruly, "echo", {"value": 7}, to=["hilda"], timeout=30, max_attempts=1)
        assert run.failure.reason == "SCRATCH_UNAVAILABLE", run.failure
        small_disk.free()
        run = await researcher.ask(unruly, "echo", {"value": 8}, to=["hilda"])
        assert json.loads(run.result.inline) == 8, run.failure.message
    assert cramped.program.pid == pid
    assert cramped.leftovers(engine) == []
