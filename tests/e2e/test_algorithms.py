"""Algorithms that misbehave: a clear reason for the researcher, a node that goes on, and nothing left behind."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import docker
import psutil
import pytest

from vantage.api.task.v1 import task_pb2
from vantage.testing.process_network import NodeStation, ProcessNetwork
from vantage.testing.researcher import Researcher

pytestmark = pytest.mark.docker

MAX_MEMORY = 200 * 1024**2
"""Bytes of a node's process: neither 100 MB of lines nor 1 GB of a result pass through it at once."""
FAILED = task_pb2.RUN_STATE_FAILED
REFUSED = task_pb2.RUN_STATE_REFUSED


@pytest.fixture
def clara(network: ProcessNetwork) -> NodeStation:
    return network.nodes["clara"]


@pytest.fixture
async def researcher(network: ProcessNetwork) -> AsyncIterator[Researcher]:
    async with network.researcher() as logged_in:
        yield logged_in


async def lives_on(
    researcher: Researcher, image: str, node: NodeStation, engine: docker.DockerClient, pid: int
) -> None:
    """The same process serves the next task in as little memory, and of the one before there is nothing."""
    run = await researcher.ask(image, "echo", {"value": 7})
    assert json.loads(run.result.inline) == 7
    assert node.program.pid == pid
    assert node.leftovers(engine) == []
    assert psutil.Process(pid).memory_info().rss < MAX_MEMORY


@pytest.mark.parametrize(
    ("function", "arguments", "reason", "hint"),
    [
        ("fail", {}, "ALGORITHM_FAILED", "ValueError in fail: ask the admin of the node for its log"),
        ("crash", {}, "ALGORITHM_CRASHED", "exit status 139"),
        ("silent", {}, "NO_RESULT", "without an answer"),
        ("large", {"megabytes": 1024}, "RESULT_TOO_LARGE", "limits.max_result_bytes"),
        ("hungry", {}, "OUT_OF_MEMORY", "limits.memory"),
        ("hoard", {}, "SCRATCH_UNAVAILABLE", "limits.scratch"),
    ],
)
async def test_what_an_algorithm_does_wrong_is_said(
    engine: docker.DockerClient,
    clara: NodeStation,
    researcher: Researcher,
    unruly: str,
    function: str,
    arguments: dict[str, Any],
    reason: str,
    hint: str,
) -> None:
    pid = clara.program.pid
    run = await researcher.ask(unruly, function, arguments)
    assert (run.state, run.failure.reason) == (FAILED, reason), run.failure.message
    assert hint in run.failure.message
    assert "Jansen" not in run.failure.message  # what an exception says may be data
    await lives_on(researcher, unruly, clara, engine, pid)


async def test_a_hundred_megabytes_of_log_harm_nobody(
    engine: docker.DockerClient, clara: NodeStation, researcher: Researcher, unruly: str
) -> None:
    pid = clara.program.pid
    events = await researcher.events(researcher.question(unruly, "chatty", {"megabytes": 100}))
    (run,) = (each.run_finished.run for each in events if each.HasField("run_finished"))
    assert json.loads(run.result.inline) == 100, run.failure.message
    assert not any(each.HasField("run_log") for each in events)  # the policy does not let lines out
    await lives_on(researcher, unruly, clara, engine, pid)


@pytest.mark.parametrize(
    ("function", "arguments"), [("endless", {}), ("endless", {"stubborn": True}), ("bomb", {})], ids=str
)
async def test_what_never_ends_is_ended_at_the_deadline(
    engine: docker.DockerClient,
    clara: NodeStation,
    researcher: Researcher,
    unruly: str,
    function: str,
    arguments: dict[str, Any],
) -> None:
    pid = clara.program.pid
    run = await researcher.ask(unruly, function, arguments, timeout=4)
    assert run.state in (task_pb2.RUN_STATE_EXPIRED, FAILED)
    assert run.failure.reason == "TASK_EXPIRED"
    run = await researcher.ask(unruly, "echo", {"value": 7})
    assert (json.loads(run.result.inline), clara.program.pid) == (7, pid)
    # The server says so at the deadline; the node may still be giving the container time to end.
    assert await asyncio.to_thread(clara.program.stop) == 0
    try:
        assert clara.leftovers(engine) == []
    finally:
        await asyncio.to_thread(clara.start)


@pytest.mark.parametrize(
    ("function", "arguments", "datasets", "reason", "hint"),
    [
        ("explode", {}, {}, "FUNCTION_UNKNOWN", "it has bomb, chatty, count"),
        ("echo", {"value": "seven"}, {}, "ARGUMENTS_INVALID", "value"),
        ("echo", {}, {}, "ARGUMENTS_INVALID", "value"),
        ("count", {}, {"df": "heart"}, "DATASET_UNKNOWN", "it offers lung"),
        ("count", {}, {}, "ARGUMENTS_INVALID", "bind one"),
    ],
)
async def test_a_question_that_does_not_fit_is_refused(
    engine: docker.DockerClient,
    clara: NodeStation,
    researcher: Researcher,
    unruly: str,
    function: str,
    arguments: dict[str, Any],
    datasets: dict[str, str],
    reason: str,
    hint: str,
) -> None:
    pid = clara.program.pid
    run = await researcher.ask(unruly, function, arguments, datasets=datasets)
    assert (run.state, run.failure.reason) == (REFUSED, reason), run.failure.message
    assert hint in run.failure.message
    assert "seven" not in run.failure.message
    await lives_on(researcher, unruly, clara, engine, pid)
