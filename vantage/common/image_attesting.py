"""Attestations of images: signed statements of a kind, such as where an image comes from and what is in it."""

from __future__ import annotations

from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common.errors import Reason, error
from vantage.common.image_signing import MAX_ATTESTATION, attach_statement
from vantage.common.image_statements import build_bundle, build_statement
from vantage.common.oci import ImageReference, Registry


async def attest_image(
    registry: Registry,
    reference: ImageReference,
    key: ec.EllipticCurvePrivateKey,
    predicate_type: str,
    predicate: dict[str, Any],
) -> str:
    """Attach a signed statement to an image, beside those that it has; returns the digest of its manifest.

    Args:
        registry: connection to the image's repository, with the right to push.
        reference: which image.
        key: private key of who says so.
        predicate_type: what kind of statement it is.
        predicate: what it says.

    Raises:
        InvalidArgumentError: INVALID_ARGUMENT, it is larger than nodes read (``MAX_ATTESTATION``).
        RefusedError: IMAGE_NOT_FOUND.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    bundle = build_bundle(key, build_statement(reference, predicate_type, predicate))
    if len(bundle) > MAX_ATTESTATION:
        raise error(
            Reason.INVALID_ARGUMENT,
            f"the attestation has {len(bundle)} bytes once it is signed, nodes read at most {MAX_ATTESTATION}: leave "
            "out what is not needed",
        )
    manifest = await registry.manifest(reference.digest)
    if manifest is None:
        raise error(
            Reason.IMAGE_NOT_FOUND, f"the registry has no image {reference}: push it first", image=str(reference)
        )
    return await attach_statement(registry, reference, manifest, bundle, predicate_type)
