"""The server's own secret key, and what is derived from it."""

from __future__ import annotations

import hashlib
import hmac
import os
from base64 import urlsafe_b64encode
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from vantage.common import pki
from vantage.common.errors import Reason, error

KEY_FILE = "secrets.key"
_KEY_BYTES = 32
_NONCE_BYTES = 12


class Secrets:
    """Encrypts small secrets at rest, and derives values that nobody without the key can.

    One key in a file of the data directory: a copy of the database alone tells nothing. Each purpose has a key of its
    own, derived with HKDF-SHA256.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != _KEY_BYTES:
            raise error(Reason.CONFIGURATION_INVALID, f"{KEY_FILE} is damaged: restore it from a backup")
        self._key = key
        self._cipher = AESGCM(self._derived("seal"))
        self._macs: dict[str, bytes] = {}

    @classmethod
    def create(cls, data: Path) -> Secrets:
        """Make the key of a new data directory."""
        pki.write_private(data / KEY_FILE, os.urandom(_KEY_BYTES))
        return cls.load(data)

    @classmethod
    def load(cls, data: Path) -> Secrets:
        """Read the key of a data directory.

        Raises:
            ConfigurationError: it is missing or damaged.
        """
        try:
            return cls((data / KEY_FILE).read_bytes())
        except OSError as problem:
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"{data / KEY_FILE} cannot be read ({problem.strerror}): restore it from a backup, it belongs to the "
                "database",
            ) from problem

    def seal(self, plain: bytes, context: str) -> bytes:
        """Encrypt; only the same context opens it, so that rows cannot be exchanged."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Decrypt what ``seal`` made.

        Raises:
            ConfigurationError: it was made with another key or for another context.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise error(
                Reason.CONFIGURATION_INVALID,
                f"a secret in the server's database was not made with its {KEY_FILE}: its operator must restore it",
            ) from None

    def derive(self, purpose: str, *parts: bytes) -> str:
        """A text of 256 bits that the parts determine and nobody else can compute."""
        key = self._macs.setdefault(purpose, self._derived(purpose))
        mac = hmac.new(key, digestmod=hashlib.sha256)
        for part in parts:
            mac.update(len(part).to_bytes(4, "big") + part)
        return urlsafe_b64encode(mac.digest()).rstrip(b"=").decode()

    def _derived(self, purpose: str) -> bytes:
        return HKDF(hashes.SHA256(), _KEY_BYTES, None, f"vantage {purpose}".encode()).derive(self._key)
