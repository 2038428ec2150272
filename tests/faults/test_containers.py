"""``kill -9`` of a container, and of the engine under it: said as what it is, nothing runs twice, nothing is left."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import docker
import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.node.test_adoption import AUTHOR, Kept, begun
from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.testing import images, scripted_server
from vantage.testing.engine import docker_client, remove_leftovers
from vantage.testing.engines import engine_place, lacks, second_docker
from vantage.testing.program import Program
from vantage.testing.registry import Registry
from vantage.testing.scripted_server import ScriptedServer
from vantage.testing.station import Station

pytestmark = pytest.mark.docker

MODULE = Path(__file__).parents[1] / "node" / "steady.py"


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    with docker_client() as client:
        yield client


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, registry: Registry) -> Iterator[str]:
    with images.pushed(engine, MODULE, f"{registry.address}/algorithms/steady") as made:
        asyncio.run(images.sign(made, AUTHOR))
        yield made


@pytest.fixture
async def station(tmp_path: Path) -> AsyncIterator[Station]:
    async with ScriptedServer() as server:
        yield Station.create(tmp_path, server)


async def test_a_container_that_is_killed_has_failed_once(
    station: Station, registry: Registry, engine: docker.DockerClient, image: str
) -> None:
    kept = Kept(station, registry, engine, image)
    message = kept.assign()
    try:
        async with kept.node():
            session = await begun(kept, message)
            await asyncio.to_thread(kept.container().kill, signal.SIGKILL)
            ended = (await session.receive("completed")).completed
            assert ended.lease == message.lease
            assert ended.failure.reason == "ALGORITHM_CRASHED", ended.failure
            assert not ended.retryable  # it was the algorithm's end, whoever made it: nobody runs it again by himself
            assert kept.left() == []
            assert await kept.starts() == 1
    finally:
        remove_leftovers(engine, kept.label)


@pytest.fixture
def place() -> Iterator[Path]:
    with engine_place() as directory:
        yield directory


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(lacks("dockerd", "ip"), reason="needs root, dockerd and ip")
async def test_an_engine_that_is_killed_leaves_nothing_when_it_is_back(
    station: Station, registry: Registry, image: str, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripted_server, "TIMEOUT", 120.0)  # the new engine has to be given the whole image
    with second_docker(place) as host, closing(docker.DockerClient(base_url=host, version="1.41")) as own:
        station.settings["docker"] = {"host": host}
        kept = Kept(station, registry, own, image)
        message = kept.assign()
        async with kept.node():
            session = await begun(kept, message)
            os.kill(int((place / "pid").read_text()), signal.SIGKILL)
            for stale in (place / "pid", place / "exec/containerd/containerd.pid"):
                stale.unlink()  # where nobody reaps the dead, their successors take them for alive
            ended = (await session.receive("completed")).completed
            assert ended.lease == message.lease
            assert ended.failure.reason == "EXECUTOR_UNAVAILABLE", ended.failure
            assert ended.retryable
            session.send(pb.ConnectResponse(ack=session.received[-1].sequence))
            with Program(["dockerd", "--config-file", str(place / "daemon.json")], place / "log") as again:
                again.wait_for("API listen on")
                for left in own.containers.list(all=True, filters={"label": kept.label}):
                    await asyncio.to_thread(left.wait, condition="removed")
                kept.go()
                session.send(pb.ConnectResponse(assign=kept.assign()))
                await session.receive("accepted")
                await session.receive("started")
                answer = (await session.receive("completed")).completed
                assert "me" in json.loads(answer.result.inline), answer.failure
                assert kept.left() == []
