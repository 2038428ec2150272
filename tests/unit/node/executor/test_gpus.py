"""Graphics processors: only where the admin lends them, only as many as were asked for, each to one run at a time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest
from docker.types import HostConfig

from vantage.common.declaration import Declaration, Function
from vantage.common.errors import Reason, VantageError
from vantage.common.oci import ImageReference
from vantage.node.door import RunContext
from vantage.node.executor.base import Job, Limits
from vantage.node.executor.gpus import GpuPool
from vantage.node.executor.sandbox import ImageFacts, container_settings
from vantage.node.images import VerifiedImage
from vantage.node.policy import decide_call
from vantage.testing.station import assign

TRAIN = Declaration.of([Function("train", gpus=1)])
JOB = Job(
    "tasks/t/runs/r",
    "lease",
    VerifiedImage(ImageReference("registry.test", "image", f"sha256:{'0' * 64}"), "sha256:0", TRAIN, ("author",)),
    Limits(memory=2**20, cpus=1, pids=32, scratch=2**20),
    gpus=1,
)
CONTEXT = RunContext(
    run="tasks/t/runs/r",
    function="train",
    organization="organizations/clara",
    collaboration="collaborations/trial",
    organizations=(),
    datasets=(),
    arguments=b"{}",
    arguments_media_type="application/json",
    max_result_bytes=1,
    deadline=datetime.now(UTC),
    image="",
    token="token",
)


def host_config(*gpus: str, facts: ImageFacts | None = None) -> tuple[HostConfig, dict[str, str]]:
    """What the engine is sent."""
    settings = container_settings(JOB, CONTEXT, Path("/run"), facts or ImageFacts(), gpus, "list")
    return HostConfig(version="1.41", device_requests=settings["device_requests"]), settings["environment"]


def test_a_run_gets_the_devices_that_it_was_lent_and_no_others() -> None:
    config, _environment = host_config("GPU-3faa8e11")
    (request,) = config["DeviceRequests"]
    assert (request["DeviceIDs"], request["Capabilities"], request["Count"]) == (["GPU-3faa8e11"], [["gpu"]], 0)


def test_without_a_request_an_image_gets_none_even_when_it_asks_in_its_environment() -> None:
    greedy = ImageFacts.of({"Env": ["NVIDIA_VISIBLE_DEVICES=all"]})
    config, environment = host_config(facts=greedy)
    assert "DeviceRequests" not in config
    assert environment["NVIDIA_VISIBLE_DEVICES"] == "void"
    _config, environment = host_config()
    assert "NVIDIA_VISIBLE_DEVICES" not in environment


def test_a_function_that_needs_more_than_the_node_lends_is_refused() -> None:
    refusal = decide_call(TRAIN, assign("train", "{}"), "application/json", b"{}", gpus=0).refusal
    assert refusal is not None
    assert refusal.reason is Reason.POLICY_REFUSED
    assert "docker.gpus" in refusal.message
    assert decide_call(TRAIN, assign("train", "{}"), "application/json", b"{}", gpus=1).allowed


def test_what_an_image_declares_is_a_small_whole_number() -> None:
    assert Declaration.parse(TRAIN.dumps()) == TRAIN
    for gpus in (-1, True, "1", 65, 1.0):
        with pytest.raises(VantageError, match="gpus"):
            Declaration.parse({"schema": 1, "functions": {"train": {"gpus": gpus}}})


async def test_each_device_is_lent_once_and_whoever_waits_for_many_is_not_overtaken() -> None:
    pool = GpuPool(["0", "1"])
    order: list[str] = []

    async def use(name: str, count: int) -> None:
        async with pool.lend(count) as devices:
            order.append(f"{name} {','.join(sorted(devices))}")

    async with pool.lend(1) as first:
        assert first == ("0",)
        both = asyncio.create_task(use("both", 2))
        await asyncio.sleep(0)
        one = asyncio.create_task(use("one", 1))
        await asyncio.sleep(0)
        assert order == []
    await asyncio.gather(both, one)
    assert order[0] == "both 0,1"
    assert order[1].startswith("one ")


async def test_who_gives_up_waiting_keeps_nothing() -> None:
    pool = GpuPool(["0"])
    async with pool.lend(1):
        waiting = asyncio.create_task(pool.lend(1).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(30), pool.lend(1) as devices:
        assert devices == ("0",)
