"""Sealed payloads: the age format (age-encryption.org/v1) with X25519 recipients.

What is sealed here opens with the ``age`` tool and the same key, and the other way round. Streams are sealed in chunks
of 64 KiB, each authenticated, so memory stays bounded and a cut or reordered stream does not open.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from vantage.common import age
from vantage.common.errors import Reason, VantageError, error

MAX_RECIPIENTS = 64
"""Recipients of one payload; each costs its reader a header line of about 100 bytes."""


@dataclass(frozen=True)
class SealedPayload:
    """Bytes that only the holders of keys can read; only ``seal`` and what arrived sealed build it."""

    content: bytes


def create_identity() -> str:
    """A new secret key, ``AGE-SECRET-KEY-1...``: the content of an ``age`` identity file."""
    return age.generate_identity()


def recipient_of(identity: str) -> str:
    """The public half of a secret key, ``age1...``.

    Raises:
        InvalidArgumentError: KEY_INVALID.
    """
    return age.recipient_text(_identity(identity).public_key())


def check_recipient(text: str) -> str:
    """A recipient in its one spelling.

    Raises:
        InvalidArgumentError: KEY_INVALID.
    """
    return age.recipient_text(_recipient(text))


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
    target = io.BytesIO()
    seal_stream(io.BytesIO(content), target, recipients)
    return SealedPayload(target.getvalue())


def seal_stream(source: age.Source, target: age.Target, recipients: Sequence[str], *, lead: bytes = b"") -> None:
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
    try:
        age.encrypt(_Led(lead, source) if lead else source, target, _recipients(recipients))
    except age.KeyTextError as problem:
        raise error(Reason.KEY_INVALID, f"a recipient is not usable: {problem}") from None


def unseal(payload: SealedPayload, identities: Sequence[str]) -> bytes:
    """Decrypt bytes.

    Raises:
        RefusedError: SEAL_INVALID: not sealed to any of these keys, changed on the way, or of an unknown version.
    """
    target = io.BytesIO()
    unseal_stream(io.BytesIO(payload.content), target, identities)
    return target.getvalue()


def unseal_stream(source: age.Source, target: age.Target, identities: Sequence[str]) -> None:
    """Decrypt a stream; blocks, so call it off the event loop. What was written before an error must be thrown away.

    Raises:
        RefusedError: SEAL_INVALID.
        OSError: of source or target.
    """
    try:
        age.decrypt(source, target, [_identity(each) for each in identities])
    except age.NoKeyError:
        raise _unopened("it is sealed to other keys: the sender's list of keys may be out of date") from None
    except age.UnknownFormatError:
        raise _unopened("its format is not known to this version: update vantage") from None
    except age.DamagedError:
        raise _unopened("it was changed or cut on the way") from None


def seal_with_passphrase(content: bytes, passphrase: bytes) -> bytes:
    """Encrypt bytes to whoever knows a passphrase, as ``age --passphrase`` does; takes 128 MiB for some tenths of a
    second."""
    target = io.BytesIO()
    age.encrypt_with_passphrase(io.BytesIO(content), target, passphrase)
    return target.getvalue()


def unseal_with_passphrase(content: bytes, passphrase: bytes) -> bytes:
    """Decrypt what has a passphrase.

    Raises:
        InvalidArgumentError: KEY_INVALID, the passphrase is wrong.
        RefusedError: SEAL_INVALID, it was changed or cut, or is of an unknown version.
    """
    target = io.BytesIO()
    try:
        age.decrypt_with_passphrase(io.BytesIO(content), target, passphrase)
    except age.NoKeyError:
        raise error(Reason.KEY_INVALID, "its passphrase is wrong, or it has none") from None
    except age.UnknownFormatError:
        raise _unopened("its format is not known to this version: update vantage") from None
    except age.DamagedError:
        raise _unopened("it was changed or cut") from None
    return target.getvalue()


def is_sealed(content: bytes) -> bool:
    """Whether bytes are sealed, by how they begin."""
    return content.startswith(age.INTRO)


class _Led:
    """A stream with bytes before it."""

    def __init__(self, lead: bytes, source: age.Source) -> None:
        self._lead = lead
        self._source = source

    def read(self, size: int) -> bytes | memoryview:
        if not self._lead:
            return self._source.read(size)
        lead, self._lead = self._lead, b""
        return lead + self._source.read(size - len(lead))


def _recipients(texts: Sequence[str]) -> list[X25519PublicKey]:
    if not 1 <= len(texts) <= MAX_RECIPIENTS:
        raise error(Reason.KEY_INVALID, f"a payload is sealed to 1 to {MAX_RECIPIENTS} recipients, not {len(texts)}")
    return [_recipient(each) for each in texts]


def _recipient(text: str) -> X25519PublicKey:
    try:
        return age.parse_recipient(text.strip())
    except age.KeyTextError:
        raise error(Reason.KEY_INVALID, f"{text[:80]!r} is not an age recipient (age1...)") from None


def _identity(text: str) -> X25519PrivateKey:
    try:
        return age.parse_identity(text.strip())
    except age.KeyTextError:
        # The text is a secret, or was meant to be one: it is not repeated.
        raise error(Reason.KEY_INVALID, "not an age secret key (AGE-SECRET-KEY-1...)") from None


def _unopened(why: str) -> VantageError:
    return error(Reason.SEAL_INVALID, f"a sealed payload does not open: {why}")
