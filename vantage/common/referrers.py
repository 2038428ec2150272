"""What refers to an image in its registry (OCI 1.1): signatures and attestations hang on it by their ``subject``.

Registries that know the referrers API list them; for the others the specification has a tag, ``sha256-HEX``, with an
index that each writer keeps.
"""

from __future__ import annotations

from typing import Any

from vantage.common.oci import INDEX_TYPES, MANIFEST_TYPES, Registry

MAX_REFERRERS = 100
"""How many are looked at: what comes later does not count."""

_EMPTY = b"{}"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"


def fallback_tag(digest: str) -> str:
    """The tag of the index that stands in for the referrers API."""
    return digest.replace(":", "-", 1)


async def list_referrers(registry: Registry, digest: str) -> list[dict[str, Any]]:
    """Descriptors of what refers to an image, at most ``MAX_REFERRERS``; nothing of it is verified.

    Raises:
        RefusedError: IMAGE_TAMPERED.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    index = await registry.referrers(digest)
    if index is None:
        index = await _fallback(registry, digest)
    return _descriptors(index)[:MAX_REFERRERS]


async def attach(
    registry: Registry, subject: tuple[bytes, dict[str, Any]], digest: str, artifact: tuple[str, bytes], **notes: str
) -> str:
    """Store one file as a referrer of an image, and return the digest of its manifest.

    Without the referrers API, of two writers at the same moment one may leave the other out of the index.

    Args:
        registry: connection to the image's repository, with the right to push.
        subject: the image's manifest, as ``Registry.manifest`` gives it.
        digest: of the image.
        artifact: media type and content of the file.
        notes: annotations of the manifest.

    Raises:
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    content, manifest = subject
    kind, file = artifact
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPES[0],
        "artifactType": kind,
        "config": {"mediaType": _EMPTY_TYPE, "digest": await registry.put_blob(_EMPTY), "size": len(_EMPTY)},
        "layers": [{"mediaType": kind, "digest": await registry.put_blob(file), "size": len(file)}],
        "subject": {
            "mediaType": str(manifest.get("mediaType", MANIFEST_TYPES[0])),
            "digest": digest,
            "size": len(content),
        },
        "annotations": notes,
    }
    stored = await registry.put_referrer(document)
    if stored.listed:
        return stored.digest
    entry = {
        "mediaType": MANIFEST_TYPES[0],
        "digest": stored.digest,
        "size": stored.size,
        "artifactType": kind,
        "annotations": notes,
    }
    await keep_listed(registry, digest, entry)
    return stored.digest


async def keep_listed(registry: Registry, digest: str, entry: dict[str, Any]) -> None:
    """Add a referrer to the index that stands in for the referrers API, unless it is in it.

    Args:
        registry: connection to the repository, with the right to push.
        digest: what is referred to.
        entry: descriptor of the referrer.

    Raises:
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    entries = _descriptors(await _fallback(registry, digest))
    if all(each.get("digest") != entry["digest"] for each in entries):
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": [*entries, entry]}
        await registry.put_manifest(fallback_tag(digest), index)


async def _fallback(registry: Registry, digest: str) -> dict[str, Any]:
    found = await registry.manifest(fallback_tag(digest))
    return found[1] if found is not None else {}


def _descriptors(index: dict[str, Any]) -> list[dict[str, Any]]:
    manifests = index.get("manifests")
    return [each for each in manifests if isinstance(each, dict)] if isinstance(manifests, list) else []
