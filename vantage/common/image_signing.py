"""Signs images in their registry, the way cosign does: existing signatures stay, a new one is added."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign
from vantage.common.errors import Reason, error
from vantage.common.oci import ImageReference, Registry

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_CONFIG = b'{"architecture":"","created":"0001-01-01T00:00:00Z","history":[],"os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'  # noqa: E501


async def sign_image(registry: Registry, reference: ImageReference, key: ec.EllipticCurvePrivateKey) -> bool:
    """Add a signature to an image; returns False when this key has signed it already.

    Args:
        registry: connection to the image's repository, with the right to push.
        reference: which image.
        key: private key of the author or reviewer.

    Raises:
        RefusedError: IMAGE_NOT_FOUND.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    if await registry.manifest(reference.digest) is None:
        raise error(
            Reason.IMAGE_NOT_FOUND, f"the registry has no image {reference}: push it first", image=str(reference)
        )
    tag = cosign.signature_tag(reference.digest)
    found = await registry.manifest(tag)
    layers: list[dict[str, Any]] = list(found[1].get("layers", [])) if found is not None else []
    for layer in layers:
        signature = layer.get("annotations", {}).get(cosign.SIGNATURE_ANNOTATION, "")
        content = await registry.blob(layer["digest"])
        if content is not None and cosign.is_signed_by(key.public_key(), content, signature):
            return False
    payload = cosign.build_payload(reference.repository, reference.digest)
    layers.append(
        {
            "mediaType": cosign.PAYLOAD_MEDIA_TYPE,
            "size": len(payload),
            "digest": await registry.put_blob(payload),
            "annotations": {cosign.SIGNATURE_ANNOTATION: cosign.sign(key, payload)},
        }
    )
    await registry.put_manifest(
        tag,
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST_TYPE,
            "config": {
                "mediaType": _CONFIG_TYPE,
                "size": len(_CONFIG),
                "digest": await registry.put_blob(_CONFIG),
            },
            "layers": layers,
        },
    )
    return True
