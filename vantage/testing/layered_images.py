"""Images of given layers, pushed without an engine: also those that no image builder would make."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vantage.common import oci
from vantage.common.declaration import LABEL
from vantage.common.layers import GZIP_TYPES
from vantage.common.oci import ImageReference, RegistryAccess, digest_of

DECLARATION = {"schema": 1, "functions": {"summary": {"arguments": {"type": "object"}}}}
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"


@dataclass(frozen=True)
class Layer:
    """A layer as it lies in a registry.

    Attributes:
        blob: its bytes there.
        diff_id: digest of the archive, uncompressed.
        media_type: of the blob.
    """

    blob: bytes
    diff_id: str
    media_type: str = GZIP_TYPES[0]

    @classmethod
    def of(cls, files: Mapping[str, bytes]) -> Layer:
        """One with these files."""
        return cls.packed(archive_of(files))

    @classmethod
    def packed(cls, archive: bytes) -> Layer:
        """One that unpacks to an archive."""
        return cls(gzip.compress(archive, 1, mtime=0), digest_of(archive))


@dataclass(frozen=True)
class Build:
    """An image to be pushed.

    Attributes:
        layers: from the bottom to the top.
        declaration: what it says of itself; None for nothing.
        settings: further settings of its config.
    """

    layers: Sequence[Layer]
    declaration: Mapping[str, Any] | None = field(default_factory=lambda: DECLARATION)
    settings: Mapping[str, Any] = field(default_factory=dict)


def archive_of(files: Mapping[str, bytes]) -> bytes:
    """A tar archive of files."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return written.getvalue()


async def push_build(
    registry: str, path: str, build: Build, *, access: RegistryAccess | None = None, tag: str | None = None
) -> ImageReference:
    """Push an image and return its name by digest.

    Args:
        registry: where to.
        path: of the repository.
        build: the image.
        access: how the registry is reached.
        tag: names it too.
    """
    labels = {} if build.declaration is None else {LABEL: json.dumps(build.declaration)}
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Labels": labels, **build.settings},
            "rootfs": {"type": "layers", "diff_ids": [each.diff_id for each in build.layers]},
        }
    ).encode()

    async with oci.connect(registry, path, access or RegistryAccess()) as repository:

        async def put(content: bytes, media_type: str) -> dict[str, Any]:
            return {"mediaType": media_type, "size": len(content), "digest": await repository.put_blob(content)}

        manifest = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST_TYPES[0],
            "config": await put(config, CONFIG_TYPE),
            "layers": [await put(each.blob, each.media_type) for each in build.layers],
        }
        digest = digest_of(json.dumps(manifest, separators=(",", ":")).encode())
        for name in filter(None, (digest, tag)):
            await repository.put_manifest(name, manifest)
    return ImageReference(registry, path, digest)
