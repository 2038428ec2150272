"""Runs algorithms in Docker containers (or Podman's API-compatible ones): no network, read-only, without privileges."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import socket
import stat
import threading
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container

from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, RefusedError, VantageError, error
from vantage.node.door import Door
from vantage.node.executor.base import Existing, Exit, Found, Job, UnsandboxedCode
from vantage.node.executor.gpus import GpuPool
from vantage.node.executor.lines import LineSplitter
from vantage.node.executor.sandbox import SECCOMP, ImageFacts, container_settings, mounts

log = logging.getLogger(__name__)

LABEL_NODE = "org.vantage.node"
LABEL_RUN = "org.vantage.run"
LABEL_LEASE = "org.vantage.lease"
_KILLED = frozenset({137, 143, 255})
"""Statuses of a container that somebody ended: SIGKILL, SIGTERM, and the engine's own after the machine went down."""
_GOING = frozenset({"removing", "dead"})
"""What the engine calls a container that is being removed; it may still be asked about it."""
_LAST_OUTPUT = 1.0
"""Seconds that the last lines of a container may take after its end."""
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
        settings: kernel, runtime and security options, for people.
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
        grace: seconds between SIGTERM and SIGKILL when a run is stopped.

    Raises:
        UnavailableError: EXECUTOR_UNAVAILABLE, the engine does not answer.
    """

    def __init__(self, host: str, data_dir: Path, slots: int, gpus: Sequence[str] = (), grace: int = 10) -> None:
        self.owner = owner_of(data_dir)
        self._gpus = GpuPool(gpus)
        self._kept_gpus: dict[str, tuple[str, ...]] = {}
        self._grace = grace
        self._leaving = False
        self._removals: set[asyncio.Task[None]] = set()
        self._host = host
        self._path = host.removeprefix("unix://") if host.startswith("unix://") else None
        if self._path is not None:
            _probe(host, self._path)
        # For what is short; waiting and reading have threads of their own.
        self._threads = ThreadPoolExecutor(max_workers=slots + 4, thread_name_prefix="docker")
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
            await door.created(str(container.id), str(container.attrs["Image"]))
            async with self._output(container, door) as printed:
                await self._call(container.start)
                door.started()
                await self._wait(container)
                await printed
            return await self._conclude(container, door)

    async def adopt(self, existing: Existing, door: Door) -> Exit:
        """See ``Executor``. What was printed while no process listened is gone."""
        try:
            container = await self._in_thread(lambda: self._client.containers.get(existing.container))
        except NotFound:
            raise error(Reason.NODE_LOST, "the container was removed while its node was away: ask again") from None
        except (DockerException, requests.RequestException) as problem:
            raise _unavailable(self._host, problem) from problem
        async with door.served() as directory:
            self._check_same(container, existing, door, directory)
            door.started()  # whoever hears of it may count on the local API
            state = container.attrs["State"]
            if state["Running"]:  # or paused
                async with self._output(container, door) as printed:
                    await self._wait(container)
                    # The engine says nothing more, not even that it is all, to who comes after the end.
                    await asyncio.wait([printed], timeout=_LAST_OUTPUT)
                return await self._conclude(container, door)
            if state["ExitCode"] in _KILLED and not state.get("OOMKilled"):
                raise error(
                    Reason.NODE_LOST,
                    f"the container was killed while its node was away (exit status {state['ExitCode']}): ask again",
                )
            return await self._conclude(container, door)

    async def remove(self, existing: Existing) -> None:
        """See ``Executor``."""
        await self._remove(existing.container)
        self._gpus.give_back(self._kept_gpus.pop(existing.lease_id, ()))

    async def clean_up(self, held: Collection[Existing] = ()) -> Found:
        """See ``Executor``."""
        adoptable = {each.container: each.lease_id for each in held}
        gpus: dict[str, tuple[str, ...]] = {}

        def look() -> Found:
            running: set[str] = set()
            ended: set[str] = set()
            unstarted: set[str] = set()
            removed = 0
            labelled: dict[str, str | list[str] | bool] = {"label": f"{LABEL_NODE}={self.owner}"}
            for container in self._client.containers.list(all=True, filters=labelled, ignore_removed=True):
                lease_id = adoptable.get(str(container.id))
                if lease_id is not None and container.status != "created":
                    (running if container.attrs["State"]["Running"] else ended).add(lease_id)
                    lent = container.attrs["HostConfig"].get("DeviceRequests") or ()
                    gpus[lease_id] = tuple(device for each in lent for device in each["DeviceIDs"] or ())
                    continue
                if lease_id is not None:
                    unstarted.add(lease_id)
                with contextlib.suppress(NotFound):
                    container.remove(force=True, v=True)
                removed += 1
            return Found(frozenset(running), frozenset(ended), frozenset(unstarted), removed)

        found = await self._call(look)
        self._kept_gpus = gpus
        for devices in gpus.values():
            self._gpus.keep(devices)
        return found

    def leave(self) -> None:
        """See ``Executor``."""
        self._leaving = True

    async def _conclude(self, container: Container, door: Door) -> Exit:
        try:
            await self._in_thread(container.reload)
        except NotFound:
            raise _removed_by_others() from None
        except (DockerException, requests.RequestException) as problem:
            raise _unavailable(self._host, problem) from problem
        state = container.attrs["State"]
        if state["Status"] in _GOING:
            raise _removed_by_others()
        ended = Exit(int(state["ExitCode"]), out_of_memory=bool(state.get("OOMKilled")))
        await door.ended(ended)
        return ended

    def _check_same(self, container: Container, existing: Existing, door: Door, directory: Path) -> None:
        """Whether a container is the very one that was made for the attempt, as it was made.

        Checks: (1) its id is the one that was written down before it started, (2) its labels are of this node, run and
        lease, (3) its image is the one that was verified, (4) it sees the socket of this run, the datasets of this run,
        and nothing else.

        Raises:
            RunError: NODE_LOST.
        """
        attributes = container.attrs
        labels = {LABEL_NODE: self.owner, LABEL_RUN: existing.run, LABEL_LEASE: existing.lease_id}
        wanted = {(each["Target"], each["Source"]) for each in mounts(door.context, directory)}
        seen = {(each["Destination"], each["Source"]) for each in attributes["Mounts"]}
        writable = any(each["RW"] for each in attributes["Mounts"])
        same = (
            container.id == existing.container  # (1)
            and labels.items() <= attributes["Config"]["Labels"].items()  # (2)
            and attributes["Image"] == existing.image  # (3)
            and wanted == seen  # (4)
            and not writable
        )
        if not same:
            log.warning("container is not as it was made", extra={"run": existing.run, "container": container.id})
            raise error(
                Reason.NODE_LOST,
                "the container is not the one that was made for this run, or the node's datasets have changed since: "
                "ask again",
            )

    async def close(self) -> None:
        """See ``Executor``."""
        for removal in list(self._removals):
            removal.cancel()
        await asyncio.gather(*self._removals, return_exceptions=True)
        await asyncio.to_thread(self._client.close)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def engine(self) -> EngineFacts:
        """Which engine it is.

        Raises:
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """
        told: dict[str, Any] = await self._call(self._client.info)
        settings = (
            told.get("KernelVersion"),
            told.get("DefaultRuntime"),
            *sorted(told.get("SecurityOptions") or ()),
            told.get("CgroupVersion"),
        )
        return EngineFacts(
            str(told.get("ID", "")), str(told.get("ServerVersion", "")), "; ".join(str(each) for each in settings)
        )

    async def image(self, name: str) -> tuple[str, ImageFacts]:
        """Id and properties of an image that the engine has.

        Raises:
            RefusedError: IMAGE_NOT_FOUND.
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """
        try:
            found = await self._call(lambda: self._client.images.get(name))
        except RefusedError:
            raise error(
                Reason.IMAGE_NOT_FOUND,
                f"the engine has no image {name}: name one that it has (docker.probe_image, or --image)",
                image=name,
            ) from None
        return str(found.id), ImageFacts.of(found.attrs["Config"])

    @contextlib.asynccontextmanager
    async def _container(self, job: Job, door: Door, directory: Path, gpus: Sequence[str]) -> AsyncIterator[Container]:
        creation = asyncio.ensure_future(self._call(lambda: self._create(job, door, directory, gpus)))
        try:
            container = await asyncio.shield(creation)
        except asyncio.CancelledError:
            # The engine may be at it already: what it makes must be known to be removed.
            with contextlib.suppress(VantageError):
                await self._remove(str((await creation).id))
            raise
        try:
            yield container
        finally:
            # Ended by itself, cancelled or failed: nothing is left, and a second cancel does not change that.
            if not self._leaving:
                removal = asyncio.ensure_future(self._remove(str(container.id)))
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
            labels={LABEL_NODE: self.owner, LABEL_RUN: job.run, LABEL_LEASE: job.lease_id},
            **container_settings(job, door.context, directory, facts, gpus, self._seccomp),
        )

    @contextlib.asynccontextmanager
    async def _output(self, container: Container, door: Door) -> AsyncIterator[asyncio.Future[None]]:
        """Read what a container prints; gives what is done when all is read."""
        stream: Any = await self._call(lambda: container.attach(stream=True, stdout=True, stderr=True, logs=False))
        self._loop = asyncio.get_running_loop()
        reader = _alone(lambda: self._read(stream, door))
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

    async def _remove(self, container_id: str) -> None:
        def remove() -> None:
            if self._path is not None:
                _probe(self._host, self._path)
            with contextlib.suppress(NotFound):
                container = self._client.containers.get(container_id)
                if container.status == "running":
                    container.stop(timeout=self._grace)
                container.remove(force=True, v=True)

        async def remove_when_it_is_back() -> None:
            backoff = Backoff(base=1.0)
            while True:
                await asyncio.sleep(backoff.next_delay())
                with contextlib.suppress(VantageError):
                    return await self._call(remove)

        try:
            await self._call(remove)
        except VantageError as problem:
            # The engine is gone, and the container may run on. If this process ends before, clean_up finds it.
            log.error("container not removed yet", extra={"container": container_id, "problem": problem.message})
            removal = asyncio.create_task(remove_when_it_is_back(), name="container removal")
            self._removals.add(removal)
            removal.add_done_callback(self._removals.discard)

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

    async def _wait(self, container: Container) -> None:
        try:
            await _alone(container.wait)
        except NotFound:
            raise _removed_by_others() from None
        except (DockerException, requests.RequestException) as problem:
            raise _unavailable(self._host, problem) from problem

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


def _alone(work: Callable[[], T]) -> asyncio.Future[T]:
    """Do work that may last as long as a container, in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(outcome: T | Exception) -> None:
        if done.done():
            return  # whoever waited was cancelled
        if isinstance(outcome, Exception):
            done.set_exception(outcome)
        else:
            done.set_result(outcome)

    def run() -> None:
        outcome: T | Exception
        try:
            outcome = work()
        except Exception as problem:  # noqa: BLE001  # handed to whoever waits
            outcome = problem
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, outcome)

    threading.Thread(target=run, name="container", daemon=True).start()
    return done


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


def _removed_by_others() -> VantageError:
    return error(Reason.NODE_LOST, "somebody at the node removed the container while it ran: ask again")


def _unavailable(host: str, problem: Exception) -> VantageError:
    return error(
        Reason.EXECUTOR_UNAVAILABLE,
        f"the container engine at {host} does not answer: start it, or correct docker.host ({type(problem).__name__})",
        host=host,
    )
