"""Runs algorithms in Docker containers (or Podman's API-compatible ones): no network, read-only, without privileges."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import stat
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from vantage.common.errors import Reason, VantageError, error
from vantage.node.door import Door
from vantage.node.executor.base import Exit, Job, UnsandboxedCode
from vantage.node.executor.gpus import GpuPool
from vantage.node.executor.lines import LineSplitter
from vantage.node.executor.sandbox import SECCOMP, ImageFacts, container_settings

log = logging.getLogger(__name__)

LABEL_NODE = "org.vantage.node"
LABEL_RUN = "org.vantage.run"
GRACE_SECONDS = 10
"""Between SIGTERM and SIGKILL when a run is cancelled."""
_API_TIMEOUT = 60
_API_VERSION = "1.41"
"""Docker Engine 20.10 and everything since."""

T = TypeVar("T")


@dataclass(frozen=True)
class EngineFacts:
    """Which engine it is: what is proved of the box holds for no other.

    Attributes:
        name: it gives itself.
        version: of its program.
        settings: kernel and security options, for people.
    """

    name: str
    version: str
    settings: str


def owner_of(data_dir: Path) -> str:
    """Value of ``LABEL_NODE`` on the containers of the node with this data directory."""
    return hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:16]


class DockerExecutor:
    """Keeps ``Executor`` with a Docker engine.

    Args:
        host: the engine's socket, e.g. ``unix:///var/run/docker.sock``.
        data_dir: of the node: marks its containers, so that those of another node on this engine are left alone.
        slots: how many runs there are at once.
        gpus: identifiers of the graphics processors that may be lent to runs.

    Raises:
        UnavailableError: EXECUTOR_UNAVAILABLE, the engine does not answer.
    """

    def __init__(self, host: str, data_dir: Path, slots: int, gpus: Sequence[str] = ()) -> None:
        self.owner = owner_of(data_dir)
        self._gpus = GpuPool(gpus)
        self._host = host
        if (path := host.removeprefix("unix://")) != host:
            _probe(host, path)
        # Per run: one thread that waits, one that reads what is printed; and some for all the rest.
        self._threads = ThreadPoolExecutor(max_workers=2 * slots + 4, thread_name_prefix="docker")
        try:
            # The version is fixed so that nothing is asked before the client exists and can be closed.
            self._client = docker.DockerClient(
                base_url=host, version=_API_VERSION, timeout=_API_TIMEOUT, max_pool_size=2 * slots + 4
            )
        except DockerException as problem:
            self._threads.shutdown(wait=False)
            raise _unavailable(host, problem) from problem
        try:
            parts = self._client.version().get("Components") or ()
        except (DockerException, requests.RequestException) as problem:
            self._threads.shutdown(wait=False)
            self._client.close()
            raise _unavailable(host, problem) from problem
        # Docker's API takes the list itself, Podman's a file of the machine that both are on.
        podman = any("podman" in str(part.get("Name", "")).lower() for part in parts)
        self._seccomp = str(SECCOMP) if podman else SECCOMP.read_text()

    async def run(self, job: Job, door: Door) -> Exit:
        """See ``Executor``."""
        _check_readable(door)
        async with (
            self._gpus.lend(job.gpus) as gpus,
            door.served() as directory,
            self._container(job, door, directory, gpus) as container,
        ):
            async with self._output(container, door) as printed:
                await self._call(container.start)
                door.started()
                await self._call(container.wait)
                await printed
            await self._call(container.reload)
            state = container.attrs["State"]
            return Exit(int(state["ExitCode"]), out_of_memory=bool(state.get("OOMKilled")))

    async def clean_up(self) -> int:
        """See ``Executor``."""

        def remove_all() -> int:
            found = self._client.containers.list(all=True, filters={"label": f"{LABEL_NODE}={self.owner}"})
            for container in found:
                with contextlib.suppress(NotFound):
                    container.remove(force=True, v=True)
            return len(found)

        return await self._call(remove_all)

    async def close(self) -> None:
        """See ``Executor``."""
        await asyncio.to_thread(self._client.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def engine(self) -> EngineFacts:
        """Which engine it is.

        Raises:
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """
        told: dict[str, Any] = await self._call(self._client.info)
        settings = (told.get("KernelVersion"), *sorted(told.get("SecurityOptions") or ()), told.get("CgroupVersion"))
        return EngineFacts(
            str(told.get("ID", "")), str(told.get("ServerVersion", "")), "; ".join(str(each) for each in settings)
        )

    async def image(self, name: str) -> tuple[str, ImageFacts]:
        """Id and properties of an image that the engine has.

        Raises:
            RefusedError: IMAGE_NOT_FOUND.
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """
        found = await self._call(lambda: self._client.images.get(name))
        return str(found.id), ImageFacts.of(found.attrs["Config"])

    @contextlib.asynccontextmanager
    async def _container(self, job: Job, door: Door, directory: Path, gpus: Sequence[str]) -> AsyncIterator[Container]:
        creation = asyncio.ensure_future(self._call(lambda: self._create(job, door, directory, gpus)))
        try:
            container = await asyncio.shield(creation)
        except asyncio.CancelledError:
            # The engine may be at it already: what it makes must be known to be removed.
            with contextlib.suppress(VantageError):
                await self._remove(await creation)
            raise
        try:
            yield container
        finally:
            # Ended by itself, cancelled or failed: nothing is left, and a second cancel does not change that.
            removal = asyncio.ensure_future(self._remove(container))
            try:
                await asyncio.shield(removal)
            except asyncio.CancelledError:
                await removal
                raise

    def _create(self, job: Job, door: Door, directory: Path, gpus: Sequence[str]) -> Container:
        if isinstance(job.code, UnsandboxedCode):
            raise error(Reason.EXECUTOR_UNAVAILABLE, "the docker executor runs images, not modules")
        # By the id of the verified manifest's config: nothing is resolved by name between check and start.
        image = job.code.image_id
        facts = ImageFacts.of(self._client.images.get(image).attrs["Config"])
        return self._client.containers.create(
            image,
            detach=True,
            labels={LABEL_NODE: self.owner, LABEL_RUN: job.run},
            **container_settings(job, door.context, directory, facts, gpus, self._seccomp),
        )

    @contextlib.asynccontextmanager
    async def _output(self, container: Container, door: Door) -> AsyncIterator[asyncio.Future[None]]:
        """Read what a container prints; gives what is done when all is read."""
        stream: Any = await self._call(lambda: container.attach(stream=True, stdout=True, stderr=True, logs=False))
        reader = asyncio.ensure_future(self._in_thread(lambda: self._read(stream, door)))
        try:
            yield reader
        finally:
            # Shuts the socket down, which wakes the thread that reads.
            with contextlib.suppress(OSError, DockerException):
                await self._in_thread(stream.close)
            await asyncio.wait([reader])
            # The library keeps the file around the socket open.
            stream._response.raw.close()
            stream._response.close()

    async def _remove(self, container: Container) -> None:
        def remove() -> None:
            with contextlib.suppress(NotFound):
                container.reload()
                if container.status == "running":
                    container.stop(timeout=GRACE_SECONDS)
                container.remove(force=True, v=True)

        try:
            await self._call(remove)
        except VantageError as problem:
            # The engine is gone: clean_up of the next start finds the container by its label.
            log.error("container not removed", extra={"container": container.id, "problem": problem.message})

    def _read(self, stream: Any, door: Door) -> None:
        """In a thread: hand on what is printed, no faster than the node takes it."""
        splitter = LineSplitter()
        try:
            for chunk in stream:
                self._tell(door, splitter.feed(chunk))
        except (requests.RequestException, OSError, ValueError):
            log.info("output of a container ended early")
        self._tell(door, splitter.finish())

    def _tell(self, door: Door, lines: list[str]) -> None:
        async def tell() -> None:
            for line in lines:
                door.line(line)

        if lines and not self._loop.is_closed():
            with contextlib.suppress(asyncio.CancelledError):
                asyncio.run_coroutine_threadsafe(tell(), self._loop).result()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        self._loop = asyncio.get_running_loop()
        return await self._loop.run_in_executor(self._threads, work)

    async def _call(self, work: Callable[[], T]) -> T:
        try:
            return await self._in_thread(work)
        except NotFound as problem:
            raise error(Reason.IMAGE_NOT_FOUND, f"the engine does not have it: {problem.explanation}") from problem
        except APIError as problem:
            raise error(
                Reason.EXECUTOR_UNAVAILABLE, f"the engine cannot run the container: {problem.explanation}"
            ) from problem
        except (DockerException, requests.RequestException) as problem:
            raise _unavailable(self._host, problem) from problem


def _check_readable(door: Door) -> None:
    for dataset in door.context.datasets:
        try:
            mode = dataset.source.stat().st_mode
        except OSError as problem:
            raise error(
                Reason.DATASET_UNREADABLE, f"the dataset {dataset.dataset} cannot be read: {problem.strerror}"
            ) from problem
        # A folder must be entered as well.
        needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(mode) else 0)
        if mode & needed != needed:
            raise error(
                Reason.DATASET_UNREADABLE,
                f"the dataset {dataset.dataset} may not be read by the user of the container: ask the node's admin to "
                "allow others to read it (chmod o+rX); containers reach it through a mount alone",
                dataset=dataset.dataset,
            )


def _probe(host: str, path: str) -> None:
    """Ask by ourselves first: the library leaves a socket open when nobody answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except OSError as problem:
            raise _unavailable(host, problem) from problem


def _unavailable(host: str, problem: Exception) -> VantageError:
    return error(
        Reason.EXECUTOR_UNAVAILABLE,
        f"the container engine at {host} does not answer: start it, or correct docker.host ({type(problem).__name__})",
        host=host,
    )
