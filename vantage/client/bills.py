"""Bills of materials that lie with an image: SPDX and CycloneDX, in JSON; as attestations, referrers, or attached.

Attestations are signed, the others are not; a bill says what its writer says, also when it is signed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vantage.common import cosign
from vantage.common.image_signing import MAX_ATTESTATION, Found
from vantage.common.image_statements import ImageStatement
from vantage.common.oci import ImageReference, Registry, is_digest, json_object
from vantage.common.referrers import list_referrers

_KINDS = {"spdx": "SPDX", "cyclonedx": "CycloneDX"}
MAX_BILLS = 20


@dataclass(frozen=True)
class Bill:
    """A bill of materials.

    Attributes:
        form: "SPDX" or "CycloneDX".
        digest: of the blob, or of the attestation that it is in.
        signed: whether it is an attestation; by whom is another matter.
        packages: name and version of each.
    """

    form: str
    digest: str
    signed: bool
    packages: tuple[str, ...]


async def read_bills(registry: Registry, reference: ImageReference, found: Found) -> list[Bill]:
    """The bills that lie with an image; those that cannot be read, or are too large, are left out.

    Args:
        registry: connection to the image's repository.
        reference: which image.
        found: its attestations.

    Raises:
        RefusedError: IMAGE_TAMPERED.
        UnavailableError: REGISTRY_UNAVAILABLE.
    """
    bills = [bill for each in found.statements if (bill := _attested(each, reference)) is not None]
    manifests = [await registry.manifest(cosign.bill_tag(reference.digest))]
    for descriptor in await list_referrers(registry, reference.digest):
        if _form(descriptor.get("artifactType")) and is_digest(descriptor.get("digest")):
            manifests.append(await registry.manifest(str(descriptor["digest"])))
    for manifest in manifests:
        layers = manifest[1].get("layers") if manifest is not None else None
        for layer in layers if isinstance(layers, list) else []:
            kind = layer.get("mediaType") if isinstance(layer, dict) else None
            size = layer.get("size") if isinstance(layer, dict) else None
            if not _form(kind) or not isinstance(size, int) or size > MAX_ATTESTATION:
                continue
            content = await registry.blob(str(layer.get("digest")), MAX_ATTESTATION)
            document = json_object(content or b"")
            if document is not None and len(bills) < MAX_BILLS:
                bills.append(Bill(_form(kind), str(layer["digest"]), False, _packages(document)))
    return bills


def _attested(statement: ImageStatement, reference: ImageReference) -> Bill | None:
    form = _form(statement.predicate)
    if not form or not statement.is_about(reference):
        return None
    # The signed bytes end with the statement (DSSE's pre-authentication encoding).
    start = statement.signed.find(b"{")
    document = json_object(statement.signed[start:]) or {}
    predicate = document.get("predicate")
    # cosign wraps what it does not know.
    if isinstance(predicate, dict) and isinstance(predicate.get("Data"), str):
        predicate = json_object(predicate["Data"].encode())
    return Bill(form, reference.digest, True, _packages(predicate if isinstance(predicate, dict) else {}))


def _form(kind: object) -> str:
    text = kind.lower() if isinstance(kind, str) else ""
    return next((form for word, form in _KINDS.items() if word in text), "")


def _packages(document: dict[str, Any]) -> tuple[str, ...]:
    listed = document.get("packages") or document.get("components")
    return tuple(
        f"{each.get('name')} {each.get('versionInfo') or each.get('version') or ''}".rstrip()
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict)
    )
