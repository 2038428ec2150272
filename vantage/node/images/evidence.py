"""What a registry has about an image, as bytes, and what these bytes prove.

The bytes may come from a registry or from a file of the node: neither is believed. ``examine`` takes everything apart
again, so whoever changes a file gains what they would gain by changing the registry: nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from vantage.common import oci
from vantage.common.declaration import LABEL, Declaration
from vantage.common.errors import Reason, VantageError, error
from vantage.common.image_signing import Wanted, read_statements
from vantage.common.image_statements import ImageStatement
from vantage.common.oci import ImageReference
from vantage.common.predicate_types import SIGNATURE
from vantage.node.images.facts import ImageFacts, Proven
from vantage.node.images.keys import TrustedKey

MAX_VERIFICATIONS = 5_000
"""Signatures compared with keys for one image: half a second of a core."""


@dataclass(frozen=True)
class Evidence:
    """Bytes about an image; nothing of them is verified.

    Attributes:
        reference: which image they are said to be about.
        manifest: of the image.
        config: of the image.
        statements: what people say about it.
        unusable: how many more there were that are malformed.
    """

    reference: ImageReference
    manifest: bytes
    config: bytes
    statements: tuple[ImageStatement, ...]
    unusable: int = 0


async def read_evidence(registry: oci.Registry, reference: ImageReference, wanted: Wanted) -> Evidence:
    """Fetch what a registry has about an image.

    Raises:
        RefusedError: IMAGE_NOT_FOUND, IMAGE_TAMPERED, IMAGE_NOT_ALLOWED (an index of several platforms).
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    found = await registry.manifest(reference.digest)
    if found is None:
        raise error(
            Reason.IMAGE_NOT_FOUND,
            f"the registry has no image {reference}: push it, or correct the digest",
            image=str(reference),
        )
    config = await registry.blob(_config_digest(found[1], reference))
    statements = await read_statements(registry, reference, wanted)
    return Evidence(reference, found[0], config or b"", tuple(statements.statements), statements.unusable)


def examine(evidence: Evidence, keys: Iterable[TrustedKey]) -> tuple[ImageFacts, Evidence]:
    """What the bytes prove, and those of them that do. The numbers are those of the list in ``verifier``.

    At most ``MAX_VERIFICATIONS`` signatures are compared with keys; statements that come later do not count.

    Raises:
        RefusedError: IMAGE_TAMPERED, IMAGE_NOT_ALLOWED (an index of several platforms), IMAGE_DECLARATION_INVALID.
    """
    reference = evidence.reference
    # 7
    if oci.digest_of(evidence.manifest) != reference.digest:
        raise _tampered(reference, "its manifest is another one")
    manifest = _object(evidence.manifest, reference)
    image_id = _config_digest(manifest, reference)
    # 8
    if oci.digest_of(evidence.config) != image_id:
        raise _tampered(reference, "its configuration is missing, or another one")
    declaration = _declaration(evidence.config, reference)
    # 9
    about = [each for each in evidence.statements if each.is_about(reference)]
    # 10, the part that stays true: which keys have signed; whether they count is asked of the policy each time.
    different = tuple({one.fingerprint: one for one in keys}.values())
    proven: set[Proven] = set()
    kept: list[ImageStatement] = []
    for each in about[: MAX_VERIFICATIONS // max(1, len(different))]:
        if signers := [key.fingerprint for key in different if each.is_by(key.key)]:
            proven.update(Proven(signer, each.predicate, each.repositories(reference)) for signer in signers)
            kept.append(each)
    signatures = sum(each.predicate == SIGNATURE for each in about)
    foreign = len(evidence.statements) - len(about) + evidence.unusable
    facts = ImageFacts(reference, image_id, declaration, frozenset(proven), signatures, foreign)
    return facts, replace(evidence, statements=tuple(kept), unusable=0)


def _config_digest(manifest: dict[str, Any], reference: ImageReference) -> str:
    if manifest.get("mediaType") in oci.INDEX_TYPES or "manifests" in manifest:
        raise error(
            Reason.IMAGE_NOT_ALLOWED,
            f"{reference} is an index of several platforms: name and sign the image of one platform",
            image=str(reference),
        )
    config = manifest.get("config")
    digest = config.get("digest") if isinstance(config, dict) else None
    if not isinstance(digest, str) or not oci.is_digest(digest):
        raise _tampered(reference, "its manifest names no configuration")
    return digest


def _declaration(config: bytes, reference: ImageReference) -> Declaration:
    document = _object(config, reference)
    inner = document.get("config")
    labels = inner.get("Labels") if isinstance(inner, dict) else None
    label = labels.get(LABEL) if isinstance(labels, dict) else None
    if not isinstance(label, str):
        raise error(
            Reason.IMAGE_DECLARATION_INVALID,
            f"the image {reference} has no label {LABEL}: its author builds it with 'vantage algorithm'",
            image=str(reference),
        )
    return Declaration.parse(label)


def _object(content: bytes, reference: ImageReference) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _tampered(reference, "a part of it is not JSON")
    return document


def _tampered(reference: ImageReference, why: str) -> VantageError:
    return error(Reason.IMAGE_TAMPERED, f"the image {reference} cannot be used: {why}", image=str(reference))
