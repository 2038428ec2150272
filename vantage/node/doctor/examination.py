"""Starts the probe just as a run is started, beside another one that it must not see, and takes down what it says."""

from __future__ import annotations

import asyncio
import inspect
import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.task.v1 import task_pb2
from vantage.common.errors import Reason, VantageError, error
from vantage.node.config import NodeConfig
from vantage.node.doctor import probe
from vantage.node.doctor.findings import Finding, read
from vantage.node.door import SOCKET_NAME, BoundDataset, ByteStream, RunCallbacks, RunContext, StoredResult
from vantage.node.executor.base import Exit, Job, Limits, ProbeCode
from vantage.node.executor.docker import DockerExecutor
from vantage.node.executor.sandbox import HOSTNAME, MAX_OPEN_FILES, SHM_BYTES, SOCKET_DIRECTORY
from vantage.node.local_api import serve
from vantage.node.outside import NoOutside

TIMEOUT_SECONDS = 180
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
_MAX_LINES = 1_000
_LIMITS = Limits(memory=256 * 1024**2, cpus=1.0, pids=64, scratch=32 * 1024**2)
"""The probe uses up all that it is given: never more than this, however large the node's limits are."""
_ELSEWHERE = (("169.254.169.254", 80), ("172.17.0.1", 22), ("10.88.0.1", 22), ("1.1.1.1", 53), ("2606:4700::1111", 53))
"""Cloud metadata, the usual gateways of Docker and Podman, the internet."""
_VARIABLES = ("HOME", "HOSTNAME", "PATH", "VANTAGE_SOCKET", "VANTAGE_TOKEN", "PROBE", "TERM", "container")
"""Of the node and of every engine; Podman sets the last two, to the same in every container."""
_NEIGHBOUR = """
import os, socket, sys, time
mark = sys.argv[1]
trial = socket.socket(socket.AF_UNIX)
trial.bind(chr(0) + mark)
for directory in ("/tmp", "/dev/shm"):
    open(directory + "/" + mark, "w").close()
print("there", flush=True)
time.sleep(600)
"""


@dataclass
class _Door:
    """The door of a run that is the node's own: it hears what is printed, and gives nothing."""

    context: RunContext
    scratch: Path
    lines: list[str] = field(default_factory=list)
    spoke: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def callbacks(self) -> RunCallbacks:
        return self

    def served(self) -> AbstractAsyncContextManager[Path]:
        return serve(self.context, self, self.scratch)

    async def created(self, container: str, image: str) -> None:
        """Nobody is told."""

    def started(self) -> None:
        """Nobody is told."""

    async def ended(self, ended: Exit) -> None:
        """Nobody is told."""

    def line(self, text: str) -> None:
        if len(self.lines) < _MAX_LINES:
            self.lines.append(text)
        self.spoke.set()

    def progress(self, fraction: float, message: str) -> None:
        """Nobody is told."""

    async def result(self, result: StoredResult) -> None:
        raise error(Reason.POLICY_REFUSED, "the probe has no result")

    async def result_refused(self, problem: VantageError) -> None:
        """Nobody is told."""

    async def failure(self, reason: str, message: str) -> None:
        """Nobody is told."""

    async def stage(self, media_type: str, chunks: AsyncIterator[bytes]) -> StoredResult:
        raise error(Reason.POLICY_REFUSED, "the probe asks nobody")

    async def subtask(self, request: pb.RunSubtaskRequest) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        for event in tuple[task_pb2.TaskEvent, ...]():
            yield event
        raise error(Reason.POLICY_REFUSED, "the probe asks nobody")

    async def subtask_result(self, run: str) -> AsyncGenerator[bytes, None]:
        for block in tuple[bytes, ...]():
            yield block
        raise error(Reason.POLICY_REFUSED, "the probe asks nobody")

    async def dial(self, target: pb.DialTarget) -> ByteStream:
        return await NoOutside().dial(target)

    def listen(self, label: str) -> AsyncGenerator[pb.ListenResponse, None]:
        return NoOutside().listen(label)

    def peers(self) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        return NoOutside().peers()


async def examine(executor: DockerExecutor, config: NodeConfig, image: str) -> tuple[Finding, ...]:
    """Prove the box.

    Args:
        executor: starts the probe; its containers must not be those of a running node.
        config: the node's.
        image: one that the engine has, with ``python3``. What it holds is not trusted, and gets no data; but an image
            whose Python lies makes this worthless.

    Returns:
        A finding for each protection.

    Raises:
        RefusedError: IMAGE_NOT_FOUND.
        UnavailableError: EXECUTOR_UNAVAILABLE.
        RunError: the image has no python3, there is no room, or it took too long.
    """
    image_id, facts = await executor.image(image)
    place = Path(tempfile.mkdtemp(prefix="doctor-", dir=config.data_dir))
    try:
        mark = f"vantage-neighbour-{secrets.token_hex(8)}"
        door = _door(place / "probe")
        wanted = _expectations(config, door.context, mark, facts.volumes, facts.variables)
        command = ("python3", "-c", inspect.getsource(probe))
        job = Job(door.context.run, "doctor", ProbeCode(image_id, command), wanted[1], {"PROBE": json.dumps(wanted[0])})
        async with asyncio.timeout(TIMEOUT_SECONDS), _neighbour(executor, image_id, place / "neighbour", mark):
            await executor.run(job, door)
    except TimeoutError:
        raise error(Reason.EXECUTOR_UNAVAILABLE, f"the probe did not end within {TIMEOUT_SECONDS} s") from None
    finally:
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
    return read(door.lines)


@asynccontextmanager
async def _neighbour(executor: DockerExecutor, image_id: str, directory: Path, mark: str) -> AsyncGenerator[None, None]:
    """Another run at the same time, with a mark on what it has."""
    door = _door(directory)
    code = ProbeCode(image_id, ("python3", "-c", _NEIGHBOUR, mark))
    task = asyncio.create_task(executor.run(Job(door.context.run, "doctor", code, _LIMITS), door))
    spoke = asyncio.create_task(door.spoke.wait())
    try:
        await asyncio.wait({task, spoke}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()  # raises what the engine has to say
        if door.lines[:1] != ["there"]:
            said = "; ".join(door.lines[-3:]) or "it said nothing"
            raise error(Reason.ALGORITHM_CRASHED, f"the image cannot run the probe: name one with python3: {said}")
        yield
    finally:
        spoke.cancel()
        task.cancel()
        await asyncio.gather(task, spoke, return_exceptions=True)


def _door(directory: Path) -> _Door:
    directory.mkdir(mode=0o700)
    data = directory / "canary.csv"
    data.write_text("a\n1\n")
    data.chmod(0o644)
    context = RunContext(
        run="tasks/doctor/runs/probe",
        function="probe",
        organization="",
        collaboration="",
        organizations=(),
        datasets=(BoundDataset("canary", "canary", "csv", data, "/data/canary/canary.csv"),),
        arguments=b"{}",
        arguments_media_type="application/json",
        max_result_bytes=1,
        deadline=datetime.now(UTC) + timedelta(seconds=TIMEOUT_SECONDS),
        image="",
        token=secrets.token_urlsafe(32),
    )
    return _Door(context, directory)


def _expectations(
    config: NodeConfig, context: RunContext, mark: str, volumes: tuple[str, ...], variables: frozenset[str]
) -> tuple[dict[str, object], Limits]:
    """What the probe is told, and within which limits it runs."""
    wide = config.limits
    limits = Limits(
        min(wide.memory, _LIMITS.memory),
        min(wide.cpus, _LIMITS.cpus),
        min(wide.pids, _LIMITS.pids),
        min(wide.scratch, _LIMITS.scratch),
    )
    temporary = ["/tmp", "/dev/shm", *volumes]  # noqa: S108  # inside the container
    told = {
        "pids": limits.pids,
        "memory": limits.memory,
        "scratch": limits.scratch,
        "shm": min(SHM_BYTES, limits.memory),
        "cpus": limits.cpus,
        "open_files": MAX_OPEN_FILES,
        "temporary": temporary,
        "mounts": [*temporary, SOCKET_DIRECTORY, *(each.path for each in context.datasets)],
        "data": context.datasets[0].path,
        "socket": f"{SOCKET_DIRECTORY}/{SOCKET_NAME}",
        "environment": sorted({*_VARIABLES, *variables}),
        "hostname": HOSTNAME,
        "host_words": _host_words(),
        "namespaces": {kind: str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in _NAMESPACES},
        "addresses": [*_ELSEWHERE, *((each, 22) for each in _own_addresses())],
        "neighbour": mark,
    }
    return told, limits


def _host_words() -> list[str]:
    """What would tell where the run is: the host's name and its resolvers."""
    words = {socket.gethostname(), socket.getfqdn()}
    try:
        lines = [line.split() for line in Path("/etc/resolv.conf").read_text(errors="replace").splitlines()]
    except OSError:
        lines = []
    words.update(word for line in lines if line and line[0] in ("nameserver", "search") for word in line[1:])
    return sorted(words - {HOSTNAME, "localhost", "127.0.0.1", "::1", "."})


def _own_addresses() -> list[str]:
    """Addresses of this host, as far as they are easily known."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.connect(("192.0.2.1", 9))  # sends nothing; tells from which address it would
            return [str(trial.getsockname()[0])]
        except OSError:
            return []
