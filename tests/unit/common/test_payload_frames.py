from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.common.payload_frames import (
    CHUNK_SIZE,
    decode_download,
    decode_upload,
    encode_download,
    encode_upload,
    upload_parts,
)
from vantage.common.write_behind import GATHER, MAX_BLOCKS, WriteBehind

SIZES = [0, 1, 127, 128, 16_383, 16_384, CHUNK_SIZE]


@pytest.mark.parametrize("size", SIZES)
def test_frames_are_what_the_library_writes(size: int) -> None:
    chunk = b"x" * size
    # The library leaves an empty chunk of a download out, which says the same.
    wanted = pb.DownloadPayloadResponse(chunk=chunk).SerializeToString() or b"\n\x00"
    assert encode_upload(chunk) == pb.UploadPayloadRequest(chunk=chunk).SerializeToString()
    assert encode_download(memoryview(chunk)) == wanted
    assert decode_upload(encode_upload(chunk)) == chunk
    assert decode_download(encode_download(chunk)) == chunk
    assert decode_download(pb.DownloadPayloadResponse(chunk=chunk).SerializeToString()) == chunk


def test_a_header_is_told_from_a_chunk() -> None:
    header = pb.UploadHeader(request_id="r", size_bytes=5, digest="d", offset=2)
    assert decode_upload(encode_upload(header)) == header
    assert decode_upload(b"") is None


@given(st.binary(max_size=40))
def test_whatever_arrives_is_read_as_the_library_reads_it(message: bytes) -> None:
    try:
        wanted = pb.UploadPayloadRequest.FromString(message)
    except Exception as problem:  # noqa: BLE001  # of the library's own class
        with pytest.raises(type(problem)):
            decode_upload(message)
        return
    part = wanted.WhichOneof("part")
    assert decode_upload(message) == (getattr(wanted, part) if part else None)


@pytest.mark.parametrize("offset", [0, 7, 2 * CHUNK_SIZE + 5])
async def test_an_upload_goes_on_at_its_offset(tmp_path: Path, offset: int) -> None:
    content = bytes(range(256)) * (CHUNK_SIZE // 128) + b"12345"
    path = tmp_path / "content"
    path.write_bytes(content)
    header, told = pb.UploadHeader(offset=offset), list[int]()
    for source in (content, path):
        first, *chunks = [part async for part in upload_parts(header, source, told.append)]
        assert first is header
        assert b"".join(bytes(each) for each in chunks if not isinstance(each, pb.UploadHeader)) == content[offset:]
    assert told[-1:] == ([len(content)] if offset < len(content) else [])


class Target:
    """Takes blocks when it is told to."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def write(self, blocks: Sequence[bytes | memoryview]) -> None:
        self.begun.set()
        await self.go_on.wait()
        self.written += [bytes(each) for each in blocks]


async def test_what_waits_to_be_written_is_bounded_and_stays_in_order_when_its_owner_is_cancelled() -> None:
    target = Target()
    behind = WriteBehind(target.write)
    taken = 0

    async def feed() -> None:
        nonlocal taken
        try:
            while True:
                await behind.add(bytes([taken]) * (GATHER // 2))
                taken += 1
        finally:
            await behind.flush()

    feeding = asyncio.create_task(feed())
    await target.begun.wait()
    await asyncio.sleep(0)
    # One write under way, and one that waits for it.
    assert taken == 3
    feeding.cancel()
    await asyncio.sleep(0)
    assert target.written == []
    target.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await feeding
    assert [each[0] for each in target.written] == [0, 1, 2, 3]


async def test_a_write_that_fails_is_told() -> None:
    async def write(_blocks: Sequence[bytes | memoryview]) -> None:
        raise OSError(28, "No space left on device")

    behind = WriteBehind(write)
    await behind.add(b"x" * GATHER)
    with pytest.raises(OSError, match="No space"):
        await behind.flush()


async def test_tiny_and_empty_blocks_do_not_pile_up() -> None:
    writes: list[int] = []

    async def write(blocks: Sequence[bytes | memoryview]) -> None:
        writes.append(len(blocks))

    behind = WriteBehind(write)
    for _ in range(3 * MAX_BLOCKS):
        await behind.add(b"")
        await behind.add(b"x")
    await behind.flush()
    assert writes == [MAX_BLOCKS] * 3
