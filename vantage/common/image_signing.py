"""Signs images in their registry, the way cosign does, and reads the signatures that lie there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign
from vantage.common.errors import Reason, VantageError, error
from vantage.common.oci import ImageReference, Registry

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_CONFIG = b'{"architecture":"","created":"0001-01-01T00:00:00Z","history":[],"os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'  # noqa: E501

MAX_SIGNATURES = 100
MAX_PAYLOAD = 64 * 1024


@dataclass(frozen=True)
class Signature:
    """A payload as stored and the signature over it; nothing of it is verified."""

    payload: bytes
    signature: str


async def sign_image(registry: Registry, reference: ImageReference, key: ec.EllipticCurvePrivateKey) -> bool:
    """Add a signature to an image, beside those that it has; returns False when this key has signed it already.

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


async def read_signatures(registry: Registry, reference: ImageReference) -> list[Signature]:
    """The signatures that are stored under the image's own signature tag, in cosign's layout.

    Raises:
        RefusedError: IMAGE_UNSIGNED, IMAGE_TAMPERED.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    found = await registry.manifest(cosign.signature_tag(reference.digest))
    layers = found[1].get("layers") if found is not None else None
    if not isinstance(layers, list) or not layers:
        raise error(
            Reason.IMAGE_UNSIGNED,
            f"the image {reference} is not signed: its author signs it with 'vantage image sign' or cosign",
            image=str(reference),
        )
    signatures = []
    for layer in layers[:MAX_SIGNATURES]:
        if not isinstance(layer, dict) or layer.get("mediaType") != cosign.PAYLOAD_MEDIA_TYPE:
            continue
        annotations = layer.get("annotations")
        signature = annotations.get(cosign.SIGNATURE_ANNOTATION) if isinstance(annotations, dict) else None
        if not isinstance(signature, str):
            continue
        payload = await registry.blob(str(layer.get("digest")), MAX_PAYLOAD)
        if payload is not None:
            signatures.append(Signature(payload, signature))
    return signatures


async def verify_image(
    registry: Registry, reference: ImageReference, keys: Mapping[str, ec.EllipticCurvePublicKey], threshold: int = 1
) -> list[str]:
    """Which of the keys have signed an image; at least ``threshold`` different ones have.

    Args:
        registry: connection to the image's repository.
        reference: which image.
        keys: public keys by the name that is returned.
        threshold: how many must have signed.

    Raises:
        RefusedError: IMAGE_NOT_FOUND, IMAGE_UNSIGNED, IMAGE_SIGNATURE_INVALID, IMAGE_TAMPERED.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    if await registry.manifest(reference.digest) is None:
        raise error(
            Reason.IMAGE_NOT_FOUND, f"the registry has no image {reference}: correct the digest", image=str(reference)
        )
    signatures = [each for each in await read_signatures(registry, reference) if _is_about(each, reference)]
    # By fingerprint: two files with one key are one signer.
    signers = {
        cosign.key_fingerprint(key): name
        for name, key in keys.items()
        if any(cosign.is_signed_by(key, each.payload, each.signature) for each in signatures)
    }
    if len(signers) < threshold:
        raise error(
            Reason.IMAGE_SIGNATURE_INVALID,
            f"{len(signers)} of the {threshold} keys that are needed have signed {reference}, which has "
            f"{len(signatures)} signatures: do not run it, or ask its author to sign it",
            image=str(reference),
        )
    return sorted(signers.values())


def _is_about(signature: Signature, reference: ImageReference) -> bool:
    """Whether a payload speaks of this very image: a signature of another image is none."""
    try:
        return cosign.signed_digest(signature.payload) == reference.digest
    except VantageError:
        return False
