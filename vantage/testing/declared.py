"""Small images that declare functions, put together by hand: no engine is needed to make one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vantage.common import oci
from vantage.testing.layered_images import Build, Layer, push_build


async def push_declaration(
    registry: str,
    path: str,
    declaration: Mapping[str, Any] | None,
    content: str = "",
    tag: str = "latest",
    access: oci.RegistryAccess | None = None,
    files: Mapping[str, bytes] | None = None,
) -> str:
    """Push an image and return its reference by digest.

    Args:
        registry: where to.
        path: of the repository.
        declaration: what the image says of itself; None for an image that says nothing.
        content: makes images differ.
        tag: names it.
        access: credentials.
        files: in its one layer; without any, it has no layer, and no engine could run it.
    """
    build = Build([Layer.of(files)] if files else [], declaration, {"Env": [content]})
    return str(await push_build(registry, path, build, access=access, tag=tag))


async def push_index(images: Mapping[str, str], tag: str, access: oci.RegistryAccess | None = None) -> str:
    """Push an index of several platforms and return its reference by digest.

    Args:
        images: references by digest, of one repository, by processor architecture.
        tag: names the index.
        access: credentials.
    """
    parsed = {platform: oci.ImageReference.parse(each) for platform, each in images.items()}
    first = next(iter(parsed.values()))
    async with oci.connect(first.registry, first.path, access or oci.RegistryAccess()) as repository:
        entries = []
        for platform, image in parsed.items():
            found = await repository.manifest(image.digest)
            size = len(found[0]) if found is not None else 0
            described = {"mediaType": oci.MANIFEST_TYPES[0], "digest": image.digest, "size": size}
            entries.append({**described, "platform": {"architecture": platform, "os": "linux"}})
        index = {"schemaVersion": 2, "mediaType": oci.INDEX_TYPES[0], "manifests": entries}
        return f"{first.repository}@{await repository.put_manifest(tag, index)}"
