"""Layers of images, read as a stream within bounds: whoever made them may want to harm their reader.

A layer is a tar archive, usually compressed with gzip. A kilobyte can unpack to terabytes: by compression, by headers
that are read into memory whole, by millions of empty members. Everything here counts against one ``Budget``. What no
image builder writes is refused (``tar_headers``), so that nothing is in a layer for its engine that is not seen here.
"""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

from vantage.common.errors import Reason, VantageError, error
from vantage.common.tar_headers import HeaderError, next_header

PLAIN_TYPES = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar")
GZIP_TYPES = (*(f"{each}+gzip" for each in PLAIN_TYPES[:1]), "application/vnd.docker.image.rootfs.diff.tar.gzip")
MAX_MEMBERS = 1_000_000
"""Files, directories and links of one image: each costs its reader an inode, or memory."""
CHUNK = 1024 * 1024

_UNREADABLE = (OSError, EOFError, zlib.error)
"""What is raised for a stranger's bytes; reading a local file that was just written does not fail."""


@dataclass
class Budget:
    """What an image may unpack to; used up by its layers.

    Attributes:
        size: bytes, of the archives and of the files in them.
        members: files, directories and links.
    """

    size: int
    members: int = MAX_MEMBERS

    def __post_init__(self) -> None:
        self._left, self._members = self.size, self.members

    @property
    def used(self) -> int:
        """Bytes so far."""
        return self.size - self._left

    def give_up(self) -> None:
        """Nobody waits any more: whoever unpacks on another thread ends at the next byte."""
        self._left = -1

    def take(self, count: int) -> None:
        """Use up bytes.

        Raises:
            RefusedError: IMAGE_TOO_LARGE.
        """
        self._left -= count
        if self._left < 0:
            raise error(
                Reason.IMAGE_TOO_LARGE,
                f"the image unpacks to more than {self.size} bytes, which is all that an image may have here",
                limit=str(self.size),
            )

    def take_member(self) -> None:
        """Use up a member.

        Raises:
            RefusedError: IMAGE_TOO_LARGE.
        """
        self._members -= 1
        if self._members < 0:
            raise error(
                Reason.IMAGE_TOO_LARGE,
                f"the image has more than {self.members} files, which is all that an image may have here",
                limit=str(self.members),
            )


class Member:
    """One file, directory or link of an archive. Its content can be read until the next one is asked for.

    Attributes:
        info: its header.
    """

    def __init__(self, info: tarfile.TarInfo, source: Callable[[int], bytes]) -> None:
        self.info = info
        self._source = source
        self._left = info.size if info.isreg() else 0

    def read(self, count: int = CHUNK) -> bytes:
        """The next bytes of a file; nothing at its end, and nothing of what is no file.

        Raises:
            RefusedError: as ``BoundedArchive``.
        """
        wanted = min(count, self._left)
        content = self._source(wanted)
        self._left -= wanted
        return content


class BoundedArchive:
    """A tar archive from a stranger, member by member, in bounded memory.

    Args:
        source: the archive, uncompressed.
        budget: counts what is read.
        seekable: whether contents are leapt over, which are then for others to read; otherwise the source is read to
            its end in order.
    """

    def __init__(self, source: BinaryIO, budget: Budget, *, seekable: bool = False) -> None:
        self._source = source
        self._budget = budget
        self._seekable = seekable
        self._position = 0

    def __iter__(self) -> Iterator[Member]:
        """Each member once.

        Raises:
            RefusedError: IMAGE_TOO_LARGE, or IMAGE_TAMPERED when it is no archive that image builders write.
        """
        while True:
            with _readable():
                info = next_header(self._read)
            if info is None:
                return
            self._budget.take_member()
            info.offset_data = self._position
            member = Member(info, self._exactly)
            yield member
            following = info.offset_data + (info.size + -info.size % tarfile.BLOCKSIZE if info.isreg() else 0)
            if self._seekable:
                self._source.seek(following)
                self._position = following
                continue
            while member.read():
                pass
            self._exactly(following - self._position)

    def _exactly(self, count: int) -> bytes:
        content = self._read(count)
        if len(content) < count:
            raise _malformed("it ends in the middle")
        return content

    def _read(self, count: int) -> bytes:
        with _readable():
            content = self._source.read(count)
        self._position += len(content)
        self._budget.take(len(content))
        return content


def read_layer(source: BinaryIO, media_type: str, budget: Budget, digest: str) -> Iterator[Member]:
    """The members of a layer; at the end its bytes had the digest that the image's config names.

    Args:
        source: the blob.
        media_type: of its descriptor.
        budget: of the image.
        digest: the layer's ``diff_id``: of the archive, uncompressed.

    Raises:
        RefusedError: IMAGE_TOO_LARGE, IMAGE_TAMPERED, or IMAGE_NOT_ALLOWED when it is compressed in another way.
    """
    if media_type in GZIP_TYPES:
        plain: Any = gzip.GzipFile(fileobj=source, mode="rb")
    elif media_type in PLAIN_TYPES:
        plain = source
    else:
        raise error(
            Reason.IMAGE_NOT_ALLOWED,
            f"a layer of the image has the media type {media_type[:100]!r}; layers are read plain and with gzip: build "
            "the image with gzip compression",
        )
    hashed: Any = _Hashed(plain)
    for member in BoundedArchive(hashed, budget):
        yield member
        while member.read():
            pass
    with _readable():
        # What follows the end mark counts for the digest, and against the budget.
        while rest := hashed.read(CHUNK):
            budget.take(len(rest))
    if hashed.digest() != digest:
        raise error(
            Reason.IMAGE_TAMPERED, f"a layer of the image unpacks to something else than {digest}: do not use it"
        )


class _Hashed:
    """Takes the digest of what is read through it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = hashlib.sha256()

    def read(self, count: int = -1) -> bytes:
        content = self._source.read(count)
        self._hash.update(content)
        return content

    def digest(self) -> str:
        return f"sha256:{self._hash.hexdigest()}"


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except HeaderError as problem:
        raise _malformed(str(problem)) from problem
    except _UNREADABLE as problem:
        raise _malformed(f"it cannot be read ({type(problem).__name__})") from problem


def _malformed(why: str) -> VantageError:
    return error(Reason.IMAGE_TAMPERED, f"an archive of the image is not as image builders write it: {why}")
