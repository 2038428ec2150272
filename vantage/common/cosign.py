"""Image signatures and key files as cosign writes them, so that authors sign with it or with ``vantage image sign``.

Signatures here are those of cosign's classic layout (``image_statements`` has the other). In the image's repository,
the tag ``sha256-HEX.sig`` names a manifest whose layers are payloads ("simple signing", JSON); the signature, ASN.1
ECDSA P-256 with SHA-256 over the payload's bytes as stored, stands in base64 in an annotation of the layer. Key files:
PEM around JSON with scrypt and NaCl's secretbox.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from vantage.common.errors import Reason, VantageError, error

PAYLOAD_MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"
PAYLOAD_TYPE = "cosign container image signature"

_PEM_LABELS = ("ENCRYPTED SIGSTORE PRIVATE KEY", "ENCRYPTED COSIGN PRIVATE KEY")
_SCRYPT_N = 65_536
_MAX_SCRYPT_N = 2**20
"""A key file must not make its reader use all memory."""


def signature_tag(digest: str) -> str:
    """The tag under which signatures of an image lie."""
    return f"{digest.replace(':', '-', 1)}.sig"


def attestation_tag(digest: str) -> str:
    """The tag under which attestations of an image lie, in the classic layout."""
    return f"{digest.replace(':', '-', 1)}.att"


def bill_tag(digest: str) -> str:
    """The tag under which bills of materials of an image lie that ``cosign attach sbom`` wrote."""
    return f"{digest.replace(':', '-', 1)}.sbom"


def build_payload(repository: str, digest: str) -> bytes:
    """The text that is signed: this image, by digest."""
    document = {
        "critical": {
            "identity": {"docker-reference": repository},
            "image": {"docker-manifest-digest": digest},
            "type": PAYLOAD_TYPE,
        },
        "optional": None,
    }
    return json.dumps(document, separators=(",", ":")).encode()


@dataclass(frozen=True)
class Payload:
    """What a payload says.

    Attributes:
        digest: of the image that it speaks of.
        repository: the name under which the image was signed; may be empty.
    """

    digest: str
    repository: str


def parse_payload(payload: bytes) -> Payload:
    """Read the text that was signed.

    Raises:
        RefusedError: IMAGE_SIGNATURE_INVALID, it is no such payload.
    """
    try:
        critical: Any = json.loads(payload)["critical"]
        kind = critical["type"]
        # Written in lower case by cosign, in other cases by others.
        image = {str(key).lower(): value for key, value in critical["image"].items()}
        digest = image["docker-manifest-digest"]
        repository = (critical.get("identity") or {}).get("docker-reference") or ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise _invalid("its payload is malformed") from None
    if kind != PAYLOAD_TYPE or not isinstance(digest, str) or not isinstance(repository, str):
        raise _invalid("its payload is of another type")
    return Payload(digest, repository)


def sign(key: ec.EllipticCurvePrivateKey, payload: bytes) -> str:
    """The signature of a payload, in base64."""
    return base64.b64encode(key.sign(payload, ec.ECDSA(hashes.SHA256()))).decode()


def is_signed_by(key: ec.EllipticCurvePublicKey, payload: bytes, signature: str) -> bool:
    """Whether a signature in base64 is that of a key over a payload."""
    try:
        key.verify(base64.b64decode(signature, validate=True), payload, ec.ECDSA(hashes.SHA256()))
    except (InvalidSignature, binascii.Error, ValueError):
        return False
    return True


def load_public_key(pem: bytes, name: str) -> ec.EllipticCurvePublicKey:
    """Read ``cosign.pub``.

    Raises:
        InvalidArgumentError: KEY_INVALID.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError:
        raise error(Reason.KEY_INVALID, f"{name} is not a public key in PEM", path=name) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise error(Reason.KEY_INVALID, f"{name} is not an ECDSA P-256 key, which image signatures use", path=name)
    return key


def key_fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """``sha256:`` and the digest of the key's SubjectPublicKeyInfo: tells two files with one key from two keys."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo))
    return f"sha256:{digest.finalize().hex()}"


def public_pem(key: ec.EllipticCurvePublicKey) -> bytes:
    """The content of ``cosign.pub``."""
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def seal_private_key(key: ec.EllipticCurvePrivateKey, password: bytes) -> bytes:
    """The content of ``cosign.key``: the key encrypted with a password."""
    plain = key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    salt, nonce = os.urandom(32), os.urandom(SecretBox.NONCE_SIZE)
    box = SecretBox(Scrypt(salt=salt, length=32, n=_SCRYPT_N, r=8, p=1).derive(password))
    document = {
        "kdf": {"name": "scrypt", "params": {"N": _SCRYPT_N, "r": 8, "p": 1}, "salt": _b64(salt)},
        "cipher": {"name": "nacl/secretbox", "nonce": _b64(nonce)},
        "ciphertext": _b64(box.encrypt(plain, nonce).ciphertext),
    }
    body = _b64(json.dumps(document, separators=(",", ":")).encode())
    lines = [body[start : start + 64] for start in range(0, len(body), 64)]
    label = _PEM_LABELS[0]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def open_private_key(content: bytes, password: bytes, name: str) -> ec.EllipticCurvePrivateKey:
    """Read ``cosign.key``.

    Raises:
        InvalidArgumentError: KEY_INVALID, it is no such file or the password is wrong.
    """

    def invalid(why: str) -> VantageError:
        return error(Reason.KEY_INVALID, f"{name} {why}", path=name)

    lines = content.decode(errors="replace").strip().splitlines()
    if len(lines) < 3 or lines[0].strip("- ").removeprefix("BEGIN ") not in _PEM_LABELS:
        raise invalid("is not a private key of cosign: make one with 'vantage image key' or 'cosign generate-key-pair'")
    try:
        document = json.loads(base64.b64decode("".join(line.strip() for line in lines[1:-1]), validate=True))
        kdf, cipher = document["kdf"], document["cipher"]
        params = kdf["params"]
        known = kdf["name"] == "scrypt" and cipher["name"] == "nacl/secretbox"
        cost, block, parallel = int(params["N"]), int(params["r"]), int(params["p"])
        salt, nonce = base64.b64decode(kdf["salt"]), base64.b64decode(cipher["nonce"])
        ciphertext = base64.b64decode(document["ciphertext"])
    except (ValueError, KeyError, TypeError):
        raise invalid("is damaged") from None
    if not known or not 2 <= cost <= _MAX_SCRYPT_N or block != 8 or parallel != 1:
        raise invalid("is encrypted in a way that is not known here")
    try:
        plain = SecretBox(Scrypt(salt=salt, length=32, n=cost, r=block, p=parallel).derive(password)).decrypt(
            ciphertext, nonce
        )
        key = serialization.load_der_private_key(plain, None)
    except (CryptoError, ValueError):
        raise invalid("cannot be opened: the password is wrong, or the file is damaged") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise invalid("is not an ECDSA key")
    return key


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _invalid(why: str) -> VantageError:
    return error(Reason.IMAGE_SIGNATURE_INVALID, f"a signature of the image is not valid: {why}")
