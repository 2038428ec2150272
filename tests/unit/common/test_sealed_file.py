"""A file is sealed, digested and written at the same time, within bounds."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vantage.common import sealing
from vantage.common.errors import InvalidArgumentError, Reason
from vantage.common.sealed_file import seal_file

MIB = 1024 * 1024
IDENTITY = sealing.create_identity()
RECIPIENTS = [sealing.recipient_of(IDENTITY)]


def workers() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith(("write", "digest"))]


@pytest.mark.parametrize("size", [0, 1, MIB, 9 * MIB + 5])
@pytest.mark.parametrize("durable", [False, True])
def test_the_file_opens_and_has_the_digest_and_size_that_are_told(tmp_path: Path, size: int, durable: bool) -> None:
    content, target = os.urandom(size), tmp_path / "sealed"
    target.write_bytes(b"of earlier" * MIB)
    digest, told = seal_file(io.BytesIO(content), target, RECIPIENTS, lead=b"lead", durable=durable)
    sealed = target.read_bytes()
    assert (digest, told) == (f"sha256:{hashlib.sha256(sealed).hexdigest()}", len(sealed))
    assert sealing.unseal(sealing.SealedPayload(sealed), [IDENTITY]) == b"lead" + content
    assert not workers()


def test_a_full_disk_is_told_and_leaves_no_thread(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * MIB, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            seal_file(io.BytesIO(bytes(20 * MIB)), tmp_path / "sealed", RECIPIENTS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not workers()


def test_wrong_recipients_are_told_and_leave_no_thread(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        seal_file(io.BytesIO(b"x"), tmp_path / "sealed", ["age1"])
    assert caught.value.reason is Reason.KEY_INVALID
    assert not workers()


class Source(io.BytesIO):
    """Tells when more was read than may wait."""

    def __init__(self, content: bytes, most: int) -> None:
        super().__init__(content)
        self._most = most
        self.too_far = threading.Event()

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() > self._most:
            self.too_far.set()
        return super().read(size)


def test_no_more_is_read_than_the_disk_takes(tmp_path: Path) -> None:
    target = tmp_path / "slow"
    os.mkfifo(target)
    source = Source(os.urandom(20 * MIB), 8 * MIB)
    with ThreadPoolExecutor(1) as threads:
        sealing_it = threads.submit(seal_file, source, target, RECIPIENTS)
        with target.open("rb") as reader:
            first = reader.read(1)
            assert not source.too_far.wait(0.5)
            sealed = first + reader.read()
        assert source.too_far.is_set()
        assert sealing_it.result() == (f"sha256:{hashlib.sha256(sealed).hexdigest()}", len(sealed))
