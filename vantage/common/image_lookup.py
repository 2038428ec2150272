"""Finds out about images in their registry: which one a tag names, and what an image says of itself.

What is read here is checked against the image's digest, and not against any signature: it helps to ask the right
question. Nodes verify for themselves.
"""

from __future__ import annotations

import json
from typing import Any

from vantage.common.declaration import LABEL, Declaration
from vantage.common.errors import Reason, VantageError, error
from vantage.common.oci import INDEX_TYPES, ImageReference, Registry, digest_of


def split_tag(text: str) -> tuple[str, str, str]:
    """Registry, path and tag of ``REGISTRY/PATH[:TAG]``; without a tag, ``latest``.

    Raises:
        InvalidArgumentError: IMAGE_NOT_BY_DIGEST, it is no such name.
    """
    name, tag = text, "latest"
    # A colon before the last slash is that of the port.
    if ":" in text.rsplit("/", 1)[-1]:
        name, _, tag = text.rpartition(":")
    checked = ImageReference.parse(f"{name}@sha256:{'0' * 64}")
    return checked.registry, checked.path, tag


async def resolve(registry: Registry, name: str, path: str, tag: str) -> ImageReference:
    """The image that a tag names now.

    Args:
        registry: connection to the repository.
        name: of the registry.
        path: of the repository.
        tag: which one.

    Raises:
        RefusedError: IMAGE_NOT_FOUND.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    found = await registry.manifest(tag)
    if found is None:
        raise error(Reason.IMAGE_NOT_FOUND, f"the registry has no image {name}/{path}:{tag}: push it first")
    return ImageReference(name, path, digest_of(found[0]))


async def read_declaration(registry: Registry, reference: ImageReference) -> Declaration:
    """What an image says of itself.

    Args:
        registry: connection to the image's repository.
        reference: which image.

    Raises:
        RefusedError: IMAGE_NOT_FOUND, IMAGE_NOT_ALLOWED (an index of several platforms), IMAGE_TAMPERED,
            IMAGE_DECLARATION_INVALID.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    found = await registry.manifest(reference.digest)
    if found is None:
        raise error(
            Reason.IMAGE_NOT_FOUND, f"the registry has no image {reference}: correct the digest", image=str(reference)
        )
    manifest = found[1]
    if manifest.get("mediaType") in INDEX_TYPES or "manifests" in manifest:
        raise error(
            Reason.IMAGE_NOT_ALLOWED,
            f"{reference} is an index of several platforms: name the image of one platform",
            image=str(reference),
        )
    descriptor = manifest.get("config")
    content = await registry.blob(str(descriptor.get("digest") if isinstance(descriptor, dict) else None))
    return Declaration.parse(_label(content, reference))


def _label(content: bytes | None, reference: ImageReference) -> str:
    def invalid(why: str) -> VantageError:
        return error(Reason.IMAGE_DECLARATION_INVALID, f"{reference} {why}", image=str(reference))

    try:
        document: Any = json.loads(content or b"null")
        labels = document["config"].get("Labels") or {}
        label = labels.get(LABEL)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise invalid("has no usable configuration in the registry") from None
    if not isinstance(label, str):
        raise invalid(f"has no label {LABEL}, so it is no algorithm: docs/algorithms.md says how to build one")
    return label
