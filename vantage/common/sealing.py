"""Sealed payloads: the age format (age-encryption.org/v1) with X25519 recipients.

What is sealed here opens with the ``age`` tool and the same key, and the other way round. Streams are sealed in chunks
of 64 KiB, each authenticated, so memory stays bounded and a cut or reordered stream does not open.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyrage
from pyrage import x25519

from vantage.common.errors import Reason, VantageError, error

MAX_RECIPIENTS = 64
"""Recipients of one payload; each costs its reader a header line of about 100 bytes."""


@dataclass(frozen=True)
class SealedPayload:
    """Bytes that only the holders of keys can read; only ``seal`` and what arrived sealed build it."""

    content: bytes


def create_identity() -> str:
    """A new secret key, ``AGE-SECRET-KEY-1...``: the content of an ``age`` identity file."""
    return str(x25519.Identity.generate())


def recipient_of(identity: str) -> str:
    """The public half of a secret key, ``age1...``.

    Raises:
        InvalidArgumentError: KEY_INVALID.
    """
    return str(_identity(identity).to_public())


def check_recipient(text: str) -> str:
    """A recipient in its one spelling.

    Raises:
        InvalidArgumentError: KEY_INVALID.
    """
    return str(_recipient(text))


def read_identities(text: str) -> list[str]:
    """The secret keys of an ``age`` identity file: one per line; lines with # are comments.

    Raises:
        InvalidArgumentError: KEY_INVALID, there is none or one is malformed.
    """
    found = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not found:
        raise error(Reason.KEY_INVALID, "the file holds no AGE-SECRET-KEY: make one with 'vantage key create'")
    for each in found:
        _identity(each)
    return found


def seal(content: bytes, recipients: Sequence[str]) -> SealedPayload:
    """Encrypt bytes to recipients.

    Raises:
        InvalidArgumentError: KEY_INVALID: no recipient, too many, or one is malformed.
    """
    return SealedPayload(pyrage.encrypt(content, _recipients(recipients)))


def seal_stream(source: BinaryIO, target: BinaryIO, recipients: Sequence[str], *, lead: bytes = b"") -> None:
    """Encrypt a stream to recipients; blocks, so call it off the event loop.

    Args:
        source: what is sealed.
        target: where the sealed bytes go.
        recipients: who can open them.
        lead: bytes that are sealed before those of the source.

    Raises:
        InvalidArgumentError: KEY_INVALID.
        OSError: of source or target.
    """
    wanted = _recipients(recipients)
    watched = _Watched(source, target, lead)
    try:
        pyrage.encrypt_io(watched, watched, wanted)
    except (pyrage.EncryptError, OSError) as problem:
        raise watched.problem or problem from None


def unseal(payload: SealedPayload, identities: Sequence[str]) -> bytes:
    """Decrypt bytes.

    Raises:
        RefusedError: SEAL_INVALID: not sealed to any of these keys, changed on the way, or of an unknown version.
    """
    try:
        return bytes(pyrage.decrypt(payload.content, [_identity(each) for each in identities]))
    except pyrage.DecryptError as problem:
        raise _unopened(problem) from None


def unseal_stream(source: BinaryIO, target: BinaryIO, identities: Sequence[str]) -> None:
    """Decrypt a stream; blocks, so call it off the event loop. What was written before an error must be thrown away.

    Raises:
        RefusedError: SEAL_INVALID.
        OSError: of source or target.
    """
    keys = [_identity(each) for each in identities]
    watched = _Watched(source, target)
    try:
        pyrage.decrypt_io(watched, watched, keys)
    except (pyrage.DecryptError, OSError) as problem:
        raise watched.problem or _unopened(problem) from None


class _Watched:
    """Both ends of a stream, remembering what went wrong with them.

    The library reports a chunk that does not authenticate as OSError too, and wraps those of the ends without their
    number: a full disk must not be called a forgery, nor the other way round.
    """

    def __init__(self, source: BinaryIO, target: BinaryIO, lead: bytes = b"") -> None:
        self._lead = io.BytesIO(lead)
        self._source = source
        self._target = target
        self.problem: OSError | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            return self._lead.read(size) or self._source.read(size)
        except OSError as problem:
            self.problem = problem
            raise

    def write(self, content: bytes) -> int:
        try:
            return self._target.write(content)
        except OSError as problem:
            self.problem = problem
            raise

    def flush(self) -> None:
        try:
            self._target.flush()
        except OSError as problem:
            self.problem = problem
            raise


def _recipients(texts: Sequence[str]) -> list[x25519.Recipient]:
    if not 1 <= len(texts) <= MAX_RECIPIENTS:
        raise error(Reason.KEY_INVALID, f"a payload is sealed to 1 to {MAX_RECIPIENTS} recipients, not {len(texts)}")
    return [_recipient(each) for each in texts]


def _recipient(text: str) -> x25519.Recipient:
    try:
        return x25519.Recipient.from_str(text.strip())
    except pyrage.RecipientError:
        raise error(Reason.KEY_INVALID, f"{text[:80]!r} is not an age recipient (age1...)") from None


def _identity(text: str) -> x25519.Identity:
    try:
        return x25519.Identity.from_str(text.strip())
    except pyrage.IdentityError:
        # The text is a secret, or was meant to be one: it is not repeated.
        raise error(Reason.KEY_INVALID, "not an age secret key (AGE-SECRET-KEY-1...)") from None


def _unopened(problem: Exception) -> VantageError:
    text = str(problem)
    if "No matching keys" in text:
        why = "it is sealed to other keys: the sender's list of keys may be out of date"
    elif "Unknown age format" in text:
        why = "its format is not known to this version: update vantage"
    else:
        why = "it was changed or cut on the way"
    return error(Reason.SEAL_INVALID, f"a sealed payload does not open: {why}")
