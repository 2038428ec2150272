"""Frames of a link: what two nodes say to each other inside TLS.

A frame is one byte of kind, four bytes of channel, four bytes of length (big-endian), and the payload.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

from vantage.common.errors import Reason, VantageError, error

HEADER = struct.Struct("!BII")
NUMBER = struct.Struct("!Q")
MAX_PAYLOAD = 64 * 1024


class Kind(IntEnum):
    """What a frame says."""

    HELLO = 1
    """First on each connection: who speaks, and how many frames it has of the other. Not counted."""
    ACK = 2
    """How many frames were taken. Not counted."""
    OPEN = 3
    """A new channel to a label."""
    OPENED = 4
    """It is listened to."""
    REFUSED = 5
    """It is not."""
    DATA = 6
    CREDIT = 7
    """So many bytes more may be sent on the channel."""
    FINISH = 8
    """No more data comes on the channel."""
    RESET = 9
    """The channel is broken off."""
    BYE = 10
    """The link ends in order: the run has ended."""


_KINDS = {kind.value: kind for kind in Kind}
"""Looked up for each frame: a call of the enumeration takes several times as long."""
UNCOUNTED = frozenset({Kind.HELLO, Kind.ACK})
"""Kinds that belong to one connection, not to the link: never sent again."""


def encode(kind: Kind, channel: int = 0, payload: bytes | memoryview = b"") -> bytes:
    """A frame."""
    return b"".join((HEADER.pack(kind, channel, len(payload)), payload))


def encode_number(kind: Kind, channel: int, number: int) -> bytes:
    """A frame that carries a number."""
    return encode(kind, channel, NUMBER.pack(number))


def encode_object(kind: Kind, channel: int, content: Mapping[str, Any]) -> bytes:
    """A frame that carries a JSON object."""
    return encode(kind, channel, json.dumps(content, separators=(",", ":")).encode())


def read_number(payload: bytes) -> int:
    """The number of a frame.

    Raises:
        InvalidArgumentError: PROTOCOL_VIOLATION.
    """
    if len(payload) != NUMBER.size:
        raise violation("a number has eight bytes")
    found: int = NUMBER.unpack(payload)[0]
    return found


def read_object(payload: bytes) -> dict[str, Any]:
    """The JSON object of a frame.

    Raises:
        InvalidArgumentError: PROTOCOL_VIOLATION.
    """
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError):
        raise violation("not a JSON object") from None
    if not isinstance(found, dict):
        raise violation("not a JSON object")
    return found


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes | memoryview) -> Iterator[tuple[Kind, int, bytes]]:
        """Add bytes and return the frames that are complete: kind, channel, payload.

        Raises:
            InvalidArgumentError: PROTOCOL_VIOLATION.
        """
        rest = self._rest
        if rest:
            rest += data
        position = 0
        # Most of what arrives ends where a frame ends: then it is cut where it lies.
        with memoryview(rest or data) as view:
            while len(view) - position >= HEADER.size:
                number, channel, size = HEADER.unpack_from(view, position)
                if size > MAX_PAYLOAD:
                    raise violation(f"a frame has at most {MAX_PAYLOAD} bytes")
                end = position + HEADER.size + size
                if end > len(view):
                    break
                kind = _KINDS.get(number)
                if kind is None:
                    raise violation(f"frames of the kind {number} are not known")
                payload = bytes(view[position + HEADER.size : end])
                position = end
                yield kind, channel, payload
            self._rest = bytearray(view[position:])


def violation(text: str) -> VantageError:
    """The other node does not keep the protocol."""
    return error(Reason.PROTOCOL_VIOLATION, f"the other node does not keep the protocol: {text}")
