"""What arrives is opened while it arrives; what does not open is digested all the same."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import threading
from collections.abc import Callable

import pytest

from vantage.common import sealing
from vantage.common.errors import Reason, RefusedError
from vantage.common.opening_sink import MAX_BLOCKS, OpeningSink

IDENTITY = sealing.create_identity()
CONTENT = os.urandom(700_000)
SEALED = sealing.seal(CONTENT, [sealing.recipient_of(IDENTITY)]).content


def digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.mark.parametrize("size", [1_000, 64 * 1024, 300_000, len(SEALED)])
async def test_what_arrives_in_pieces_is_opened_and_digested(size: int) -> None:
    target = io.BytesIO()
    sink = OpeningSink(target, [IDENTITY])
    view = memoryview(SEALED)
    for start in range(0, len(SEALED), 4 * size):
        await sink.take([view[at : at + size] for at in range(start, min(start + 4 * size, len(SEALED)), size)])
    await sink.take([b""])  # is not the end
    assert (sink.size, sink.digest) == (len(SEALED), digest(SEALED))
    await sink.opened()
    assert target.getvalue() == CONTENT


@pytest.mark.parametrize(
    "harm",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: b"",
        lambda sealed: sealed + b"x",
        lambda sealed: b"plain text " * 100_000,
        lambda sealed: sealed[:200_000] + bytes([sealed[200_000] ^ 1]) + sealed[200_001:],
    ],
    ids=["cut", "empty", "longer", "not sealed", "changed"],
)
async def test_all_that_arrives_is_digested_although_it_does_not_open(harm: Callable[[bytes], bytes]) -> None:
    harmed = harm(SEALED)
    sink = OpeningSink(io.BytesIO(), [IDENTITY])
    blocks = [harmed[start : start + 10_000] for start in range(0, len(harmed), 10_000)]
    assert len(blocks) > 2 * MAX_BLOCKS or not harmed
    await sink.take(blocks)
    assert (sink.size, sink.digest) == (len(harmed), digest(harmed))
    with pytest.raises(RefusedError) as caught:
        await sink.opened()
    assert caught.value.reason is Reason.SEAL_INVALID


class FullDisk(io.BytesIO):
    def write(self, content: object) -> int:
        raise OSError(28, "No space left on device")


async def test_a_full_disk_is_told_before_all_has_come() -> None:
    sink = OpeningSink(FullDisk(), [IDENTITY])
    with pytest.raises(OSError, match="No space"):  # noqa: PT012  # one of them
        while True:
            await sink.take([SEALED])
    with pytest.raises(OSError, match="No space"):
        await sink.opened()


class Slow(io.BytesIO):
    """Takes bytes when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def write(self, content: bytes) -> int:  # type: ignore[override]
        self.begun.set()
        self.go_on.wait()
        return super().write(content)


async def test_what_waits_to_be_opened_is_bounded_and_closing_in_the_middle_ends_it() -> None:
    target = Slow()
    sink = OpeningSink(target, [IDENTITY])
    await sink.take([SEALED[:140_000]])
    await asyncio.to_thread(target.begun.wait)
    for number in range(MAX_BLOCKS):
        await sink.take([SEALED[140_000 + number : 140_001 + number]])
    more = asyncio.create_task(sink.take([SEALED[140_000 + MAX_BLOCKS :]]))
    # Nothing is taken from the queue while the file waits, so this does not end.
    done, _ = await asyncio.wait({more}, timeout=0.2)
    assert not done
    closing = asyncio.create_task(sink.close())
    target.go_on.set()
    await closing
    await more
    written = target.tell()
    await sink.take([b"x" * 1_000] * 3 * MAX_BLOCKS)  # late, and for nobody
    assert target.tell() == written
    assert not [each for each in threading.enumerate() if each.name.startswith("unseal")]
