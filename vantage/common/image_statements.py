"""What people say about images, in the forms that cosign stores, parsed and not yet believed.

Three forms: the payload of cosign's classic layout ("simple signing"), the sigstore bundle v0.3 around a DSSE
envelope, and the bare DSSE envelope of cosign's classic attestations. The last two hold an in-toto statement: about
which digests, and of which kind (predicate type). Certificates and transparency logs in them are not looked at: who
has signed is decided by public keys that the reader trusts.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import cosign
from vantage.common.dsse import pre_authentication_encoding
from vantage.common.errors import Reason, VantageError, error
from vantage.common.oci import ImageReference
from vantage.common.predicate_types import SIGNATURE
from vantage.common.repository_patterns import matches

BUNDLE_MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_MEDIA_TYPES = (BUNDLE_MEDIA_TYPE, "application/vnd.dev.sigstore.bundle+json;version=0.3")
"""The second is how early writers of v0.3 named it."""
ENVELOPE_MEDIA_TYPE = "application/vnd.dsse.envelope.v1+json"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
STATEMENT_TYPES = (STATEMENT_TYPE, "https://in-toto.io/Statement/v0.1")

_MAX_SUBJECTS = 1_000
_MAX_ENVELOPE_SIGNATURES = 10


class Layout(Enum):
    """How a statement is stored."""

    CLASSIC = "classic"
    BUNDLE = "bundle"
    ENVELOPE = "envelope"


@dataclass(frozen=True)
class ImageStatement:
    """One statement under one signature; whether it is true of ``is_by`` and ``is_about`` is for the reader to ask.

    Attributes:
        layout: how it is stored.
        content: its bytes as stored.
        signed: the bytes under the signature.
        signature: ASN.1 ECDSA P-256 with SHA-256, in base64.
        predicate: what kind of statement it is: ``SIGNATURE``, or the predicate type of an attestation.
        digests: images that it is about, ``sha256:HEX``.
        names: repositories that the signer wrote, each with the digest of the image that is called so.
    """

    layout: Layout
    content: bytes
    signed: bytes
    signature: str
    predicate: str
    digests: frozenset[str]
    names: frozenset[tuple[str, str]]

    def is_by(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether a key has signed it."""
        return cosign.is_signed_by(key, self.signed, self.signature)

    def is_about(self, reference: ImageReference) -> bool:
        """Whether it is about this very image: a statement about another is none."""
        return reference.digest in self.digests

    def repositories(self, reference: ImageReference) -> frozenset[str]:
        """Names that the signer wrote for an image, or, when they named only others, for those; empty without names."""
        return frozenset(name for name, digest in self.names if digest == reference.digest) or frozenset(
            name for name, _digest in self.names
        )


def parse(layout: Layout, content: bytes, signature: str = "") -> list[ImageStatement]:
    """Parse a stored statement.

    Args:
        layout: how it is stored.
        content: the payload, bundle or envelope.
        signature: in base64, for the classic layout, which keeps it beside the payload.

    Returns:
        One for each signature: a bundle has exactly one, an envelope at most ten that are looked at.

    Raises:
        RefusedError: IMAGE_SIGNATURE_INVALID.
    """
    match layout:
        case Layout.CLASSIC:
            payload = cosign.parse_payload(content)
            named = {(_repository(payload.repository), payload.digest)} if payload.repository else set()
            return [
                ImageStatement(
                    layout, content, content, signature, SIGNATURE, frozenset({payload.digest}), frozenset(named)
                )
            ]
        case Layout.BUNDLE:
            bundle = _json(content)
            if bundle.get("mediaType") not in BUNDLE_MEDIA_TYPES:
                raise _invalid("it is not a sigstore bundle v0.3")
            envelope = bundle.get("dsseEnvelope")
            if not isinstance(envelope, dict):
                raise _invalid("its bundle holds no DSSE envelope")
            return _from_envelope(layout, content, envelope, 1)
        case Layout.ENVELOPE:
            return _from_envelope(layout, content, _json(content), _MAX_ENVELOPE_SIGNATURES)


def build_statement(
    reference: ImageReference, predicate_type: str = SIGNATURE, predicate: dict[str, Any] | None = None
) -> bytes:
    """An in-toto statement about an image, ready to be signed."""
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": reference.repository, "digest": {"sha256": reference.digest.removeprefix("sha256:")}}],
        "predicateType": predicate_type,
        "predicate": predicate or {},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def build_bundle(key: ec.EllipticCurvePrivateKey, statement: bytes) -> bytes:
    """Sign a statement and put it into a sigstore bundle v0.3 with a plain public key."""
    signed = pre_authentication_encoding(PAYLOAD_TYPE, statement)
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    document = {
        "mediaType": BUNDLE_MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": base64.b64encode(hashlib.sha256(spki).digest()).decode()},
            "tlogEntries": [],  # readers want the field
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(statement).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(key.sign(signed, ec.ECDSA(hashes.SHA256()))).decode()}],
        },
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _from_envelope(layout: Layout, content: bytes, envelope: dict[str, Any], most: int) -> list[ImageStatement]:
    if envelope.get("payloadType") != PAYLOAD_TYPE:
        raise _invalid("its envelope holds no in-toto statement")
    try:
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [each["sig"] for each in envelope["signatures"]]
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise _invalid("its envelope is malformed") from None
    if not 1 <= len(signatures) <= most or not all(isinstance(each, str) for each in signatures):
        raise _invalid(f"its envelope must have {'one signature' if most == 1 else f'1 to {most} signatures'}")
    predicate, digests, names = _read_statement(payload)
    signed = pre_authentication_encoding(PAYLOAD_TYPE, payload)
    return [ImageStatement(layout, content, signed, each, predicate, digests, names) for each in signatures]


def _read_statement(payload: bytes) -> tuple[str, frozenset[str], frozenset[tuple[str, str]]]:
    statement = _json(payload)
    subjects, predicate = statement.get("subject"), statement.get("predicateType")
    if statement.get("_type") not in STATEMENT_TYPES or not isinstance(predicate, str):
        raise _invalid("it is not an in-toto statement")
    if not isinstance(subjects, list) or not 1 <= len(subjects) <= _MAX_SUBJECTS:
        raise _invalid(f"its statement must be about 1 to {_MAX_SUBJECTS} subjects")
    digests, names = set(), set()
    for each in subjects:
        digest = each.get("digest") if isinstance(each, dict) else None
        value = digest.get("sha256") if isinstance(digest, dict) else None
        if not isinstance(value, str):
            raise _invalid("its statement has a subject without a digest")
        digests.add(f"sha256:{value.lower()}")
        if isinstance(name := each.get("name"), str) and name:
            names.add((_repository(name), f"sha256:{value.lower()}"))
    return predicate, frozenset(digests), frozenset(names)


def _repository(text: str) -> str:
    """A repository as signers write it: some add a tag or a digest, and Docker's own registry has two names."""
    name = text.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = f"{head}{slash}{last.partition(':')[0]}"
    return name.replace("index.docker.io/", "docker.io/", 1) if name.startswith("index.docker.io/") else name


def counts_for(repositories: Collection[str], repository: str, signed_as: Collection[str] = ()) -> bool:
    """Whether a signature counts for a repository: its signer wrote none, or this one, or one that is accepted.

    Args:
        repositories: that the signer wrote.
        repository: in which the image lies.
        signed_as: patterns of names that are accepted as well.
    """
    patterns = (repository, *signed_as)
    return not repositories or any(matches(pattern, name) for name in repositories for pattern in patterns)


def _json(content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _invalid("it is not JSON")
    return document


def _invalid(why: str) -> VantageError:
    return error(Reason.IMAGE_SIGNATURE_INVALID, f"a statement about the image is not valid: {why}")
