"""Finds out about images in their registry: which one a tag names, and what an image says of itself.

What is read here is checked against the image's digest, and not against any signature: it helps to ask the right
question. Nodes verify for themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vantage.common.declaration import LABEL, Declaration
from vantage.common.errors import Reason, error
from vantage.common.image_manifest import read_config, read_manifest
from vantage.common.oci import ImageReference, Registry, digest_of


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
    manifest = await read_manifest(registry, reference)
    config = await read_config(registry, reference, manifest)
    return declaration_of(config.settings, reference)


def declaration_of(settings: Mapping[str, Any], reference: ImageReference) -> Declaration:
    """The declaration in an image's settings.

    Raises:
        RefusedError: IMAGE_DECLARATION_INVALID.
    """
    labels = settings.get("Labels")
    label = labels.get(LABEL) if isinstance(labels, dict) else None
    if not isinstance(label, str):
        raise error(
            Reason.IMAGE_DECLARATION_INVALID,
            f"{reference} has no label {LABEL}, so it is no algorithm: docs/algorithms.md says how to build one",
            image=str(reference),
        )
    return Declaration.parse(label)
