"""Signed statements: DSSE envelopes (in-toto, "Dead Simple Signing Envelope" v1) with the signer's certificate chain.

The bytes of the statement are signed as they are sent, so nothing has to be made canonical. The signature is ASN.1
ECDSA P-256 with SHA-256 over the pre-authentication encoding; ``keyid`` is the hexadecimal SHA-256 of the key's
SubjectPublicKeyInfo. One field is ours: ``x5c``, the chain in base64 DER, leaf first, as in RFC 7515; DSSE tells
readers to ignore fields that they do not know.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common.errors import Reason, VantageError, error
from vantage.common.pki import MAX_CHAIN, CertifiedName

MAX_ENVELOPE_BYTES = 2 * 1024 * 1024
"""An order to 1,000 organizations needs about half of it."""

Certify = Callable[[Sequence[bytes], datetime], CertifiedName]
"""Who a certificate chain (DER, leaf first) speaks for at a moment; PermissionDeniedError when nobody vouches."""


@dataclass(frozen=True)
class Signed:
    """A statement whose signature and signer passed every check; only ``verify`` builds it.

    Attributes:
        payload: the statement's bytes.
        signer: who signed.
        digest: ``sha256:`` and the digest of the payload: how other statements refer to this one.
    """

    payload: bytes
    signer: CertifiedName
    digest: str


def digest_of(payload: bytes) -> str:
    """``sha256:`` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(payload).hexdigest()}"


def sign(
    payload_type: str, payload: bytes, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]
) -> bytes:
    """Sign a statement.

    Args:
        payload_type: media type of the statement.
        payload: its bytes.
        key: private key of the leaf certificate.
        chain: leaf first; the organization's root may be left out.

    Returns:
        The envelope as JSON.
    """
    signature = key.sign(pre_authentication_encoding(payload_type, payload), ec.ECDSA(hashes.SHA256()))
    document = {
        "payloadType": payload_type,
        "payload": _b64(payload),
        "signatures": [
            {
                "keyid": key_id(key.public_key()),
                "sig": _b64(signature),
                "x5c": [_b64(each.public_bytes(serialization.Encoding.DER)) for each in chain],
            }
        ],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def verify(envelope: bytes, payload_type: str, certify: Certify, at: datetime) -> Signed:
    """Verify a signed statement.

    The checks, in order: (1) size and form, (2) the statement is of the type that is expected, (3) exactly one
    signature, with a chain of bounded length, (4) somebody who is trusted vouches for the chain at that moment, (5)
    the signature is that of the leaf's key over type and bytes.

    Args:
        envelope: JSON.
        payload_type: media type that is expected: a statement of one kind never passes for another.
        certify: see ``Certify``.
        at: moment of the check.

    Raises:
        RefusedError: ORDER_INVALID: malformed, of another type, or wrongly signed.
        VantageError: whatever ``certify`` raises.
    """
    # (1)
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise _invalid(f"it has more than {MAX_ENVELOPE_BYTES} bytes")
    try:
        document: Any = json.loads(envelope)
        found_type = document["payloadType"]
        payload = base64.b64decode(document["payload"], validate=True)
        signatures = document["signatures"]
        # (3)
        (only,) = signatures
        signature = base64.b64decode(only["sig"], validate=True)
        chain = only["x5c"]
        if not isinstance(chain, list) or not 1 <= len(chain) <= MAX_CHAIN:
            raise _invalid(f"its signature must carry 1 to {MAX_CHAIN} certificates")
        ders = [base64.b64decode(each, validate=True) for each in chain]
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise _invalid("it is not a DSSE envelope with one signature and its certificates") from None
    # (2)
    if found_type != payload_type:
        raise _invalid(f"its type is {str(found_type)[:100]!r}, expected {payload_type!r}: update the older side")
    # (4)
    signer = certify(ders, at)
    # (5)
    key = signer.certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise _invalid("its signer's key is not ECDSA P-256")
    try:
        key.verify(signature, pre_authentication_encoding(payload_type, payload), ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise _invalid("it is not signed with the key of its certificate") from None
    return Signed(payload, signer, digest_of(payload))


def peek(envelope: bytes) -> bytes:
    """The payload of an envelope that nobody has verified: for what is needed to verify it, and nothing else.

    Raises:
        RefusedError: ORDER_INVALID.
    """
    try:
        if len(envelope) > MAX_ENVELOPE_BYTES:
            raise ValueError
        return base64.b64decode(json.loads(envelope)["payload"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        raise _invalid("it is not a DSSE envelope") from None


def key_id(key: ec.EllipticCurvePublicKey) -> str:
    """Hexadecimal SHA-256 of the key's SubjectPublicKeyInfo."""
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(spki).hexdigest()


def pre_authentication_encoding(payload_type: str, payload: bytes) -> bytes:
    """What is signed, by the DSSE specification: type and body cannot be shifted into each other."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _invalid(why: str) -> VantageError:
    return error(Reason.ORDER_INVALID, f"a signed statement is not valid: {why}")
