"""Images with all that hangs on them, from registries into a file and from a file into a registry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from vantage.common import blobs, cosign, oci
from vantage.common.blobs import Descriptor, Transfer
from vantage.common.errors import Reason, error
from vantage.common.image_archive import (
    NAME_ANNOTATION,
    REPOSITORY_ANNOTATION,
    TAG_ANNOTATION,
    ArchiveReader,
    ArchiveWriter,
    Entry,
)
from vantage.common.image_manifest import read_manifest
from vantage.common.oci import INDEX_TYPES, MANIFEST_TYPES, ImageReference, Registry
from vantage.common.referrers import keep_listed, list_referrers

Connect = Callable[[str, str], AbstractAsyncContextManager[Registry]]
"""Opens a repository: by the registry's address and the path."""

MAX_ATTACHED = 1_000
"""Manifests that hang on one image, directly or on what hangs on it."""


async def export_images(images: list[ImageReference], connect: Connect, path: Path, told: Transfer) -> list[Entry]:
    """Write images, their signatures and attestations into a new archive; goes on where an earlier attempt ended.

    Returns:
        What is in it, the images first.

    Raises:
        RefusedError: IMAGE_NOT_FOUND, IMAGE_NOT_ALLOWED (an index of several platforms), IMAGE_TAMPERED.
        UnavailableError: REGISTRY_UNAVAILABLE.
        ConflictError: ALREADY_EXISTS, the archive.
        OSError: it cannot be written.
    """
    with ArchiveWriter(path) as archive:
        entries: dict[Entry, dict[str, Any]] = {}
        for image in dict.fromkeys(images):
            async with connect(image.registry, image.path) as registry:
                export = _Export(registry, archive, image, told)
                entries |= await export.run()
        archive.finish({"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": list(entries.values())})
    return sorted(entries, key=lambda each: each.tag)


class _Export:
    def __init__(self, registry: Registry, archive: ArchiveWriter, image: ImageReference, told: Transfer) -> None:
        self._registry = registry
        self._archive = archive
        self._image = image
        self._told = told
        self._entries: dict[Entry, dict[str, Any]] = {}

    async def run(self) -> dict[Entry, dict[str, Any]]:
        """Export the image and what hangs on it."""
        await read_manifest(self._registry, self._image)  # that it is there, and one image
        await self._manifest(self._image.digest)
        waiting = [self._image.digest]
        seen = {self._image.digest}
        while waiting:
            subject = waiting.pop()
            for tag in (cosign.signature_tag(subject), cosign.attestation_tag(subject), cosign.bill_tag(subject)):
                if (found := await self._registry.manifest(tag)) is not None:
                    await self._store(found, tag)
            for descriptor in await list_referrers(self._registry, subject):
                digest = descriptor.get("digest")
                if not oci.is_digest(digest) or digest in seen:
                    continue
                if len(seen) > MAX_ATTACHED:
                    raise error(Reason.IMAGE_TAMPERED, f"more than {MAX_ATTACHED} things hang on {self._image}")
                seen.add(str(digest))
                waiting.append(str(digest))
                await self._manifest(str(digest))
        return self._entries

    async def _manifest(self, digest: str) -> None:
        found = await self._registry.manifest(digest)
        if found is not None:  # a list may name what was removed since
            await self._store(found)

    async def _store(self, found: tuple[bytes, dict[str, Any]], tag: str = "") -> None:
        content, document = found
        for blob in _blobs(document):
            if self._archive.has(blob.digest):
                continue
            with self._archive.blob(blob) as target:
                await blobs.download(self._registry, blob, target, blobs.steps(self._told, blob))
        self._archive.add_blob(content)
        digest, repository = oci.digest_of(content), self._image.repository
        notes = {REPOSITORY_ANNOTATION: repository}
        if tag:
            notes |= {TAG_ANNOTATION: tag, NAME_ANNOTATION: f"{repository}:{tag}"}
        elif digest == self._image.digest:
            notes[NAME_ANNOTATION] = str(self._image)
        self._entries[Entry(repository, digest, tag)] = {
            "mediaType": str(document.get("mediaType", MANIFEST_TYPES[0])),
            "digest": digest,
            "size": len(content),
            "annotations": notes,
        }


async def import_images(path: Path, host: str, prefix: str, connect: Connect, told: Transfer) -> list[ImageReference]:
    """Bring the images of an archive, and what hangs on them, to a registry; what is there already is passed over.

    Signatures that the registry has beside those of the archive stay.

    Args:
        path: of the archive.
        host: ``HOST[:PORT]`` of the registry.
        prefix: of all repositories there; may be empty.
        connect: opens a repository, with the right to push.
        told: hears how it goes.

    Returns:
        The images, as they are named there.

    Raises:
        RefusedError: IMAGE_TAMPERED, IMAGE_NOT_ALLOWED (an index of several platforms).
        UnavailableError: REGISTRY_UNAVAILABLE.
        OSError: the archive cannot be read.
    """
    images = []
    opened: dict[str, Registry] = {}
    async with AsyncExitStack() as connections:
        archive = connections.enter_context(ArchiveReader(path))
        # What refers to something comes after it; what lies under tags comes last.
        entries = sorted(
            archive.entries, key=lambda each: (bool(each.tag), "subject" in archive.manifest(each.digest)[1])
        )
        for entry in entries:
            content, document = archive.manifest(entry.digest)
            if "manifests" in document:
                raise error(
                    Reason.IMAGE_NOT_ALLOWED, f"{path} holds an index of several platforms: export the image of one"
                )
            original = entry.repository.partition("/")[2]
            name = f"{prefix}/{original}" if prefix else original
            if name not in opened:
                opened[name] = await connections.enter_async_context(connect(host, name))
            registry = opened[name]
            for blob in _blobs(document):
                if not await blobs.has(registry, blob.digest):
                    with archive.blob(blob) as source:
                        await blobs.upload(registry, blob, source, blobs.steps(told, blob))
            if entry.tag:
                await _put_tagged(registry, entry.tag, content, document)
            elif "subject" in document:
                await _put_referrer(registry, content, document)
            else:
                await registry.put_manifest(entry.digest, content)
                images.append(ImageReference(host, name, entry.digest))
    return images


async def _put_tagged(registry: Registry, tag: str, content: bytes, document: dict[str, Any]) -> None:
    """Store what lies under a tag of signatures or attestations, beside what is there."""
    there = await registry.manifest(tag)
    if there is None:
        await registry.put_manifest(tag, content)
        return
    known, layers = list(_layers(there[1])), list(_layers(document))
    added = [each for each in layers if each not in known]
    if added:
        await registry.put_manifest(tag, {**there[1], "layers": [*known, *added]})


async def _put_referrer(registry: Registry, content: bytes, document: dict[str, Any]) -> None:
    stored = await registry.put_referrer(content)
    subject = document.get("subject")
    digest = subject.get("digest") if isinstance(subject, dict) else None
    if stored.listed or not oci.is_digest(digest):
        return
    config = document.get("config")
    entry = {
        "mediaType": str(document.get("mediaType", MANIFEST_TYPES[0])),
        "digest": stored.digest,
        "size": stored.size,
        "artifactType": document.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None),
        "annotations": document.get("annotations") or {},
    }
    await keep_listed(registry, str(digest), entry)


def _blobs(document: dict[str, Any]) -> Iterator[Descriptor]:
    """What a manifest is made of."""
    yield Descriptor.parse(document.get("config"))
    yield from map(Descriptor.parse, _layers(document))


def _layers(document: dict[str, Any]) -> list[Any]:
    layers = document.get("layers")
    return layers if isinstance(layers, list) else []
