"""What an image is made of: its manifest and its config, as the registry has them under their digests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vantage.common.blobs import Descriptor
from vantage.common.errors import Reason, VantageError, error
from vantage.common.oci import INDEX_TYPES, ImageReference, Registry, is_digest
from vantage.common.unique_keys import unique_keys

MAX_LAYERS = 500
"""Engines take 127."""
_SPELLINGS = {
    each.casefold(): each
    for each in ("config", "rootfs", "history", "diff_ids", "User", "Env", "Entrypoint", "Cmd", "WorkingDir", "Labels")
}
"""Keys that are read, or that a reviewer looks for."""


@dataclass(frozen=True)
class ImageManifest:
    """The manifest of one image.

    Attributes:
        content: bytes as stored.
        config: blob that holds the config; its digest is the image's id.
        layers: from the bottom to the top.
    """

    content: bytes
    config: Descriptor
    layers: tuple[Descriptor, ...]

    @property
    def size(self) -> int:
        """Bytes of all different layers, as transported."""
        return sum(each.size for each in set(self.layers))


@dataclass(frozen=True)
class ImageConfig:
    """The config of one image.

    Attributes:
        content: bytes as stored.
        diff_ids: digest of each layer's archive, uncompressed.
        settings: what containers start with: ``Entrypoint``, ``Env``, ``Labels``, ...
        document: all of it.
    """

    content: bytes
    diff_ids: tuple[str, ...]
    settings: Mapping[str, Any]
    document: Mapping[str, Any]


async def read_manifest(registry: Registry, reference: ImageReference) -> ImageManifest:
    """The manifest of an image.

    Raises:
        RefusedError: IMAGE_NOT_FOUND, IMAGE_NOT_ALLOWED (an index of several platforms), IMAGE_TAMPERED.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    found = await registry.manifest(reference.digest)
    if found is None:
        raise error(
            Reason.IMAGE_NOT_FOUND, f"the registry has no image {reference}: correct the digest", image=str(reference)
        )
    content, document = found
    if document.get("mediaType") in INDEX_TYPES or "manifests" in document:
        raise error(
            Reason.IMAGE_NOT_ALLOWED,
            f"{reference} is an index of several platforms: name the image of one platform",
            image=str(reference),
        )
    layers = document.get("layers")
    if not isinstance(layers, list) or len(layers) > MAX_LAYERS:
        raise _malformed(reference)
    return ImageManifest(content, Descriptor.parse(document.get("config")), tuple(map(Descriptor.parse, layers)))


async def read_config(registry: Registry, reference: ImageReference, manifest: ImageManifest) -> ImageConfig:
    """The config of an image.

    Raises:
        RefusedError: IMAGE_TAMPERED, it is not there, has another digest, is malformed or could be read in another way.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    content = await registry.blob(manifest.config.digest)
    document = None if content is None else _plain_object(content)
    if content is None or document is None:
        raise _malformed(reference)
    rootfs, settings = document.get("rootfs"), document.get("config") or {}
    diff_ids = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    # Without layers some builders leave the list out.
    diff_ids = [] if diff_ids is None and not manifest.layers else diff_ids
    if (
        not isinstance(diff_ids, list)
        or len(diff_ids) != len(manifest.layers)
        or not all(map(is_digest, diff_ids))
        or not isinstance(settings, dict)
    ):
        raise _malformed(reference)
    return ImageConfig(content, tuple(diff_ids), settings, document)


def _plain_object(content: bytes) -> dict[str, Any] | None:
    """A config that engines read as it is read here; None when it is none.

    They take the last of two equal keys, and case makes no difference to them: what a reviewer is shown as the
    entrypoint must not be followed by another ``ENTRYPOINT``, and no ``Config`` be overlooked.
    """
    try:
        document = json.loads(content, object_pairs_hook=unique_keys)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    # Below these, keys are free: labels and volumes may differ in case alone.
    for each in (document, document.get("config"), document.get("rootfs")):
        keys = list(each) if isinstance(each, dict) else []
        folded = {key.casefold(): key for key in keys}
        if len(folded) < len(keys) or any(_SPELLINGS.get(fold, key) != key for fold, key in folded.items()):
            return None
    return document


def _malformed(reference: ImageReference) -> VantageError:
    return error(
        Reason.IMAGE_TAMPERED,
        f"the manifest or config of {reference} is malformed: ask its author to build it again",
        image=str(reference),
    )
