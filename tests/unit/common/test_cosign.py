from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from vantage.common import cosign, pki
from vantage.common.errors import InvalidArgumentError, RefusedError

DIGEST = f"sha256:{'a' * 64}"
KEY = pki.create_key()


def test_a_private_key_is_read_with_its_password_only() -> None:
    sealed = cosign.seal_private_key(KEY, b"pass")
    assert sealed.startswith(b"-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    opened = cosign.open_private_key(sealed, b"pass", "cosign.key")
    assert opened.private_numbers() == KEY.private_numbers()
    with pytest.raises(InvalidArgumentError, match="password is wrong"):
        cosign.open_private_key(sealed, b"other", "cosign.key")


def test_the_label_of_older_versions_is_read() -> None:
    sealed = cosign.seal_private_key(KEY, b"pass").replace(b"SIGSTORE", b"COSIGN")
    assert cosign.open_private_key(sealed, b"pass", "cosign.key").private_numbers() == KEY.private_numbers()


def document(sealed: bytes) -> dict[str, dict[str, object]]:
    loaded: dict[str, dict[str, object]] = json.loads(base64.b64decode(b"".join(sealed.splitlines()[1:-1])))
    return loaded


def test_a_key_file_has_the_fields_of_cosign() -> None:
    content = document(cosign.seal_private_key(KEY, b"pass"))
    assert content["kdf"]["name"] == "scrypt"
    assert content["kdf"]["params"] == {"N": 65536, "r": 8, "p": 1}
    assert content["cipher"]["name"] == "nacl/secretbox"
    assert set(content) == {"kdf", "cipher", "ciphertext"}


@pytest.mark.parametrize("change", [{"N": 2**40, "r": 8, "p": 1}, {"N": 3, "r": 8}, {}])
def test_a_key_file_that_would_take_all_memory_or_is_damaged_is_refused(change: dict[str, int]) -> None:
    content = document(cosign.seal_private_key(KEY, b"pass"))
    content["kdf"]["params"] = change
    body = base64.b64encode(json.dumps(content).encode()).decode()
    label = "ENCRYPTED SIGSTORE PRIVATE KEY"
    text = f"-----BEGIN {label}-----\n{body}\n-----END {label}-----\n"
    with pytest.raises(InvalidArgumentError, match=r"cosign\.key"):
        cosign.open_private_key(text.encode(), b"pass", "cosign.key")


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"-----BEGIN EC PRIVATE KEY-----\nAA\n-----END EC PRIVATE KEY-----"]
)
def test_another_file_is_no_key_file(content: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match="not a private key of cosign"):
        cosign.open_private_key(content, b"", "x")


def test_a_payload_speaks_of_one_image() -> None:
    payload = cosign.build_payload("registry/image", DIGEST)
    assert cosign.parse_payload(payload) == cosign.Payload(DIGEST, "registry/image")
    # Other tools write the key in another case.
    other = payload.replace(b"docker-manifest-digest", b"Docker-manifest-digest")
    assert cosign.parse_payload(other).digest == DIGEST
    assert cosign.signature_tag(DIGEST) == f"sha256-{'a' * 64}.sig"


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"{}", b'{"critical": {"type": "other", "image": {}}}', b'{"critical": 1}']
)
def test_what_is_no_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(RefusedError):
        cosign.parse_payload(payload)


def test_only_the_key_and_the_very_bytes_verify() -> None:
    payload = cosign.build_payload("registry/image", DIGEST)
    signature = cosign.sign(KEY, payload)
    assert cosign.is_signed_by(KEY.public_key(), payload, signature)
    assert not cosign.is_signed_by(KEY.public_key(), payload + b" ", signature)
    assert not cosign.is_signed_by(pki.create_key().public_key(), payload, signature)
    for damaged in ("", "%%%", "AAAA", signature[:-4]):
        assert not cosign.is_signed_by(KEY.public_key(), payload, damaged)


def test_openssl_verifies_a_signature(tmp_path: Path) -> None:
    payload = cosign.build_payload("registry/image", DIGEST)
    (tmp_path / "payload").write_bytes(payload)
    (tmp_path / "signature").write_bytes(base64.b64decode(cosign.sign(KEY, payload)))
    (tmp_path / "cosign.pub").write_bytes(cosign.public_pem(KEY.public_key()))
    command = ["openssl", "dgst", "-sha256", "-verify", "cosign.pub", "-signature", "signature", "payload"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Verified OK" in done.stdout


PUBLISHED: list[dict[str, str]] = json.loads(Path(__file__).with_name("cosign-keys.json").read_text("utf-8"))
"""Of sigstore-rs (tests/data/keys) and cosign (pkg/cosign/keys_test.go): both labels, both costs."""


@pytest.mark.parametrize("vector", PUBLISHED, ids=lambda vector: vector["name"])
def test_published_key_files_of_cosign_are_read(vector: dict[str, str]) -> None:
    sealed = vector["sealed"].encode()
    key = cosign.open_private_key(sealed, vector["password"].encode(), "cosign.key")
    assert cosign.load_public_key(cosign.public_pem(key.public_key()), "cosign.pub") == key.public_key()
    with pytest.raises(InvalidArgumentError, match="password is wrong"):
        cosign.open_private_key(sealed, b"another", "cosign.key")


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP256K1()])
def test_keys_of_another_type_are_refused_for_that(curve: ec.EllipticCurve) -> None:
    others: list[Any] = [
        ec.generate_private_key(curve),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ]
    for key in others:
        pem = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        with pytest.raises(InvalidArgumentError, match="not an ECDSA P-256 key"):
            cosign.load_public_key(pem, "cosign.pub")
