"""Headers of tar archives (POSIX ustar and pax, GNU) about which every reader says the same.

Readers differ in what they make of odd headers: Python's library takes one with a wrong checksum for the end of the
archive, and of two names for one member the first; Go's, which engines use, reads on, and takes the last. Whoever may
write archives could so show a file to a reviewer and another to the engine, or bring the engine members that were never
counted. Hence each header is either plain, or refused.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable

MAX_HEADER = 1024 * 1024
"""Bytes of what extends a header; long names take a few kilobytes."""
CAPABILITY = "SCHILY.xattr.security.capability"
"""Record of a pax header: capabilities that a file gives to whoever runs it; engines set them."""

_MAX_SIZE = 2**60
_TYPES = (tarfile.AREGTYPE, *(b"%d" % each for each in range(7)))
"""Files (also as they were written before POSIX), links, devices, directories, pipes."""
_EXTENSIONS = {tarfile.XHDTYPE: "pax", tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}
_NUMBERS = ((100, 108), (108, 116), (116, 124), (124, 136), (148, 156))
"""Mode, owner, group, size and checksum."""
_NUMBER = re.compile(rb" *[0-7]*[ \0]*|\x80.*", re.DOTALL)
_RECORD = re.compile(rb"([1-9][0-9]{0,6}) ([^=\n\0]+)=")
_SPARSE = "it has sparse files, which are much larger than what is stored of them"


class HeaderError(Exception):
    """A header is not plain; the text says how."""


def next_header(read: Callable[[int], bytes]) -> tarfile.TarInfo | None:
    """The header of the next member, with what extends it; None at the end of the archive.

    What extends it is in its fields; ``pax_headers`` has ``CAPABILITY`` alone.

    Args:
        read: gives the next bytes of the archive, as many as were asked for unless it ends there.

    Raises:
        HeaderError: it is malformed, or could be read in another way.
    """
    extensions: dict[str, bytes] = {}
    while True:
        block = read(tarfile.BLOCKSIZE)
        if not extensions and len(block) in (0, tarfile.BLOCKSIZE) and not any(block):
            return None
        info = _parse(block)
        kind = _EXTENSIONS.get(info.type)
        if kind is None:
            break
        if kind in extensions or (extensions and "pax" in (kind, *extensions)):
            raise HeaderError("a header is extended twice")
        if info.size > MAX_HEADER:
            raise HeaderError("a header is too long")
        content = read(info.size + -info.size % tarfile.BLOCKSIZE)
        if any(content[info.size :]) or len(content) < info.size:
            raise HeaderError("what extends a header does not end where it should")
        extensions[kind] = content[: info.size]
    if extensions and block[156:157] == tarfile.AREGTYPE:
        raise HeaderError("a header of the oldest form is extended")
    records = _records(extensions.pop("pax")) if "pax" in extensions else {}
    records |= {kind: content.removesuffix(b"\0") for kind, content in extensions.items()}
    _extend(info, records)
    if info.isreg() and info.name.endswith("/"):
        raise HeaderError("a file has the name of a directory")
    return info


def _parse(block: bytes) -> tarfile.TarInfo:
    if len(block) != tarfile.BLOCKSIZE:
        raise HeaderError("it ends in the middle")
    for begin, end in _NUMBERS:
        if _NUMBER.fullmatch(block, begin, end) is None:
            raise HeaderError("a number in a header is malformed")
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as problem:
        raise HeaderError(f"a header is malformed ({problem})") from problem
    if info.type == tarfile.GNUTYPE_SPARSE:
        raise HeaderError(_SPARSE)
    posix = block[257:263] == b"ustar\0" and not any(block[500:])
    if any(block[345:500]) and not posix:
        raise HeaderError("a header has a prefix that not every reader knows")
    if info.type == tarfile.XGLTYPE:
        raise HeaderError("it has headers for all of its members")
    if info.type not in _TYPES and info.type not in _EXTENSIONS:
        raise HeaderError(f"it has a member of an unknown type ({info.type!r})")
    if info.size >= _MAX_SIZE:
        raise HeaderError("a member is too long")
    return info


def _records(content: bytes) -> dict[str, bytes]:
    """Records of a pax header: ``LENGTH KEY=VALUE\\n``."""
    found: dict[str, bytes] = {}
    position = 0
    while position < len(content):
        match = _RECORD.match(content, position)
        end = position + int(match[1]) if match is not None else 0
        if match is None or not match.end() < end <= len(content) or content[end - 1 : end] != b"\n":
            raise HeaderError("what extends a header is malformed")
        key = match[2].decode(errors="replace")
        if key.startswith("GNU.sparse."):
            raise HeaderError(_SPARSE)
        if key in found:
            raise HeaderError("what extends a header says something twice")
        found[key] = content[match.end() : end - 1]
        position = end
    return found


def _extend(info: tarfile.TarInfo, records: dict[str, bytes]) -> None:
    for key in ("path", "linkpath"):
        if (text := records.get(key)) is not None:
            if not text or b"\0" in text:
                raise HeaderError("a long name is empty or malformed")
            value = text.decode(errors="surrogateescape")
            if key == "path":
                info.name = value.rstrip("/") if info.isdir() else value
            else:
                info.linkname = value
    for key in ("size", "uid", "gid"):
        if (text := records.get(key)) is not None:
            if re.fullmatch(rb"[0-9]{1,18}", text) is None:
                raise HeaderError("a number that extends a header is malformed")
            setattr(info, key, int(text))
    if (capability := records.get(CAPABILITY)) is not None:
        info.pax_headers = {CAPABILITY: capability.decode(errors="surrogateescape")}
