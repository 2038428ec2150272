"""Sealed files: read and sealed, digested, and written at the same time."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from vantage.common import age, sealing

_GATHER = 1024 * 1024
"""Bytes that go to the other threads at once."""
_AHEAD = 4
"""How often so many bytes wait for each of them."""


def seal_file(
    source: age.Source, target: Path, recipients: Sequence[str], *, lead: bytes = b"", durable: bool = False
) -> tuple[str, int]:
    """Encrypt a stream into a file; blocks, so call it off the event loop.

    Args:
        source: what is sealed.
        target: the file, written anew; whatever happens, the caller removes it.
        recipients: who can open it.
        lead: bytes that are sealed before those of the source.
        durable: the file is on the disk afterwards.

    Returns:
        The digest of the file, ``sha256:`` and 64 hexadecimal digits, and its size in bytes.

    Raises:
        InvalidArgumentError: KEY_INVALID.
        OSError: of source or target.
    """
    with target.open("wb") as file:
        with _Beside(file) as beside:
            sealing.seal_stream(source, beside, recipients, lead=lead)
            beside.finish()
        if durable:
            file.flush()
            os.fsync(file.fileno())
    return f"sha256:{beside.digest.hexdigest()}", beside.size


class _Beside:
    """Takes bytes from one thread, and digests and writes them in two others; holds no more than a few blocks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer = ThreadPoolExecutor(1, "write")
        self._digester = ThreadPoolExecutor(1, "digest")
        self._gathered: list[bytes] = []
        self._waiting = 0
        self._under_way: deque[tuple[Future[None], Future[None]]] = deque()
        self.digest = hashlib.sha256()
        self.size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _problem: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for each in (self._writer, self._digester):
            each.shutdown(cancel_futures=True)

    def write(self, content: bytes) -> None:
        """The next bytes.

        Raises:
            OSError: of the file, for bytes that came before.
        """
        self._gathered.append(content)
        self._waiting += len(content)
        self.size += len(content)
        if self._waiting >= _GATHER:
            self._hand_over()
            while len(self._under_way) > _AHEAD:
                self._settle()

    def finish(self) -> None:
        """All bytes came: wait until they are digested and written.

        Raises:
            OSError: of the file.
        """
        self._hand_over()
        while self._under_way:
            self._settle()

    def _hand_over(self) -> None:
        taken, self._gathered, self._waiting = self._gathered, [], 0
        self._under_way.append((self._writer.submit(self._write, taken), self._digester.submit(self._update, taken)))

    def _settle(self) -> None:
        for each in self._under_way.popleft():
            each.result()

    def _write(self, blocks: list[bytes]) -> None:
        for each in blocks:
            self._file.write(each)

    def _update(self, blocks: list[bytes]) -> None:
        for each in blocks:
            self.digest.update(each)
