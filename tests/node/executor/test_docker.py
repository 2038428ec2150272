"""The Docker executor with a real engine: what comes out of the box, what does not, and that nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.task.v1 import task_pb2
from vantage.common.declaration import Declaration
from vantage.common.errors import Reason, UnavailableError, VantageError
from vantage.common.oci import ImageReference
from vantage.node.door import BoundDataset, ByteStream, RunCallbacks, RunContext, StoredResult
from vantage.node.executor.base import Exit, Job, Limits
from vantage.node.executor.docker import LABEL_NODE, DockerExecutor
from vantage.node.images import VerifiedImage
from vantage.node.local_api import serve
from vantage.node.outside import NoOutside
from vantage.testing.engine import BASE_IMAGE

pytestmark = pytest.mark.docker

HOST = "unix:///var/run/docker.sock"
DOCKERFILE = f"""\
FROM {BASE_IMAGE}
LABEL org.vantage.test={uuid.uuid4()}
ENTRYPOINT ["python3", "-c", "import os; exec(os.environ['SCRIPT'])"]
"""
LIMITS = Limits(memory=256 * 1024**2, cpus=1, pids=32, scratch=8 * 1024**2)

CALL = """
import grpc, os, time
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb, algorithm_service_pb2_grpc as g
channel = grpc.insecure_channel("unix:" + os.environ["VANTAGE_SOCKET"])
stub = g.AlgorithmServiceStub(channel)
me = (("authorization", "Bearer " + os.environ["VANTAGE_TOKEN"]),)
"""


def verified(image_id: str) -> VerifiedImage:
    """As the verifier would build it; what the executor does with it is what is tested here."""
    reference = ImageReference("registry.test", "image", f"sha256:{'0' * 64}")
    return VerifiedImage(reference, image_id, Declaration({}), ("author",))


@dataclass
class Box:
    """A door that remembers what came through."""

    context: RunContext
    scratch: Path
    lines: list[str] = field(default_factory=list)
    running: asyncio.Event = field(default_factory=asyncio.Event)
    spoke: asyncio.Event = field(default_factory=asyncio.Event)
    stored: StoredResult | None = None
    made: tuple[str, str] = ("", "")
    exit: Exit | None = None
    told: list[Any] = field(default_factory=list)

    @property
    def callbacks(self) -> RunCallbacks:
        return self

    def served(self) -> AbstractAsyncContextManager[Path]:
        return serve(self.context, self, self.scratch)

    async def created(self, container: str, image: str) -> None:
        self.made = (container, image)

    def started(self) -> None:
        self.running.set()

    async def ended(self, ended: Exit) -> None:
        self.exit = ended

    def line(self, text: str) -> None:
        self.lines.append(text)
        self.spoke.set()

    def progress(self, fraction: float, message: str) -> None:
        self.told.append((fraction, message))

    async def result(self, result: StoredResult) -> None:
        self.stored = result

    async def result_refused(self, problem: VantageError) -> None:
        self.told.append(problem)

    async def failure(self, reason: str, message: str) -> None:
        self.told.append((reason, message))

    async def dial(self, target: pb.DialTarget) -> ByteStream:
        return await NoOutside().dial(target)

    def listen(self, label: str) -> AsyncGenerator[pb.ListenResponse, None]:
        return NoOutside().listen(label)

    def peers(self) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        return NoOutside().peers()

    async def stage(self, media_type: str, chunks: AsyncIterator[bytes]) -> StoredResult:
        raise NotImplementedError

    async def subtask(self, request: pb.RunSubtaskRequest) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        yield task_pb2.TaskEvent()

    async def subtask_result(self, run: str) -> AsyncGenerator[bytes, None]:
        yield b""


def own_label() -> dict[str, str]:
    """Makes it an image of its own: what is removed in the end is nobody else's build of the same."""
    return {"org.vantage.test": str(uuid.uuid4())}


@pytest.fixture(scope="module")
def image() -> Iterator[VerifiedImage]:
    client = docker.DockerClient(base_url=HOST)
    built, _log = client.images.build(fileobj=io.BytesIO(DOCKERFILE.encode()), labels=own_label(), rm=True)
    yield verified(str(built.id))
    client.images.remove(str(built.id), force=True)
    client.close()


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[DockerExecutor]:
    made = DockerExecutor(HOST, tmp_path, slots=2)
    yield made
    await made.clean_up()
    await made.close()


@pytest.fixture
def box(tmp_path: Path) -> Box:
    data = tmp_path / "lung.csv"
    data.write_text("time,status\n1,0\n")
    data.chmod(0o644)
    scratch = tmp_path / "run"
    scratch.mkdir(mode=0o700)
    context = RunContext(
        run="tasks/t/runs/r",
        function="f",
        organization="organizations/clara",
        collaboration="collaborations/trial",
        organizations=("organizations/clara",),
        datasets=(BoundDataset("table", "lung", "csv", data, "/data/table/lung.csv"),),
        arguments=b'{"a": 1}',
        arguments_media_type="application/json",
        max_result_bytes=1024,
        deadline=datetime.now(UTC) + timedelta(minutes=5),
        image="registry/image@sha256:0",
        token="the token",
    )
    return Box(context, scratch)


async def run(executor: DockerExecutor, image: VerifiedImage, box: Box, script: str) -> Exit:
    job = Job("tasks/t/runs/r", "lease", image, LIMITS, {"SCRIPT": script})
    async with asyncio.timeout(60):
        ended = await executor.run(job, box)
    assert containers(executor) == []
    assert not (box.scratch / "api" / "api.sock").exists()
    return ended


def containers(executor: DockerExecutor) -> list[str]:
    client = docker.DockerClient(base_url=HOST)
    try:
        found = client.containers.list(all=True, filters={"label": f"{LABEL_NODE}={executor.owner}"})
        return [str(each.id) for each in found]
    finally:
        client.close()


async def test_the_socket_works_from_inside_without_any_network(
    executor: DockerExecutor, image: VerifiedImage, box: Box
) -> None:
    script = (
        CALL
        + """
context = stub.GetContext(pb.GetContextRequest(), metadata=me)
data = open(context.datasets[0].path).read()
arguments = b"".join(p.chunk for p in stub.ReadArguments(pb.ReadArgumentsRequest(), metadata=me))
stub.ReportProgress(pb.ReportProgressRequest(fraction=0.5, message="half"), metadata=me)
parts = [pb.SubmitResultRequest(header=pb.ResultHeader(media_type="text/csv")),
         pb.SubmitResultRequest(chunk=arguments + data.encode())]
stub.SubmitResult(iter(parts), metadata=me)
print("done")
"""
    )
    assert await run(executor, image, box, script) == Exit(0)
    assert box.lines == ["done"]
    assert box.told == [(0.5, "half")]
    assert box.stored is not None
    assert isinstance(box.stored.content, Path)
    assert box.stored.content.read_bytes() == b'{"a": 1}time,status\n1,0\n'


async def test_an_environment_holds_what_the_image_and_the_node_say_and_nothing_of_the_host(
    executor: DockerExecutor, image: VerifiedImage, box: Box, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"proxies": {"default": {"httpProxy": "http://user:secret@proxy:3128"}}}')
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PGPASSWORD", "secret")
    # What the library would add from that file is noticed: a client reads it when it is made.
    made = DockerExecutor(HOST, tmp_path, slots=1)
    try:
        script = """
for path in ("/etc/resolv.conf", "/etc/hosts", "/etc/hostname"): print(open(path).read().replace(chr(10), "|"))
print(sorted(each.split("=")[0] for each in open("/proc/self/environ").read().split(chr(0)) if each))
"""
        assert (await run(made, image, box, script)).status == 0
    finally:
        await made.close()
    of_the_image = ["HOME", "HOSTNAME", "PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"]
    assert box.lines[-1] == str([*of_the_image, "SCRIPT", "VANTAGE_SOCKET", "VANTAGE_TOKEN"])
    resolver, hosts, hostname = box.lines[:3]
    assert resolver == "nameserver 127.0.0.1|"
    assert re.findall(r"[\d.]{7,}", hosts) == ["127.0.0.1"]
    assert hostname == "algorithm|"


async def test_a_volume_that_an_image_declares_is_not_the_disk_of_the_host(executor: DockerExecutor, box: Box) -> None:
    volume = "USER 0\nRUN mkdir -m 1777 /store\nVOLUME /store\nENTRYPOINT"
    text = DOCKERFILE.replace("ENTRYPOINT", volume)
    client = docker.DockerClient(base_url=HOST)
    built, _log = client.images.build(fileobj=io.BytesIO(text.encode()), labels=own_label(), rm=True)
    began = int(time.time())
    try:
        script = f"""
try:
    with open('/store/x', 'wb') as file: file.write(bytes({LIMITS.scratch} + 4096))
except OSError as problem: print(problem.strerror)
"""
        assert (await run(executor, verified(str(built.id)), box, script)).status == 0
        assert box.lines == ["No space left on device"]
        # The engine is used by others, too: what it mounted into this container, not which volumes it has.
        volumes = client.events(since=began, until=int(time.time()) + 1, filters={"type": "volume"}, decode=True)
        assert not [each for each in volumes if each["Actor"]["Attributes"].get("container") == box.made[0]]
    finally:
        client.images.remove(str(built.id), force=True)
        client.close()


async def test_too_much_memory_is_said_to_be_that(executor: DockerExecutor, image: VerifiedImage, box: Box) -> None:
    ended = await run(executor, image, box, "x = bytearray(1024**3); x[::4096] = b'1' * len(x[::4096])")
    assert ended.out_of_memory
    assert ended.status == 137


async def test_exit_status_and_output_of_a_crash(executor: DockerExecutor, image: VerifiedImage, box: Box) -> None:
    ended = await run(executor, image, box, "raise SystemExit('no good')")
    assert ended == Exit(1)
    assert box.lines == ["no good"]


async def test_a_hundred_megabytes_of_output_do_no_harm(
    executor: DockerExecutor, image: VerifiedImage, box: Box
) -> None:
    script = "import sys\nfor _ in range(100): sys.stdout.buffer.write(b'x' * 1023 * 1024 + b'\\n' * 1024)"
    ended = await run(executor, image, box, script)
    assert ended.status == 0
    assert max(map(len, box.lines)) <= 8_000


async def test_cancelling_ends_a_container_that_does_not_want_to(
    image: VerifiedImage, box: Box, tmp_path: Path
) -> None:
    executor = DockerExecutor(HOST, tmp_path, slots=1, grace=1)
    script = (
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('up', flush=True)\ntime.sleep(600)"
    )
    task = asyncio.create_task(run(executor, image, box, script))
    await box.spoke.wait()  # from now on it ignores SIGTERM
    task.cancel()
    began = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert time.monotonic() - began > 1  # it was asked first
    assert containers(executor) == []
    await executor.close()


@asynccontextmanager
async def way_to_the_engine(path: Path, waiting: asyncio.Event) -> AsyncIterator[Callable[[bool], Awaitable[None]]]:
    """Another socket of the engine, which can be cut, and opened again; says when a container is waited for."""
    open_now: set[asyncio.StreamWriter] = set()
    serving: list[asyncio.Future[Any]] = []

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if b"/wait" in data:
                    waiting.set()
                target.write(data)
                await target.drain()
        target.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(HOST.removeprefix("unix://"))
        open_now.update((writer, back))
        serving.append(asyncio.gather(pump(reader, back), pump(there, writer), return_exceptions=True))

    server: asyncio.Server | None = None

    async def switch(on: bool) -> None:
        nonlocal server
        if on:
            # One that is there, of the time before, is replaced.
            server = await asyncio.start_unix_server(serve, path)
            return
        if server is not None:
            server.close()
        for each in list(open_now):
            each.transport.abort()

    await switch(True)
    try:
        yield switch
    finally:
        await switch(False)
        await asyncio.gather(*serving)


async def test_an_engine_that_goes_away_is_said_and_its_container_is_removed_when_it_is_back(
    image: VerifiedImage, box: Box, tmp_path: Path
) -> None:
    waiting = asyncio.Event()
    async with way_to_the_engine(tmp_path / "engine.sock", waiting) as switch:
        # The engine is asked before there is a loop in the product; here it has to be served meanwhile.
        made = await asyncio.to_thread(DockerExecutor, f"unix://{tmp_path}/engine.sock", tmp_path, 1, (), 1)
        task = asyncio.create_task(run(made, image, box, "import time\ntime.sleep(600)"))
        await box.running.wait()
        # Not before: the library leaves a socket open to which nobody answers.
        await waiting.wait()
        await switch(False)
        with pytest.raises(VantageError) as caught:
            await task
        assert caught.value.reason is Reason.EXECUTOR_UNAVAILABLE
        client = docker.DockerClient(base_url=HOST)
        left = client.containers.list(all=True, filters={"label": f"{LABEL_NODE}={made.owner}"})
        assert len(left) == 1
        await switch(True)
        await asyncio.to_thread(left[0].wait, condition="removed")
        client.close()
        await made.close()


async def test_a_container_that_somebody_removes_is_no_missing_image(
    executor: DockerExecutor, image: VerifiedImage, box: Box
) -> None:
    task = asyncio.create_task(run(executor, image, box, "import time\ntime.sleep(600)"))
    await box.running.wait()
    client = docker.DockerClient(base_url=HOST)
    try:
        await asyncio.to_thread(client.api.remove_container, box.made[0], force=True)
    finally:
        client.close()
    with pytest.raises(VantageError) as caught:
        await task
    assert caught.value.reason is Reason.NODE_LOST


async def test_what_is_known_of_an_engine_names_its_runtime(executor: DockerExecutor) -> None:
    client = docker.DockerClient(base_url=HOST)
    try:
        assert str(client.info()["DefaultRuntime"]) in (await executor.engine()).settings.split("; ")
    finally:
        client.close()


async def test_what_a_dead_process_left_is_removed_and_that_of_others_is_not(
    executor: DockerExecutor, image: VerifiedImage, tmp_path: Path
) -> None:
    client = docker.DockerClient(base_url=HOST)
    other = DockerExecutor(HOST, tmp_path / "other", slots=1)
    try:
        for owner in (executor.owner, other.owner):
            client.containers.create(image.image_id, labels={LABEL_NODE: owner})
        assert (await executor.clean_up()).removed == 1
        assert containers(executor) == []
        assert len(containers(other)) == 1
    finally:
        assert (await other.clean_up()).removed == 1
        await other.close()
        client.close()


async def test_a_dataset_that_the_container_may_not_read_is_said_to_be_that(
    executor: DockerExecutor, image: VerifiedImage, box: Box
) -> None:
    box.context.datasets[0].source.chmod(0o600)
    with pytest.raises(VantageError, match="chmod") as caught:
        await run(executor, image, box, "pass")
    assert caught.value.reason is Reason.DATASET_UNREADABLE


async def test_an_image_that_is_gone_and_an_engine_that_is_down_are_clear_errors(
    executor: DockerExecutor, box: Box, tmp_path: Path
) -> None:
    with pytest.raises(VantageError) as caught:
        await run(executor, verified(f"sha256:{'0' * 64}"), box, "pass")
    assert caught.value.reason is Reason.IMAGE_NOT_FOUND
    with pytest.raises(UnavailableError, match="does not answer"):
        DockerExecutor(f"unix://{tmp_path}/none.sock", tmp_path, slots=1)
