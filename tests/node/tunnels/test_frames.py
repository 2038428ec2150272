"""Frames are found again however the bytes were cut on their way."""

from __future__ import annotations

import random

import pytest

from vantage.common.errors import VantageError
from vantage.node.tunnels import frames
from vantage.node.tunnels.frames import HEADER, MAX_PAYLOAD, Kind

SENT = [
    (Kind.DATA, 7, b"a"),
    (Kind.FINISH, 7, b""),
    (Kind.DATA, 2**32 - 1, random.Random(3).randbytes(MAX_PAYLOAD)),
    (Kind.CREDIT, 9, frames.NUMBER.pack(5)),
    (Kind.DATA, 1, b"the end"),
]
BYTES = b"".join(frames.encode(*each) for each in SENT)


@pytest.mark.parametrize("size", [1, 8, 9, 10, 11, 19, 20, 16_384, len(BYTES) - 1, len(BYTES)])
def test_pieces_of_any_size_give_the_same_frames(size: int) -> None:
    decoder = frames.Decoder()
    found: list[tuple[Kind, int, bytes]] = []
    for start in range(0, len(BYTES), size):
        piece = bytearray(BYTES[start : start + size])
        with memoryview(piece) as view:
            found.extend(decoder.feed(view))
        piece[:] = bytes(len(piece))  # whoever gave it may use it for something else
    assert found == SENT


def test_what_is_no_frame_is_refused_before_it_has_arrived() -> None:
    for header in (HEADER.pack(Kind.DATA, 1, MAX_PAYLOAD + 1), HEADER.pack(99, 1, 0)):
        with pytest.raises(VantageError):
            list(frames.Decoder().feed(frames.encode(Kind.DATA, 1, b"x") + header))
