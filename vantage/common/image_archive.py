"""Images in a file: an OCI image layout (image-spec 1.0 and 1.1) in an uncompressed tar archive.

``oci-layout``, ``blobs/sha256/HEX`` and ``index.json``, as other tools for images read and write them. The index names
each image and what hangs on it: signatures and attestations under their tags, and referrers. Two annotations of an
entry say where it belongs: ``org.vantage.repository`` (``REGISTRY/PATH``), and for what lies under a tag
``org.vantage.tag``.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from vantage.common.blobs import CHUNK, Descriptor
from vantage.common.errors import Reason, VantageError, error
from vantage.common.image_reference import is_digest, is_registry, is_repository
from vantage.common.layers import BoundedArchive, Budget
from vantage.common.oci import MAX_MANIFEST, digest_of, json_object

REPOSITORY_ANNOTATION = "org.vantage.repository"
TAG_ANNOTATION = "org.vantage.tag"
NAME_ANNOTATION = "org.opencontainers.image.ref.name"
MAX_ENTRIES = 10_000
"""Of an index, and, ten times as many, files in an archive."""
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_BLOBS = "blobs/sha256/"


@dataclass(frozen=True)
class Entry:
    """Something in the index.

    Attributes:
        repository: ``REGISTRY/PATH`` that it belongs to.
        digest: of its manifest.
        tag: under which it lies there; empty for what is found by its digest.
    """

    repository: str
    digest: str
    tag: str = ""


class ArchiveWriter:
    """Writes an archive, into ``FILE.partial`` until it is whole. What an earlier attempt has written there stays.

    Args:
        path: of the archive.

    Raises:
        ConflictError: ALREADY_EXISTS, or IN_USE: another process writes it.
        OSError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        if path.exists():
            raise error(Reason.ALREADY_EXISTS, f"{path} exists: choose another file, or remove it first")
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._file = open(os.open(self._partial, os.O_RDWR | os.O_CREAT, 0o666), "r+b")  # noqa: PTH123, SIM115
        self._known: set[str] = set()
        try:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise error(Reason.IN_USE, f"another command writes {self._partial}: wait for it") from None
            end = self._recover()
            self._file.truncate(end)
            self._file.seek(end)
            if not end:
                self.add_file("oci-layout", _LAYOUT)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def has(self, digest: str) -> bool:
        """Whether a blob is in it."""
        return digest in self._known

    @contextmanager
    def blob(self, blob: Descriptor) -> Iterator[BinaryIO]:
        """A place for a blob's bytes, exactly so many as it has; whoever writes them has checked their digest."""
        begin = self._file.tell()
        self._file.write(_header(_BLOBS + blob.digest.removeprefix("sha256:"), blob.size))
        try:
            yield self._file
            self._file.write(b"\0" * (-blob.size % tarfile.BLOCKSIZE))
        except BaseException:
            self._file.seek(begin)
            self._file.truncate()
            raise
        self._known.add(blob.digest)

    def add_blob(self, content: bytes) -> None:
        """Add a small blob, unless it is in it."""
        digest = digest_of(content)
        if not self.has(digest):
            with self.blob(Descriptor("", digest, len(content))) as target:
                target.write(content)

    def add_file(self, name: str, content: bytes) -> None:
        """Add a file of the layout."""
        self._file.write(_header(name, len(content)) + content + b"\0" * (-len(content) % tarfile.BLOCKSIZE))

    def finish(self, index: dict[str, Any]) -> None:
        """Add the index, and give the file its name."""
        self.add_file("index.json", json.dumps(index, indent=1).encode())
        self._file.write(b"\0" * (2 * tarfile.BLOCKSIZE))
        self._file.flush()
        os.fsync(self._file.fileno())
        self._partial.rename(self._path)

    def _recover(self) -> int:
        """Where the last whole blob of an earlier attempt ends."""
        end = 0
        try:
            total = self._file.seek(0, os.SEEK_END)
            for name, position, size in _members(self._file):
                following = position + size + -size % tarfile.BLOCKSIZE
                if name == "index.json" or following > total:
                    break
                if name.startswith(_BLOBS):
                    digest = f"sha256:{name.removeprefix(_BLOBS)}"
                    if _digest(self._file, position, size) != digest:
                        break
                    self._known.add(digest)
                end = following
        except VantageError:
            pass  # it ends in the middle: what was whole before counts
        return end


class ArchiveReader:
    """Reads an archive. Nothing of it is unpacked: names in it lead nowhere.

    Args:
        path: of the archive.

    Raises:
        RefusedError: IMAGE_TAMPERED, it is none.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        try:
            self._places = self._index()
            if json_object(self._small("oci-layout")) is None:
                raise _malformed(path, "it has no oci-layout")
            self.entries = tuple(self._entries())
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self._file.close()

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def size(self, digest: str) -> int:
        """How many bytes a blob has.

        Raises:
            RefusedError: IMAGE_TAMPERED, it is not there.
        """
        return self._place(_BLOBS + digest.removeprefix("sha256:"))[1]

    def manifest(self, digest: str) -> tuple[bytes, dict[str, Any]]:
        """A manifest, with the digest that was asked for.

        Raises:
            RefusedError: IMAGE_TAMPERED, it is not there or is another.
        """
        content = self._small(_BLOBS + digest.removeprefix("sha256:"))
        document = json_object(content)
        if digest_of(content) != digest or document is None:
            raise _malformed(self._path, f"it has other bytes under {digest}")
        return content, document

    @contextmanager
    def blob(self, blob: Descriptor) -> Iterator[BinaryIO]:
        """A file that stands at the beginning of a blob; the digest is for the reader to check.

        Raises:
            RefusedError: IMAGE_TAMPERED, it is not there or has another size.
        """
        position, size = self._place(_BLOBS + blob.digest.removeprefix("sha256:"))
        if size != blob.size:
            raise _malformed(self._path, f"{blob.digest} has another size than announced")
        with self._path.open("rb") as file:
            file.seek(position)
            yield file

    def _index(self) -> dict[str, tuple[int, int]]:
        places: dict[str, tuple[int, int]] = {}
        end = self._file.seek(0, os.SEEK_END)
        for name, position, size in _members(self._file):
            if name in places:
                raise _malformed(self._path, f"{name[:100]!r} is in it twice")
            if position + size > end:
                raise _malformed(self._path, "it ends in the middle")
            places[name] = position, size
        return places

    def _entries(self) -> Iterator[Entry]:
        index = json_object(self._small("index.json"))
        manifests = index.get("manifests") if index is not None else None
        if not isinstance(manifests, list) or len(manifests) > MAX_ENTRIES:
            raise _malformed(self._path, "its index is malformed")
        for each in manifests:
            known = each if isinstance(each, dict) else {}
            notes = known.get("annotations")
            repository = notes.get(REPOSITORY_ANNOTATION) if isinstance(notes, dict) else None
            tag = notes.get(TAG_ANNOTATION, "") if isinstance(notes, dict) else ""
            registry, _, path = repository.partition("/") if isinstance(repository, str) else ("", "", "")
            if not is_registry(registry) or not is_repository(path):
                raise _malformed(
                    self._path, f"an entry of its index does not say its repository ({REPOSITORY_ANNOTATION})"
                )
            if not is_digest(known.get("digest")) or not isinstance(tag, str) or (tag and not _is_tag(tag)):
                raise _malformed(self._path, "an entry of its index is malformed")
            yield Entry(f"{registry}/{path}", known["digest"], tag)

    def _small(self, name: str) -> bytes:
        position, size = self._place(name)
        if size > MAX_MANIFEST:
            raise _malformed(self._path, f"{name} is too large")
        self._file.seek(position)
        return self._file.read(size)

    def _place(self, name: str) -> tuple[int, int]:
        if name not in self._places:
            raise _malformed(self._path, f"it has no {name}")
        return self._places[name]


def _members(file: BinaryIO) -> Iterator[tuple[str, int, int]]:
    """Name, position and size of each file of an archive.

    Raises:
        RefusedError: IMAGE_TAMPERED, it is no archive, or holds what an image layout does not.
    """
    file.seek(0, os.SEEK_END)
    # Contents are leapt over, so that only headers count, and they cannot be more than the file.
    budget = Budget(file.tell() + CHUNK, 10 * MAX_ENTRIES)
    file.seek(0)
    for member in BoundedArchive(file, budget, seekable=True):
        info = member.info
        name = info.name.removeprefix("./")
        if name.startswith("/") or ".." in name.split("/") or not (info.isreg() or info.isdir()):
            raise error(
                Reason.IMAGE_TAMPERED, f"the archive holds {name[:100]!r}, which no image layout has: do not use it"
            )
        if info.isreg():
            yield name, info.offset_data, info.size


def _digest(file: BinaryIO, position: int, size: int) -> str:
    """Digest of a part of a file; the archive's reader finds its place again afterwards."""
    back = file.tell()
    file.seek(position)
    digest = hashlib.sha256()
    while size and (chunk := file.read(min(size, CHUNK))):
        digest.update(chunk)
        size -= len(chunk)
    file.seek(back)
    return f"sha256:{digest.hexdigest()}" if not size else ""


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.GNU_FORMAT)


def _is_tag(text: str) -> bool:
    return len(text) <= 128 and text.replace("-", "").replace(".", "").replace("_", "").isalnum() and text.isascii()


def _malformed(path: Path, why: str) -> VantageError:
    return error(Reason.IMAGE_TAMPERED, f"{path} is not usable: {why}: get it again", path=str(path))
