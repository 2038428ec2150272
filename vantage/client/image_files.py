"""The files of an image, put together from its layers as an engine does it (OCI image-spec, "Applying Changesets")."""

from __future__ import annotations

import hashlib
import posixpath
import tarfile
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vantage.common.blobs import Descriptor
from vantage.common.errors import Reason, error
from vantage.common.layers import Budget, Member, read_layer
from vantage.common.tar_headers import CAPABILITY

MAX_TEXT = 64 * 1024
"""Bytes of a file that is shown as text."""
_MAX_CAPABILITY = 64
"""Bytes; Linux knows layouts of 12, 20 and 24."""
_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_KINDS = {
    tarfile.DIRTYPE: "directory",
    tarfile.SYMTYPE: "link",
    tarfile.LNKTYPE: "hard link",
    tarfile.CHRTYPE: "device",
    tarfile.BLKTYPE: "device",
    tarfile.FIFOTYPE: "pipe",
}


@dataclass(frozen=True)
class File:
    """A file, directory or link.

    Attributes:
        kind: "file", "directory", "link", "hard link", "device" or "pipe".
        mode: permissions, with the bits that change the user.
        owner: ``UID:GID``.
        size: of a file, in bytes.
        digest: of a file's content; empty for the rest.
        target: of a link.
        capabilities: that the file gives to whoever runs it: the extended attribute ``security.capability`` in
            hexadecimal, or its digest when it is longer than one can be; empty when it has none.
    """

    kind: str
    mode: int
    owner: str
    size: int = 0
    digest: str = ""
    target: str = ""
    capabilities: str = ""


@dataclass(frozen=True)
class StoredLayer:
    """A layer on this machine's disk.

    Attributes:
        path: where it is.
        blob: how the manifest describes it.
        diff_id: digest of its archive, uncompressed.
    """

    path: Path
    blob: Descriptor
    diff_id: str

    def members(self, budget: Budget) -> Iterator[tuple[str, Member]]:
        """What is in it, by the path in the image."""
        with self.path.open("rb") as source:
            for member in read_layer(source, self.blob.media_type, budget, self.diff_id):
                yield posixpath.normpath(f"/{member.info.name.lstrip('/')}"), member


@dataclass(frozen=True)
class LayerFiles:
    """What a layer does to those below it.

    Attributes:
        files: that it has, by path.
        removed: paths that it removes, with all below them.
        emptied: directories whose former content it removes.
        size: bytes that it unpacks to.
    """

    files: Mapping[str, File]
    removed: Collection[str]
    emptied: Collection[str]
    size: int


def scan(layer: StoredLayer, budget: Budget) -> LayerFiles:
    """Look at everything in a layer.

    Raises:
        RefusedError: as ``read_layer``; IMAGE_TAMPERED too when something lies below what is no directory in the same
            layer: engines follow links (also hard links to them), and the file would be shown at another path than it
            has.
    """
    files: dict[str, File] = {}
    removed, emptied = set(), set()
    before = budget.used
    for path, member in layer.members(budget):
        directory, name = posixpath.split(path)
        if any(each in files and files[each].kind != "directory" for each in _above(path)):
            raise error(
                Reason.IMAGE_TAMPERED,
                f"a layer of the image has {path[:100]!r} below what is no directory, which no builder writes",
            )
        if name == _OPAQUE:
            emptied.add(directory)
        elif name.startswith(_WHITEOUT):
            removed.add(posixpath.join(directory, name.removeprefix(_WHITEOUT)))
        else:
            files[path] = _file(member)
    return LayerFiles(files, removed, emptied, budget.used - before)


def apply(layers: Iterable[LayerFiles]) -> dict[str, tuple[File, int]]:
    """The files of the image, each with the number of the layer that it is from."""
    image: dict[str, tuple[File, int]] = {}
    for number, layer in enumerate(layers):
        # Where a directory was and is none any more, there is nothing below it.
        replaced = (path for path, file in layer.files.items() if path in image and file.kind != "directory")
        gone = {*layer.removed, *(path for path in replaced if image[path][0].kind == "directory")}
        if gone or layer.emptied:
            image = {
                path: known
                for path, known in image.items()
                if path not in layer.removed and not any(up in gone or up in layer.emptied for up in _above(path))
            }
        image |= {path: (file, number) for path, file in layer.files.items()}
    return image


def texts(layer: StoredLayer, wanted: Collection[str], budget: Budget) -> dict[str, str]:
    """The contents of files of a layer, those that are text and not too long.

    Raises:
        RefusedError: as ``read_layer``.
    """
    found: dict[str, str] = {}
    for path, member in layer.members(budget):
        if path not in wanted or not member.info.isreg():
            continue
        content = bytearray()
        while len(content) <= MAX_TEXT and (chunk := member.read(MAX_TEXT + 1 - len(content))):
            content += chunk
        found.pop(path, None)  # the last of a name counts
        if len(content) <= MAX_TEXT and b"\0" not in content:
            try:
                found[path] = content.decode()
            except UnicodeDecodeError:
                continue
    return found


def _file(member: Member) -> File:
    info = member.info
    kind = _KINDS.get(info.type, "file")
    make = partial(
        File, kind, info.mode & 0o7777, f"{info.uid}:{info.gid}", capabilities=_capabilities(info.pax_headers)
    )
    if kind == "file":
        digest = hashlib.sha256()
        while chunk := member.read():
            digest.update(chunk)
        return make(size=info.size, digest=f"sha256:{digest.hexdigest()}")
    if kind == "device":
        return make(target=f"{info.devmajor}:{info.devminor}")
    return make(target=info.linkname)


def _capabilities(records: Mapping[str, str]) -> str:
    value = records.get(CAPABILITY)
    if value is None:
        return ""
    content = value.encode(errors="surrogateescape")
    return content.hex() if 0 < len(content) <= _MAX_CAPABILITY else f"sha256:{hashlib.sha256(content).hexdigest()}"


def _above(path: str) -> Iterator[str]:
    while path != "/":
        path = posixpath.dirname(path)
        yield path
