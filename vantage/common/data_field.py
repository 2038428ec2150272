"""The wire form of a message whose field 1 is bytes: written and read without protobuf, in one copy or none.

For the messages that carry bulk data (OpenRequest and OpenResponse, DialRequest and DialResponse): parsing them costs
more than everything else that happens to the bytes.
"""

from __future__ import annotations

_TAG = 0x0A  # field 1, length-delimited


def encode_data(data: bytes | bytearray | memoryview) -> bytes:
    """What ``Message(data=data).SerializeToString()`` gives."""
    header = bytearray((_TAG,))
    size = len(data)
    while size > 0x7F:
        header.append(size & 0x7F | 0x80)
        size >>= 7
    header.append(size)
    return b"".join((header, data))


def decode_data(message: bytes) -> memoryview | None:
    """The data of a message that has that field and nothing else; None for any other message."""
    size = shift = 0
    for position in range(1, min(len(message), 6)):
        size |= (message[position] & 0x7F) << shift
        if message[position] < 0x80:
            if message[0] == _TAG and len(message) == position + 1 + size:
                return memoryview(message)[position + 1 :]
            return None
        shift += 7
    return None
