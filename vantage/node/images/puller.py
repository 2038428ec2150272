"""Brings verified images to the engine, and makes sure that what is there is what was verified.

The node fetches images itself and hands them to the engine as files: the engine talks to no registry. So credentials,
authorities, mirrors and time-outs are the same for signatures and images, and what an image unpacks to is known before
the engine unpacks it (docs/design/0013).

The numbers continue those of the verifier.

15. The manifest has the digest that was verified; its config is the image's id.
16. Each layer has the digest that the manifest says, and within the node's limit it unpacks to an archive that has the
    digest that the config says.
17. After loading the engine has exactly that id, by which the container is created.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from vantage.common import blobs, oci
from vantage.common.errors import Reason, VantageError, error
from vantage.common.image_manifest import ImageConfig, ImageManifest, read_config, read_manifest
from vantage.common.layers import Budget, read_layer
from vantage.node.images.engine import EngineImages, EngineRefusalError, Loaded
from vantage.node.images.verifier import Access, VerifiedImage
from vantage.node.sources import Tell

log = logging.getLogger(__name__)

PULL_SECONDS = 3600.0
"""After this a pull is given up, however slowly it goes on; the deadline of the task may end it sooner."""
RESERVE = 256 * 1024 * 1024
"""Bytes that stay free on a disk: journals and logs are written there as well."""


@dataclass(frozen=True)
class _Parts:
    """What is known of an image on its way, and where its layers are kept meanwhile."""

    registry: oci.Registry
    manifest: ImageManifest
    config: ImageConfig
    directory: Path


class ImagePuller:
    """Pulls images.

    Args:
        host: the engine's socket.
        access: how each registry is reached.
        directory: for layers on their way; emptied at the first pull.
        max_size: what an image may have, in bytes: its layers as transported, and unpacked those that the engine lacks.
        seconds: after which a pull is given up.
    """

    def __init__(
        self,
        host: str,
        access: Access,
        directory: Path,
        max_size: int,
        seconds: float = PULL_SECONDS,
    ) -> None:
        self._engine = EngineImages(host)
        self._access = access
        self._directory = directory
        self._max_size = max_size
        self._seconds = seconds
        self._tidied = False
        self._pulling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def fetch(self, image: VerifiedImage, tell: Tell) -> None:
        """Pull an image unless the engine has it: an id is a digest, so what has it is the image.

        Raises:
            RefusedError: IMAGE_TAMPERED, IMAGE_NOT_FOUND, IMAGE_NOT_ALLOWED, IMAGE_TOO_LARGE.
            UnavailableError: EXECUTOR_UNAVAILABLE, REGISTRY_UNAVAILABLE.
            RunError: SCRATCH_UNAVAILABLE.
        """
        lock = self._pulling.setdefault(image.image_id, asyncio.Lock())
        async with lock:
            if await self._engine.has(image.image_id):
                return
            tell(0.0, "pulling image")
            log.info("pulling image", extra={"image": str(image.reference)})
            limit = asyncio.timeout(self._seconds)
            try:
                async with limit:
                    await self._pull(image)
            except TimeoutError:
                if not limit.expired():
                    raise
                raise error(
                    Reason.REGISTRY_UNAVAILABLE,
                    f"the image {image.reference} did not arrive within {self._seconds:g} s: the registry is too slow",
                    image=str(image.reference),
                ) from None
            except OSError as problem:
                raise error(
                    Reason.SCRATCH_UNAVAILABLE,
                    f"the node has no room for the image: {problem.strerror}: ask its admin to look at the disk",
                ) from problem
            # 17
            if not await self._engine.has(image.image_id):
                raise _tampered(image, "after loading the engine does not have it as it was signed")

    async def _pull(self, image: VerifiedImage) -> None:
        reference = image.reference
        async with oci.connect(reference.registry, reference.path, self._access(reference.registry)) as registry:
            # 15
            manifest = await read_manifest(registry, reference)
            if manifest.config.digest != image.image_id:
                raise _tampered(image, "its manifest names another config")
            config = await read_config(registry, reference, manifest)
            if manifest.size > self._max_size:
                raise error(
                    Reason.IMAGE_TOO_LARGE,
                    f"the layers of {reference} have {manifest.size} bytes, the node allows {self._max_size}: ask for "
                    "a smaller image, or its admin for a higher limits.max_image_size",
                    image=str(reference),
                )
            shared = await self._engine.shared_layers(config.diff_ids)
            with tempfile.TemporaryDirectory(dir=self._room()) as name:
                parts = _Parts(registry, manifest, config, Path(name))
                try:
                    try:
                        await self._bring(image, parts, shared)
                    except EngineRefusalError:
                        if not shared:
                            raise
                        # What it shared is gone meanwhile, or this engine wants all layers: once more with them.
                        log.info("loading image with all layers", extra={"image": str(reference)})
                        await self._bring(image, parts, 0)
                except EngineRefusalError as problem:
                    raise error(
                        Reason.EXECUTOR_UNAVAILABLE,
                        f"the container engine does not take the image {reference}: {str(problem)[:300]}",
                        image=str(reference),
                    ) from problem

    async def _bring(self, image: VerifiedImage, parts: _Parts, shared: int) -> None:
        """Download the layers that the engine lacks, look at them, load them."""
        wanted = list(zip(parts.manifest.layers, parts.config.diff_ids, strict=True))[shared:]
        size = sum(each.size for each in {layer for layer, _diff_id in wanted})
        _require_room("the node", shutil.disk_usage(parts.directory).free, size)
        budget = Budget(self._max_size)
        files: list[Path | None] = [None] * shared
        try:
            for layer, diff_id in wanted:
                path = parts.directory / layer.digest.partition(":")[2]
                if not path.exists():
                    with path.open("xb") as target:
                        await blobs.download(parts.registry, layer, target)  # 16
                await self._engine.work(partial(_look, path, layer, diff_id, budget))
                files.append(path)
        except asyncio.CancelledError:
            budget.give_up()
            raise
        _require_room("the container engine", await self._engine.room(), size + budget.used)
        reference = image.reference
        tag = f"{reference.repository}:{reference.digest.replace(':', '-')}"
        await self._engine.load(Loaded(image.image_id, parts.config, files, tag))

    def _room(self) -> Path:
        if not self._tidied:
            # Here, and not when the node is put together: only now this process is known to be alone.
            shutil.rmtree(self._directory, ignore_errors=True)
            self._tidied = True
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self._directory


def _require_room(whose: str, free: int | None, size: int) -> None:
    if free is not None and free < size + RESERVE:
        raise error(
            Reason.SCRATCH_UNAVAILABLE,
            f"{whose} has {free} bytes free, the image needs {size} and {RESERVE} must remain: ask its admin to look "
            "at the disk",
        )


def _look(path: Path, layer: blobs.Descriptor, diff_id: str, budget: Budget) -> None:
    """Unpack a layer to nowhere."""
    with path.open("rb") as source:
        deque(read_layer(source, layer.media_type, budget, diff_id), maxlen=0)  # 16


def _tampered(image: VerifiedImage, why: str) -> VantageError:
    return error(
        Reason.IMAGE_TAMPERED, f"{image.reference} cannot be used: {why}: do not use it", image=str(image.reference)
    )
