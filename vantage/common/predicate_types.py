"""Types of statements about images, as in-toto has them."""

from __future__ import annotations

import re
from collections.abc import Iterable

SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
"""A plain signature; payloads of cosign's classic layout count as statements of it."""

ATTESTATIONS = {
    "provenance": "https://slsa.dev/provenance/v1",
    "spdx": "https://spdx.dev/Document",
    "cyclonedx": "https://cyclonedx.org/bom",
    "vulnerabilities": "https://cosign.sigstore.dev/attestation/vuln/v1",
}
"""Short names of the types of attestations that nodes can be told to ask for."""

_VERSION = re.compile(r"/v[0-9]+(?:\.[0-9]+)*")


def is_of(predicate: str, kinds: Iterable[str]) -> bool:
    """Whether a statement's type is one of these, in any version of it (``.../v1.5``) that has no type of its own."""
    return any(
        predicate == each or (predicate.startswith(each) and _VERSION.fullmatch(predicate, len(each))) for each in kinds
    )
