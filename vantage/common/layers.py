"""Layers of images, read as a stream within bounds: whoever made them may want to harm their reader.

A layer is a tar archive, usually compressed with gzip. A kilobyte can unpack to terabytes: by compression, by members
that are mostly holes (sparse), by headers that are read into memory whole, by millions of empty members. Everything
here counts against one ``Budget``, and what no image builder writes is refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

from vantage.common.errors import Reason, VantageError, error

PLAIN_TYPES = ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar")
GZIP_TYPES = (*(f"{each}+gzip" for each in PLAIN_TYPES[:1]), "application/vnd.docker.image.rootfs.diff.tar.gzip")
MAX_MEMBERS = 1_000_000
"""Files, directories and links of one image: each costs its reader an inode, or memory."""
MAX_HEADER = 1024 * 1024
"""Bytes of the headers of one member; long names take a few kilobytes."""
CHUNK = 1024 * 1024
_READ_AHEAD = 128 * 1024

_MALFORMED = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError, IndexError)
"""What the library raises for a stranger's bytes; reading a local file that was just written does not fail."""


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

    def __init__(self, info: tarfile.TarInfo, content: IO[bytes] | None) -> None:
        self.info = info
        self._content = content

    def read(self, count: int = CHUNK) -> bytes:
        """The next bytes of a file; nothing at its end, and nothing of what is no file.

        Raises:
            RefusedError: as ``BoundedArchive``.
        """
        with _readable():
            return b"" if self._content is None else self._content.read(count)


class BoundedArchive:
    """A tar archive from a stranger, member by member, in bounded memory.

    Args:
        source: the archive, uncompressed.
        budget: counts what is read, and what sparse members would become.
        seekable: whether contents that nobody reads are leapt over; otherwise the source is read to its end in order.
    """

    def __init__(self, source: BinaryIO, budget: Budget, *, seekable: bool = False) -> None:
        self._source = _Metered(source, budget)
        self._budget = budget
        self._seekable = seekable

    def __iter__(self) -> Iterator[Member]:
        """Each member once.

        Raises:
            RefusedError: IMAGE_TOO_LARGE, or IMAGE_TAMPERED when it is no archive that image builders write.
        """
        with _readable():
            self._source.header()
            archive = tarfile.open(  # noqa: SIM115
                fileobj=self._source, mode="r:" if self._seekable else "r|", bufsize=_READ_AHEAD
            )
        with archive:
            while True:
                with _readable():
                    self._source.header()
                    info = archive.next()
                    if info is None:
                        return
                    # The library keeps every member that it has seen.
                    archive.members = []  # type: ignore[attr-defined]
                    if archive.pax_headers:
                        raise _malformed("it has headers for all of its members")
                    self._budget.take_member()
                    if info.sparse is not None:
                        self._budget.take(info.size)
                    self._source.body()
                    content = archive.extractfile(info) if info.isreg() else None
                yield Member(info, content)


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


class _Hashed(io.RawIOBase):
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


class _Metered(io.RawIOBase):
    """Counts what is read through it: all of it against the budget, headers against their own bound."""

    def __init__(self, source: BinaryIO, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._header: int | None = None

    def header(self) -> None:
        """From now on the headers of a member are read."""
        self._header = MAX_HEADER

    def body(self) -> None:
        """From now on its content is read."""
        self._header = None

    def read(self, count: int = -1) -> bytes:
        if count < 0 or (self._header is not None and count > MAX_HEADER):
            raise _malformed("a header is too long")
        content = self._source.read(count)
        self._budget.take(len(content))
        if self._header is not None:
            self._header -= len(content)
            if self._header < 0:
                raise _malformed("a header is too long")
        return content

    def tell(self) -> int:
        return self._source.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._source.seek(offset, whence)


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except VantageError:
        raise
    except _MALFORMED as problem:
        raise _malformed(f"it cannot be read ({type(problem).__name__})") from problem


def _malformed(why: str) -> VantageError:
    return error(Reason.IMAGE_TAMPERED, f"an archive of the image is not as image builders write it: {why}")
