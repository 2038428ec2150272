"""Signs images in their registry, in either of cosign's layouts, and reads what lies there about an image.

Layouts of signatures: the tag ``sha256-HEX.sig``, whose manifest has one layer for each signature, which every version
of cosign and skopeo reads; and the sigstore bundle as a referrer of the image, which cosign writes since version 3.
Attestations lie there as bundles, or as DSSE envelopes under the tag ``sha256-HEX.att``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign
from vantage.common.errors import Reason, VantageError, error
from vantage.common.image_statements import (
    BUNDLE_MEDIA_TYPE,
    BUNDLE_MEDIA_TYPES,
    ENVELOPE_MEDIA_TYPE,
    ImageStatement,
    Layout,
    build_bundle,
    build_statement,
    counts_for,
    parse,
)
from vantage.common.oci import ImageReference, Registry, is_digest
from vantage.common.predicate_types import SIGNATURE
from vantage.common.referrers import attach, list_referrers

_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
_CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
_CONFIG = b'{"architecture":"","created":"0001-01-01T00:00:00Z","history":[],"os":"","rootfs":{"type":"layers","diff_ids":[]},"config":{}}'  # noqa: E501
_PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"

MAX_SIGNATURES = 100
"""Layers that are looked at under a tag; of referrers as many (``referrers.MAX_REFERRERS``)."""
MAX_PAYLOAD = 64 * 1024
"""Of a signature in the classic layout."""
MAX_ATTESTATION = 8 * 1024 * 1024
"""Of a bundle or envelope; a larger one does not count."""
MAX_TOTAL = 32 * 1024 * 1024
"""Of everything that is read about an image; what comes later does not count."""

Wanted = Callable[[str], bool]
"""Whether statements of a predicate type are of interest."""


def signatures_only(predicate: str) -> bool:
    """See ``Wanted``."""
    return predicate == SIGNATURE


@dataclass
class Found:
    """What lies in the registry about an image, parsed and not believed.

    Attributes:
        statements: in the order in which they are stored.
        unusable: how many more there were that are malformed.
        size: bytes that were read.
    """

    statements: list[ImageStatement]
    unusable: int = 0
    size: int = 0

    def add(self, layout: Layout, content: bytes, signature: str = "") -> None:
        """Add a stored statement, if it is one."""
        self.size += len(content)
        try:
            self.statements += parse(layout, content, signature)
        except VantageError:
            self.unusable += 1

    def has_room(self, size: object, most: int) -> bool:
        """Whether something of this size may be read too."""
        return isinstance(size, int) and 0 <= size <= most and self.size + size <= MAX_TOTAL


async def sign_image(
    registry: Registry, reference: ImageReference, key: ec.EllipticCurvePrivateKey, layout: Layout = Layout.CLASSIC
) -> bool:
    """Add a signature to an image, beside those that it has; returns False when one by this key counts already.

    One for another repository does not count (``counts_for``): who takes an image over signs it once more.

    Of two who sign at the same moment one may overwrite the other's signature, since a tag is read and written: not so
    with BUNDLE at a registry that has the referrers API.

    Args:
        registry: connection to the image's repository, with the right to push.
        reference: which image.
        key: private key of the author or reviewer.
        layout: where the signature lies: CLASSIC or BUNDLE.

    Raises:
        RefusedError: IMAGE_NOT_FOUND.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    manifest = await registry.manifest(reference.digest)
    if manifest is None:
        raise _missing(reference, "push it first")
    if layout is Layout.CLASSIC:
        return await _sign_classic(registry, reference, key)
    found = Found([])
    await _read_referrers(registry, reference, signatures_only, found)
    if _has_signed(found, reference, key):
        return False
    await attach_statement(registry, reference, manifest, build_bundle(key, build_statement(reference)), SIGNATURE)
    return True


async def attach_statement(
    registry: Registry,
    reference: ImageReference,
    manifest: tuple[bytes, dict[str, Any]],
    bundle: bytes,
    predicate_type: str,
) -> str:
    """Store a bundle as cosign does, and return the digest of its manifest.

    Raises:
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    notes = {
        "org.opencontainers.image.created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "dev.sigstore.bundle.content": "dsse-envelope",
        _PREDICATE_ANNOTATION: predicate_type,
    }
    return await attach(registry, manifest, reference.digest, (BUNDLE_MEDIA_TYPE, bundle), **notes)


async def _sign_classic(registry: Registry, reference: ImageReference, key: ec.EllipticCurvePrivateKey) -> bool:
    tag = cosign.signature_tag(reference.digest)
    layers = _layers(await registry.manifest(tag))
    found = Found([])
    await _read_classic(registry, layers, found)
    if _has_signed(found, reference, key):
        return False
    payload = cosign.build_payload(reference.repository, reference.digest)
    layer = {
        "mediaType": cosign.PAYLOAD_MEDIA_TYPE,
        "size": len(payload),
        "digest": await registry.put_blob(payload),
        "annotations": {cosign.SIGNATURE_ANNOTATION: cosign.sign(key, payload)},
    }
    config = {"mediaType": _CONFIG_TYPE, "size": len(_CONFIG), "digest": await registry.put_blob(_CONFIG)}
    document = {"schemaVersion": 2, "mediaType": _MANIFEST_TYPE, "config": config, "layers": [*layers, layer]}
    await registry.put_manifest(tag, document)
    return True


def _has_signed(found: Found, reference: ImageReference, key: ec.EllipticCurvePrivateKey) -> bool:
    return any(
        each.predicate == SIGNATURE
        and each.is_about(reference)
        and counts_for(each.repositories(reference), reference.repository)
        and each.is_by(key.public_key())
        for each in found.statements
    )


async def read_statements(registry: Registry, reference: ImageReference, wanted: Wanted = signatures_only) -> Found:
    """Everything of interest that lies in the registry about an image, of all layouts.

    Args:
        registry: connection to the image's repository.
        reference: which image.
        wanted: attestations are large, so others are left where they are.

    Raises:
        RefusedError: IMAGE_TAMPERED, the registry sent other bytes than were asked for.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    found = Found([])
    await _read_classic(registry, _layers(await registry.manifest(cosign.signature_tag(reference.digest))), found)
    await _read_referrers(registry, reference, wanted, found)
    for layer in _layers(await registry.manifest(cosign.attestation_tag(reference.digest)))[:MAX_SIGNATURES]:
        kind = _annotations(layer).get("predicateType")
        if layer.get("mediaType") != ENVELOPE_MEDIA_TYPE or (isinstance(kind, str) and not wanted(kind)):
            continue
        if not found.has_room(layer.get("size"), MAX_ATTESTATION):
            continue
        content = await registry.blob(str(layer.get("digest")), MAX_ATTESTATION)
        if content is not None:
            found.add(Layout.ENVELOPE, content)
    return found


async def _read_classic(registry: Registry, layers: list[dict[str, Any]], found: Found) -> None:
    for layer in layers[:MAX_SIGNATURES]:
        signature = _annotations(layer).get(cosign.SIGNATURE_ANNOTATION)
        if layer.get("mediaType") != cosign.PAYLOAD_MEDIA_TYPE or not isinstance(signature, str):
            continue
        if not found.has_room(layer.get("size"), MAX_PAYLOAD):
            continue
        content = await registry.blob(str(layer.get("digest")), MAX_PAYLOAD)
        if content is not None:
            found.add(Layout.CLASSIC, content, signature)


async def _read_referrers(registry: Registry, reference: ImageReference, wanted: Wanted, found: Found) -> None:
    for descriptor in await list_referrers(registry, reference.digest):
        # The list is a hint; what counts is the manifest, which has the digest that it is asked by.
        digest = descriptor.get("digest")
        manifest = await registry.manifest(str(digest)) if is_digest(digest) else None
        if manifest is None:
            continue
        subject = manifest[1].get("subject")
        if not isinstance(subject, dict) or subject.get("digest") != reference.digest:
            continue
        kind = _annotations(manifest[1]).get(_PREDICATE_ANNOTATION)
        if isinstance(kind, str) and not wanted(kind):
            continue
        for layer in _layers(manifest)[:1]:
            if layer.get("mediaType") not in BUNDLE_MEDIA_TYPES:
                continue
            if not found.has_room(layer.get("size"), MAX_ATTESTATION):
                continue
            content = await registry.blob(str(layer.get("digest")), MAX_ATTESTATION)
            if content is not None:
                found.add(Layout.BUNDLE, content)


async def verify_image(
    registry: Registry,
    reference: ImageReference,
    keys: Mapping[str, ec.EllipticCurvePublicKey],
    threshold: int = 1,
    signed_as: Collection[str] = (),
) -> list[str]:
    """Which of the keys have signed an image, in either layout; at least ``threshold`` different ones have.

    Args:
        registry: connection to the image's repository.
        reference: which image.
        keys: public keys by the name that is returned.
        threshold: how many must have signed.
        signed_as: patterns of other names under which they may have signed it.

    Raises:
        RefusedError: IMAGE_NOT_FOUND, IMAGE_UNSIGNED, IMAGE_SIGNATURE_INVALID, IMAGE_SIGNED_ELSEWHERE, IMAGE_TAMPERED.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    if await registry.manifest(reference.digest) is None:
        raise _missing(reference, "correct the digest")
    found = await read_statements(registry, reference)
    signatures = [each for each in found.statements if each.predicate == SIGNATURE and each.is_about(reference)]
    if not found.statements and not found.unusable:
        raise unsigned(reference)
    # By fingerprint: two files with one key are one signer.
    signers: dict[str, str] = {}
    elsewhere: set[str] = set()
    for name, key in keys.items():
        theirs = [each.repositories(reference) for each in signatures if each.is_by(key)]
        if any(counts_for(each, reference.repository, signed_as) for each in theirs):
            signers[cosign.key_fingerprint(key)] = name
        else:
            elsewhere.update(*theirs)
    if len(signers) < threshold and elsewhere:
        raise error(
            Reason.IMAGE_SIGNED_ELSEWHERE,
            f"{reference} was signed under another name, {', '.join(sorted(elsewhere))[:200]}: accept that name "
            "(--signed-as), or have it signed here",
            image=str(reference),
        )
    if len(signers) < threshold:
        raise error(
            Reason.IMAGE_SIGNATURE_INVALID,
            f"{len(signers)} of the {threshold} keys that are needed have signed {reference}, which has "
            f"{len(signatures)} signatures: do not run it, or ask its author to sign it",
            image=str(reference),
        )
    return sorted(signers.values())


def unsigned(reference: ImageReference) -> VantageError:
    """Nothing at all lies with the image."""
    return error(
        Reason.IMAGE_UNSIGNED,
        f"the image {reference} is not signed: its author signs it with 'vantage image sign' or cosign",
        image=str(reference),
    )


def _missing(reference: ImageReference, remedy: str) -> VantageError:
    return error(Reason.IMAGE_NOT_FOUND, f"the registry has no image {reference}: {remedy}", image=str(reference))


def _layers(manifest: tuple[bytes, dict[str, Any]] | None) -> list[dict[str, Any]]:
    layers = manifest[1].get("layers") if manifest is not None else None
    return [each for each in layers if isinstance(each, dict)] if isinstance(layers, list) else []


def _annotations(document: dict[str, Any]) -> dict[str, Any]:
    annotations = document.get("annotations")
    return annotations if isinstance(annotations, dict) else {}
