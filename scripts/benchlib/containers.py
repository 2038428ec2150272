"""What vantage adds to a container: the same image bare and as an algorithm."""

from __future__ import annotations

import asyncio
import io
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import docker

from scripts.benchlib.driver import Driver, question
from scripts.benchlib.figures import Figure, at_most, milliseconds
from vantage.common import cosign, oci, pki
from vantage.common.image_signing import sign_image
from vantage.testing.engine import BASE_IMAGE, docker_client
from vantage.testing.processes import Installation
from vantage.testing.registry import Registry
from vantage.testing.station import COLLABORATION

ORGANIZATIONS = ("clara", "hilda", "beatrix")
_ROUNDS = 9
_MANY = 20
_SLOTS = 2
_DECLARATION = json.dumps({"schema": 1, "functions": {"answer": {"arguments": {"type": "object"}}}})
_PROGRAM = """\
import grpc, os
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb, algorithm_service_pb2_grpc as g
if "VANTAGE_SOCKET" in os.environ:
    stub = g.AlgorithmServiceStub(grpc.insecure_channel("unix:" + os.environ["VANTAGE_SOCKET"]))
    me = (("authorization", "Bearer " + os.environ["VANTAGE_TOKEN"]),)
    stub.GetContext(pb.GetContextRequest(), metadata=me)
    header = pb.SubmitResultRequest(header=pb.ResultHeader(media_type="application/json"))
    stub.SubmitResult(iter([header, pb.SubmitResultRequest(chunk=b"{}")]), metadata=me)
"""
"""Does the same with and without vantage, but for the calls."""


@dataclass(frozen=True)
class Containers:
    """A network of three nodes with Docker, and the engine itself."""

    engine: docker.DockerClient
    image: str
    image_id: str
    driver: Driver

    async def bare(self) -> float:
        """Seconds for a container of the image that nobody but the engine deals with."""
        began = time.perf_counter()
        await asyncio.to_thread(self._run)
        return time.perf_counter() - began

    async def task(self, organization: str) -> float:
        """Seconds for a task that runs the image at one organization."""
        spec = question(self.image, COLLABORATION, f"organizations/{organization}", "answer", b"{}")
        return await self.driver.ask(spec)

    def _run(self) -> None:
        # The same form as the node's, as far as it costs time.
        container = self.engine.containers.create(
            self.image_id, network_mode="none", read_only=True, cap_drop=["ALL"], user="65534", init=True
        )
        try:
            container.start()
            if container.wait()["StatusCode"]:
                raise RuntimeError(f"the bare container failed: {container.logs()!r}")
        finally:
            container.remove(force=True)


@asynccontextmanager
async def _network() -> AsyncIterator[Containers]:
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vantage-bench-")))
        engine = stack.enter_context(docker_client())
        (directory / "registry").mkdir()
        registry = stack.enter_context(Registry(directory / "registry"))
        repository = f"{registry.address}/bench/answer"
        text = f"FROM {BASE_IMAGE}\nLABEL org.vantage.declaration={json.dumps(_DECLARATION)}\n"
        text += f'ENTRYPOINT ["python3", "-c", {json.dumps(_PROGRAM)}]\n'
        built, _log = await asyncio.to_thread(
            lambda: engine.images.build(fileobj=io.BytesIO(text.encode()), tag=f"{repository}:1", rm=True)
        )
        stack.callback(engine.images.remove, str(built.id), force=True)
        pushed = engine.images.push(repository, tag="1", stream=True, decode=True)
        [digest] = [item["aux"]["Digest"] for item in pushed if "aux" in item]
        reference = oci.ImageReference.parse(f"{repository}@{digest}")
        author = pki.create_key()
        async with oci.connect(reference.registry, reference.path, oci.RegistryAccess()) as connection:
            await sign_image(connection, reference, author)
        (directory / "author.pub").write_bytes(cosign.public_pem(author.public_key()))
        (directory / "network").mkdir()
        network = await stack.enter_async_context(
            Installation.running(
                directory / "network",
                ORGANIZATIONS,
                settings={
                    "executor": "docker",
                    "allow_unsandboxed": False,
                    "process": {},
                    "slots": _SLOTS,
                    "policy": {"images": [{"repository": repository, "keys": [str(directory / "author.pub")]}]},
                },
            )
        )
        channel = await stack.enter_async_context(network.channel())
        spec = question(str(reference), COLLABORATION, f"organizations/{ORGANIZATIONS[0]}", "answer", b"{}")
        containers = Containers(engine, str(reference), str(built.id), Driver(channel, network.metadata, spec))
        for organization in ORGANIZATIONS:
            await containers.task(organization)
        await containers.bare()
        yield containers


async def overhead() -> list[Figure]:
    """One task in a container, over the bare container of the same image."""
    ours, theirs = [], []
    async with _network() as containers:
        for _ in range(_ROUNDS):
            theirs.append(await containers.bare())
            ours.append(await containers.task(ORGANIZATIONS[0]))
    added = statistics.median(a - b for a, b in zip(ours, theirs, strict=True))
    real, bare = statistics.median(ours), statistics.median(theirs)
    return [
        Figure("task in a container", milliseconds(real), milliseconds(bare), real / bare),
        Figure("what vantage adds to it", milliseconds(added), goal=at_most(60, added * 1000, " ms")),
    ]


async def many() -> list[Figure]:
    """20 tasks on 3 nodes at once, over as many bare containers with as many at a time."""
    ratios, ours, theirs = [], [], []
    at_a_time = asyncio.Semaphore(_SLOTS * len(ORGANIZATIONS))

    async with _network() as containers:

        async def bare() -> None:
            async with at_a_time:
                await containers.bare()

        for _ in range(3):
            began = time.perf_counter()
            await asyncio.gather(*(bare() for _ in range(_MANY)))
            theirs.append(time.perf_counter() - began)
            began = time.perf_counter()
            await asyncio.gather(*(containers.task(ORGANIZATIONS[each % len(ORGANIZATIONS)]) for each in range(_MANY)))
            ours.append(time.perf_counter() - began)
            ratios.append(ours[-1] / theirs[-1])
    ratio = statistics.median(ratios)
    return [
        Figure(
            f"{_MANY} tasks in containers, {len(ORGANIZATIONS)} nodes",
            f"{statistics.median(ours):.1f} s",
            f"{statistics.median(theirs):.1f} s",
            ratio,
            at_most(1.2, ratio, " x"),
        )
    ]
