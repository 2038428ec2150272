"""The images of a container engine: which there are, and how one is put there."""

from __future__ import annotations

import asyncio
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from vantage.common.errors import Reason, VantageError, error
from vantage.common.image_manifest import ImageConfig

T = TypeVar("T")

_TIMEOUT = 600
"""Seconds without a word of the engine; it tells of its progress while it unpacks."""
_API_VERSION = "1.41"
_CHUNK = 1024 * 1024


class EngineRefusalError(Exception):
    """The engine does not take an image; the text is its own."""


@dataclass(frozen=True)
class Loaded:
    """An image for the engine, in the form of 'docker save'.

    Attributes:
        image_id: digest of its config.
        config: the config.
        layers: a file for each layer; None for one that the engine has, below the others.
        tag: name that people see, and that keeps the image from being tidied up.
    """

    image_id: str
    config: ImageConfig
    layers: Sequence[Path | None]
    tag: str


class EngineImages:
    """The images of an engine. Its own threads wait for it: an engine that hangs blocks nothing else.

    Args:
        host: its socket.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="images")

    async def has(self, image_id: str) -> bool:
        """Whether it has an image.

        Raises:
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """

        def look(client: docker.DockerClient) -> bool:
            try:
                return bool(client.images.get(image_id).id == image_id)
            except ImageNotFound:
                return False

        return await self._run(look)

    async def shared_layers(self, diff_ids: Sequence[str]) -> int:
        """How many of an image's layers, from the bottom, it has as part of another image.

        Raises:
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """

        def look(client: docker.DockerClient) -> int:
            most = 0
            inspect: Any = client.api.inspect_image
            for each in client.api.images(quiet=True):
                try:
                    known = inspect(each)["RootFS"].get("Layers") or []
                except ImageNotFound:  # removed in this moment
                    continue
                same = 0
                for mine, theirs in zip(diff_ids, known, strict=False):
                    if mine != theirs:
                        break
                    same += 1
                most = max(most, same)
            return most

        return await self._run(look)

    async def room(self) -> int | None:
        """Bytes that are free where it keeps images; None when that cannot be seen from here.

        Raises:
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """

        def look(client: docker.DockerClient) -> int | None:
            if not self._host.startswith("unix:"):  # on another machine the same path is another disk
                return None
            try:
                return shutil.disk_usage(client.info()["DockerRootDir"]).free
            except (OSError, KeyError):
                return None

        return await self._run(look)

    async def load(self, image: Loaded) -> None:
        """Put an image there. The engine checks each layer against the config.

        Raises:
            EngineRefusalError: it does not take it.
            UnavailableError: EXECUTOR_UNAVAILABLE.
        """
        given_up = Event()

        def send(client: docker.DockerClient) -> None:
            try:
                load: Any = client.api.load_image
                answers = load(_archive(image, given_up), quiet=False)
                # Read to its end, also after an error: that lets go of the connection.
                problems = [str(each["error"]) for each in answers if "error" in each]
            except APIError as problem:
                raise EngineRefusalError(str(problem.explanation)) from problem
            if problems:
                raise EngineRefusalError(problems[0])

        try:
            await self._run(send)
        except asyncio.CancelledError:
            given_up.set()
            raise

    async def work(self, function: Callable[[], T]) -> T:
        """Do something else with images on these threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, function)

    async def _run(self, function: Callable[[docker.DockerClient], T]) -> T:
        def call() -> T:
            try:
                client = docker.DockerClient(base_url=self._host, version=_API_VERSION, timeout=_TIMEOUT)
                try:
                    return function(client)
                finally:
                    client.close()
            except (DockerException, requests.RequestException) as problem:
                raise self._unavailable(problem) from problem

        return await self.work(call)

    def _unavailable(self, problem: Exception) -> VantageError:
        return error(
            Reason.EXECUTOR_UNAVAILABLE,
            f"the container engine at {self._host} does not answer: start it, or correct docker.host "
            f"({type(problem).__name__})",
            host=self._host,
        )


def _archive(image: Loaded, given_up: Event) -> Iterator[bytes]:
    """The bytes of the archive that 'docker load' reads."""
    names = [f"layer-{index}" for index in range(len(image.layers))]
    listing = [{"Config": "config.json", "RepoTags": [image.tag], "Layers": names}]
    yield from _file("config.json", image.config.content)
    yield from _file("manifest.json", json.dumps(listing).encode())
    for name, path in zip(names, image.layers, strict=True):
        if path is None:
            continue
        yield _header(name, path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                if given_up.is_set():
                    raise InterruptedError("nobody waits for this image any more")
                yield chunk
        yield _padding(path.stat().st_size)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield _header(name, len(content)) + content + _padding(len(content))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size: int) -> bytes:
    return b"\0" * (-size % tarfile.BLOCKSIZE)
