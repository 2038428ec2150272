"""The smallest image that declares functions: no engine is needed to make one, and none could run it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vantage.common import oci
from vantage.common.declaration import LABEL


async def push_declaration(
    registry: str,
    path: str,
    declaration: Mapping[str, Any] | None,
    content: str = "",
    tag: str = "latest",
    access: oci.RegistryAccess | None = None,
) -> str:
    """Push an image without layers and return its reference by digest.

    Args:
        registry: where to.
        path: of the repository.
        declaration: what the image says of itself; None for an image that says nothing.
        content: makes images differ.
        tag: names it.
        access: credentials.
    """
    labels = {} if declaration is None else {LABEL: json.dumps(declaration)}
    config = json.dumps({"os": "linux", "config": {"Labels": labels, "Env": [content]}}).encode()
    async with oci.connect(registry, path, access or oci.RegistryAccess()) as repository:
        digest = await repository.put_manifest(
            tag,
            {
                "schemaVersion": 2,
                "mediaType": oci.MANIFEST_TYPES[0],
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "size": len(config),
                    "digest": await repository.put_blob(config),
                },
                "layers": [],
            },
        )
    return f"{registry}/{path}@{digest}"
