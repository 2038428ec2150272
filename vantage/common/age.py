"""The age format (age-encryption.org/v1), X25519 recipients or a passphrase, on the primitives of ``cryptography``.

From the specification at https://github.com/C2SP/C2SP/blob/main/age.md. Written here because sealing is on the way of
every byte of a large payload: the bound library seals a fifth as fast as the primitives. Held to the published test
vectors, and to the ``age`` tool in both directions.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import bech32
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

CHUNK = 64 * 1024
MAX_HEADER_BYTES = 64 * 1024
"""A header is held in memory before anything of it is known to be authentic."""

WORK_FACTOR = 17
"""Of a passphrase, as a power of two: 128 MiB and some tenths of a second for each try."""
MAX_WORK_FACTOR = 20
"""What a header may ask of its reader: a gigabyte, some seconds. The ``age`` tool writes 18."""

INTRO = b"age-encryption.org/"
"""How every age file begins, of whichever version."""
_VERSION = INTRO + b"v1"
_SCRYPT_LABEL = b"age-encryption.org/v1/scrypt"
_SCRYPT = b"scrypt"
_FACTOR = re.compile(rb"[1-9][0-9]?")
_X25519_INFO = b"age-encryption.org/v1/X25519"
_TAG_BYTES = 16
_FILE_KEY_BYTES = 16
_NONCE_BYTES = 16
_SALT_BYTES = 16
_COLUMNS = 64
_ARGUMENT = re.compile(rb"[\x21-\x7e]+")
_IDENTITY_HRP = "age-secret-key-"
_RECIPIENT_HRP = "age"


class KeyTextError(ValueError):
    """A text is no key of the expected kind."""


class UnknownFormatError(ValueError):
    """Not an age file, or of a version that is not known."""


class NoKeyError(ValueError):
    """None of the identities opens it."""


class DamagedError(ValueError):
    """The file was changed, cut, or is not as the format says."""


class Source(Protocol):
    """What is read from."""

    def read(self, size: int, /) -> bytes | memoryview:
        """Up to so many bytes; none at the end."""
        ...


class Target(Protocol):
    """What is written to."""

    def write(self, content: bytes, /) -> object:
        """Take all of it."""
        ...


@dataclass(frozen=True)
class _Stanza:
    arguments: tuple[bytes, ...]
    body: bytes


def generate_identity() -> str:
    """A new secret key, ``AGE-SECRET-KEY-1...``."""
    return _encode(_IDENTITY_HRP, X25519PrivateKey.generate().private_bytes_raw()).upper()


def parse_identity(text: str) -> X25519PrivateKey:
    """A secret key.

    Raises:
        KeyTextError: it is none.
    """
    if text != text.upper():
        raise KeyTextError("an identity is in capital letters")
    return X25519PrivateKey.from_private_bytes(_decode(_IDENTITY_HRP, text.lower()))


def parse_recipient(text: str) -> X25519PublicKey:
    """A public key.

    Raises:
        KeyTextError: it is none.
    """
    return X25519PublicKey.from_public_bytes(_decode(_RECIPIENT_HRP, text))


def recipient_text(key: X25519PublicKey) -> str:
    """A public key as text, ``age1...``."""
    return _encode(_RECIPIENT_HRP, key.public_bytes_raw())


def encrypt(source: Source, target: Target, recipients: Sequence[X25519PublicKey]) -> None:
    """Encrypt a stream, read to its end.

    Raises:
        KeyTextError: a recipient is a point of low order, with which there is no secret.
        OSError: of source or target.
    """
    file_key = os.urandom(_FILE_KEY_BYTES)
    _write(source, target, file_key, b"".join(_wrap(file_key, each) for each in recipients))


def encrypt_with_passphrase(source: Source, target: Target, passphrase: bytes) -> None:
    """Encrypt a stream, read to its end, to whoever knows a passphrase; takes some tenths of a second and 128 MiB.

    Raises:
        OSError: of source or target.
    """
    file_key, salt = os.urandom(_FILE_KEY_BYTES), os.urandom(_SALT_BYTES)
    body = ChaCha20Poly1305(_stretched(passphrase, salt, WORK_FACTOR)).encrypt(bytes(12), file_key, None)
    stanza = b"-> scrypt %s %d\n%s\n" % (_base64(salt), WORK_FACTOR, _base64(body))
    _write(source, target, file_key, stanza)


def _write(source: Source, target: Target, file_key: bytes, stanzas: bytes) -> None:
    header = _VERSION + b"\n" + stanzas + b"---"
    nonce = os.urandom(_NONCE_BYTES)
    target.write(header + b" " + _base64(_header_mac(file_key, header)) + b"\n" + nonce)
    cipher = _payload_cipher(file_key, nonce)
    for counter, chunk, last in _chunks(source, CHUNK):
        target.write(cipher.encrypt(_chunk_nonce(counter, last), chunk, None))


def decrypt(source: Source, target: Target, identities: Sequence[X25519PrivateKey]) -> None:
    """Decrypt a stream, read to its end; each chunk is authentic before it is written, the whole only at the end.

    Raises:
        UnknownFormatError: see there.
        NoKeyError: see there.
        DamagedError: see there; what was written must be thrown away.
        OSError: of source or target.
    """
    _read(source, target, lambda stanzas: next(_unwrapped(stanzas, identities), None))


def decrypt_with_passphrase(source: Source, target: Target, passphrase: bytes) -> None:
    """Decrypt what was encrypted to a passphrase: as ``decrypt``, with as much memory and time as the header asks for.

    Raises:
        UnknownFormatError: see there.
        NoKeyError: it has another passphrase, or none.
        DamagedError: see there; or it asks for more work than ``MAX_WORK_FACTOR``.
        OSError: of source or target.
    """
    _read(source, target, lambda stanzas: _unlocked(stanzas, passphrase))


def _read(source: Source, target: Target, unwrap: Callable[[list[_Stanza]], bytes | None]) -> None:
    stanzas, header, mac = _read_header(source)
    if len(stanzas) > 1 and any(each.arguments[0] == _SCRYPT for each in stanzas):
        # Whoever knows the passphrase would not be the only one who could have written it.
        raise DamagedError("a passphrase stands alone")
    file_key = unwrap(stanzas)
    if file_key is None:
        raise NoKeyError("it is sealed to none of these keys")
    if not hmac.compare_digest(mac, _header_mac(file_key, header)):
        raise DamagedError("the header is not authentic")
    nonce = _exactly(source, _NONCE_BYTES)
    cipher = _payload_cipher(file_key, nonce)
    for counter, chunk, last in _chunks(source, CHUNK + _TAG_BYTES):
        try:
            plain = cipher.decrypt(_chunk_nonce(counter, last), chunk, None)
        except InvalidTag:
            raise DamagedError("a chunk is not authentic") from None
        if counter and not plain:
            raise DamagedError("the last chunk is empty")
        target.write(plain)


def _chunks(source: Source, size: int) -> Iterator[tuple[int, bytes | memoryview, bool]]:
    """Number, content, and whether it is the last one; at least one chunk, which may be empty."""
    counter, chunk = 0, _up_to(source, size)
    while True:
        # Only the end of the stream tells that a full chunk was the last.
        following = _up_to(source, size) if len(chunk) == size else b""
        yield counter, chunk, not following
        if not following:
            return
        counter, chunk = counter + 1, following


def _up_to(source: Source, size: int) -> bytes | memoryview:
    content = source.read(size)
    if len(content) in (0, size):
        return content
    parts = [content]
    left = size - len(content)
    while left and (part := source.read(left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _exactly(source: Source, size: int) -> bytes:
    content = _up_to(source, size)
    if len(content) != size:
        raise DamagedError("its end is missing")
    return bytes(content)


def _chunk_nonce(counter: int, last: bool) -> bytes:
    return counter.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _payload_cipher(file_key: bytes, nonce: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(_hkdf(file_key, nonce, b"payload"))


def _header_mac(file_key: bytes, header: bytes) -> bytes:
    return hmac.digest(_hkdf(file_key, b"", b"header"), header, "sha256")


def _hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


# The header.


def _wrap(file_key: bytes, recipient: X25519PublicKey) -> bytes:
    ephemeral = X25519PrivateKey.generate()
    share = ephemeral.public_key().public_bytes_raw()
    try:
        shared = ephemeral.exchange(recipient)
    except ValueError:
        raise KeyTextError("the recipient is a point of low order") from None
    key = _hkdf(shared, share + recipient.public_bytes_raw(), _X25519_INFO)
    body = ChaCha20Poly1305(key).encrypt(bytes(12), file_key, None)
    return b"-> X25519 " + _base64(share) + b"\n" + _base64(body) + b"\n"


def _unwrapped(stanzas: Iterable[_Stanza], identities: Sequence[X25519PrivateKey]) -> Iterator[bytes]:
    for stanza in stanzas:
        if stanza.arguments[0] != b"X25519":
            continue  # of another kind, which somebody else may open
        if len(stanza.arguments) != 2 or len(stanza.body) != _FILE_KEY_BYTES + _TAG_BYTES:
            raise DamagedError("a stanza is not as the format says")
        share = _unbase64(stanza.arguments[1])
        if len(share) != 32:
            raise DamagedError("a stanza is not as the format says")
        for identity in identities:
            try:
                shared = identity.exchange(X25519PublicKey.from_public_bytes(share))
            except ValueError:
                raise DamagedError("a stanza holds a point of low order") from None
            own = identity.public_key().public_bytes_raw()
            try:
                yield ChaCha20Poly1305(_hkdf(shared, share + own, _X25519_INFO)).decrypt(bytes(12), stanza.body, None)
            except InvalidTag:
                continue


def _unlocked(stanzas: Sequence[_Stanza], passphrase: bytes) -> bytes | None:
    kind, *arguments = stanzas[0].arguments
    if kind != _SCRYPT:
        return None
    if len(arguments) != 2 or not _FACTOR.fullmatch(arguments[1]):
        raise DamagedError("a stanza is not as the format says")
    salt, factor, body = _unbase64(arguments[0]), int(arguments[1]), stanzas[0].body
    if len(salt) != _SALT_BYTES or len(body) != _FILE_KEY_BYTES + _TAG_BYTES or factor > MAX_WORK_FACTOR:
        raise DamagedError("a stanza is not as the format says")
    try:
        return ChaCha20Poly1305(_stretched(passphrase, salt, factor)).decrypt(bytes(12), body, None)
    except InvalidTag:
        return None


def _stretched(passphrase: bytes, salt: bytes, factor: int) -> bytes:
    return Scrypt(salt=_SCRYPT_LABEL + salt, length=32, n=1 << factor, r=8, p=1).derive(passphrase)


def _read_header(source: Source) -> tuple[list[_Stanza], bytes, bytes]:
    """The stanzas, the bytes that the code authenticates, and the code."""
    lines = _Lines(source)
    if lines.next() != _VERSION:
        raise UnknownFormatError("not an age file of version 1")
    stanzas: list[_Stanza] = []
    while True:
        line = lines.next()
        if line.startswith(b"--- "):
            header = lines.taken[: -len(line) - 1] + b"---"
            mac = _unbase64(line[4:])
            if not stanzas or len(mac) != 32:
                raise DamagedError("the header is not as the format says")
            return stanzas, header, mac
        prefix, *arguments = line.split(b" ")
        if prefix != b"->" or not arguments or not all(_ARGUMENT.fullmatch(each) for each in arguments):
            raise DamagedError("the header is not as the format says")
        stanzas.append(_Stanza(tuple(arguments), _unbase64(b"".join(_body(lines)), wrapped=True)))


def _body(lines: _Lines) -> Iterator[bytes]:
    """Lines of a stanza's body: full ones, and then one that is shorter, perhaps empty."""
    while True:
        line = lines.next()
        if len(line) > _COLUMNS:
            raise DamagedError("a line of the header is too long")
        yield line
        if len(line) < _COLUMNS:
            return


class _Lines:
    """Lines of a header, byte by byte from the stream: what follows the header is not to be taken.

    Attributes:
        taken: everything so far.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self.taken = b""

    def next(self) -> bytes:
        line = bytearray()
        while (byte := self._source.read(1)) != b"\n":
            if not byte:
                if not self.taken:
                    raise UnknownFormatError("not an age file of version 1")
                raise DamagedError("its end is missing")
            line += byte
            if len(self.taken) + len(line) > MAX_HEADER_BYTES:
                if not self.taken:
                    raise UnknownFormatError("not an age file of version 1")
                raise DamagedError("the header is too long")
        self.taken += bytes(line) + b"\n"
        return bytes(line)


# Texts.


def _base64(content: bytes) -> bytes:
    return base64.b64encode(content).rstrip(b"=")


def _unbase64(text: bytes, *, wrapped: bool = False) -> bytes:
    """Without padding, in its one spelling."""
    try:
        content = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        content = None
    if content is None or _base64(content) != text or not (content or wrapped):
        raise DamagedError("the header is not as the format says")
    return content


def _encode(prefix: str, content: bytes) -> str:
    return str(bech32.bech32_encode(prefix, bech32.convertbits(content, 8, 5) or ()))


def _decode(prefix: str, text: str) -> bytes:
    found, data = bech32.bech32_decode(text)
    content = bech32.convertbits(data, 5, 8, False) if data is not None else None
    if found != prefix or content is None or len(content) != 32:
        raise KeyTextError(f"not a key that begins with {prefix}1")
    return bytes(content)
