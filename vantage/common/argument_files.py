"""Arguments with files: one tar archive that holds the JSON arguments and the files that data parameters read.

Media type ``application/vnd.vantage.arguments+tar``: a tar archive (ustar, IEEE 1003.1) of regular files. The first is
``arguments.json``, the JSON object; each other one is ``files/PARAMETER.SUFFIX``, where the suffix says the format. It
is sealed, signed and sent as a whole, so that nobody on the way learns how many files there are.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from vantage.common.errors import Reason, VantageError, error

MEDIA_TYPE = "application/vnd.vantage.arguments+tar"
MAX_FILES = 100
MAX_JSON_BYTES = 64 * 1024 * 1024
"""The JSON arguments are held in memory to be checked against their schema."""
FORMATS = {".csv": "csv", ".parquet": "parquet", ".arrow": "arrow"}
"""Suffix -> format of a file; any other one is for parameters that take a path."""

_JSON_NAME = "arguments.json"
_MEMBER = re.compile(r"files/([A-Za-z_][A-Za-z0-9_]{0,99})(\.[a-z0-9]{1,16})?")
_BLOCK = 512
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class ArgumentFile:
    """A file that a data parameter reads.

    Attributes:
        parameter: data parameter of the function.
        path: where it is.
    """

    parameter: str
    path: Path

    @property
    def format(self) -> str:
        """``csv``, ``parquet``, ``arrow``, or ``file`` for any other."""
        return FORMATS.get(self.path.suffix, "file")


@dataclass(frozen=True)
class Unpacked:
    """What was in an archive.

    Attributes:
        arguments: the JSON arguments.
        files: in the order of the archive.
    """

    arguments: bytes
    files: tuple[ArgumentFile, ...]


@dataclass(frozen=True)
class Listing:
    """What is in an archive, for people.

    Attributes:
        arguments: the JSON arguments, or their beginning.
        arguments_size: their number of bytes.
        files: (name, bytes) of each file, in the order of the archive.
    """

    arguments: bytes
    arguments_size: int
    files: tuple[tuple[str, int], ...]


class Archive:
    """An archive that is made while it is read; the files are never held in memory.

    Args:
        arguments: the JSON object, or a file that holds it.
        files: what data parameters read; each parameter once.

    Raises:
        InvalidArgumentError: a name that cannot be a parameter, or a file that cannot be read.
    """

    def __init__(self, arguments: bytes | Path, files: Sequence[ArgumentFile]) -> None:
        if len(files) > MAX_FILES or len({each.parameter for each in files}) != len(files):
            raise error(Reason.INVALID_ARGUMENT, f"at most {MAX_FILES} files, one for each parameter", field="files")
        self._parts: list[tuple[str, bytes | Path, int]] = [(_JSON_NAME, arguments, _size(arguments))]
        for each in files:
            suffix = each.path.suffix.lower()
            name = f"files/{each.parameter}{suffix}"
            # A longer name would need an extended header, which is refused where the archive is read.
            if _MEMBER.fullmatch(name) is None or len(name) > tarfile.LENGTH_NAME:
                raise error(
                    Reason.INVALID_ARGUMENT,
                    f"{each.path!s:.200} cannot be given for {each.parameter[:100]!r}: a parameter is an identifier, "
                    "and a file's suffix has at most 16 letters and digits; both together have at most "
                    f"{tarfile.LENGTH_NAME - len('files/')} characters",
                    field="files",
                )
            self._parts.append((name, each.path, _size(each.path)))

    @property
    def size(self) -> int:
        """Bytes of the archive."""
        return sum(len(_header(name, size)) + _padded(size) for name, _content, size in self._parts) + 2 * _BLOCK

    def open(self) -> BinaryIO:
        """The archive from its beginning; reading raises OSError when a file is not what it was any more."""
        return io.BufferedReader(_Reader(self._chunks()), _CHUNK)

    def _chunks(self) -> Iterator[bytes]:
        for name, content, size in self._parts:
            yield _header(name, size)
            if isinstance(content, bytes):
                yield content
            else:
                yield from _read(content, size)
            yield bytes(_padded(size) - size)
        yield bytes(2 * _BLOCK)


def unpack(stream: BinaryIO, directory: Path, max_bytes: int) -> Unpacked:
    """Read an archive to its end; its files go into a directory, where only regular files are ever made.

    Blocks, so call it off the event loop. What was written before an error is the caller's to remove.

    Args:
        stream: the archive.
        directory: exists; nothing else is in it.
        max_bytes: of all files together.

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID, it is no such archive.
        LimitExceededError: PAYLOAD_TOO_LARGE.
        OSError: of stream or directory.
    """
    arguments = b""
    files: list[ArgumentFile] = []
    left = max_bytes
    for member in _members(stream):
        if member.parameter is None:
            arguments = b"".join(_content(stream, member.size))
            continue
        left -= member.size
        if left < 0:
            raise _too_large(f"the files of the arguments have more than {max_bytes} bytes")
        path = directory / f"{member.parameter}{member.suffix}"
        with path.open("xb") as file:
            for chunk in _content(stream, member.size):
                file.write(chunk)
        files.append(ArgumentFile(member.parameter, path))
    # What follows the end of the archive is not part of it, but of what was sealed: it must be read to be authentic.
    while stream.read(_CHUNK):
        pass
    return Unpacked(arguments, tuple(files))


def look_into(path: Path, shown: int) -> Listing:
    """What is in an archive, without unpacking it. Blocks, so call it off the event loop.

    Args:
        path: the archive.
        shown: bytes of the JSON arguments that are wanted.

    Raises:
        InvalidArgumentError: ARGUMENTS_INVALID, it is no such archive, or something follows its end.
        LimitExceededError: PAYLOAD_TOO_LARGE, the JSON arguments.
        OSError: of the file.
    """
    arguments, size = b"", 0
    files = []
    with path.open("rb") as stream:
        whole = stream.seek(0, io.SEEK_END)
        stream.seek(0)
        for member in _members(stream):
            start = stream.tell()
            if member.size > whole:
                raise _invalid("its end is missing")
            if member.parameter is None:
                arguments, size = stream.read(min(shown, member.size)), member.size
            else:
                files.append((f"{member.parameter}{member.suffix}", member.size))
            stream.seek(start + _padded(member.size))
        while rest := stream.read(_CHUNK):
            if any(rest):
                raise _invalid("something follows its end")
    return Listing(arguments, size, tuple(files))


@dataclass(frozen=True)
class _Member:
    """An entry of an archive; the JSON arguments have no parameter."""

    size: int
    parameter: str | None = None
    suffix: str = ""


def check_json_size(size: int) -> None:
    """JSON arguments are held in memory to be checked against their schema.

    Raises:
        LimitExceededError: PAYLOAD_TOO_LARGE, they have more than ``MAX_JSON_BYTES``.
    """
    if size > MAX_JSON_BYTES:
        raise error(
            Reason.PAYLOAD_TOO_LARGE,
            f"JSON arguments have at most {MAX_JSON_BYTES} bytes: send what is larger as files",
        )


def _members(stream: BinaryIO) -> Iterator[_Member]:
    """The entries up to the end of an archive; whoever takes one reads its content and padding from the stream."""
    first = True
    parameters = set[str]()
    while (member := _next_member(stream)) is not None:
        if first:
            first = False
            if member.name != _JSON_NAME:
                raise _invalid(f"it must begin with {_JSON_NAME}")
            check_json_size(member.size)
            yield _Member(member.size)
            continue
        found = _MEMBER.fullmatch(member.name)
        if found is None or len(parameters) == MAX_FILES or found[1] in parameters:
            raise _invalid(f"the entry {member.name[:100]!r} is not one of at most {MAX_FILES} files of parameters")
        parameters.add(found[1])
        yield _Member(member.size, found[1], found[2] or "")
    if first:
        raise _invalid("it is empty")


def _next_member(stream: BinaryIO) -> tarfile.TarInfo | None:
    """The next header, None at the end of the archive.

    Not by ``tarfile.open``: that holds extended headers in memory, however large they say they are. Here they are
    refused like anything else that is no regular file, and names and sizes of any use fit without.
    """
    block = _exactly(stream, _BLOCK)
    if not any(block):
        return None
    try:
        member = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.TarError, UnicodeError):
        raise _invalid("it is not a tar archive") from None
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.size < 0:
        raise _invalid(f"it holds {member.name[:100]!r}, which is no regular file")
    return member


def _content(stream: BinaryIO, size: int) -> Iterator[bytes]:
    left = size
    while left:
        chunk = _exactly(stream, min(left, _CHUNK))
        left -= len(chunk)
        yield chunk
    _exactly(stream, _padded(size) - size)


def _exactly(stream: BinaryIO, count: int) -> bytes:
    parts = []
    while count:
        part = stream.read(count)
        if not part:
            raise _invalid("its end is missing")
        count -= len(part)
        parts.append(part)
    return b"".join(parts)


class _Reader(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed has a wider buffer
        while not self._rest:
            following = next(self._chunks, None)
            if following is None:
                return 0
            self._rest = memoryview(following)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count


def _read(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as file:
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise OSError(f"{path} became shorter while it was read")
            left -= len(chunk)
            yield chunk
        if file.read(1):
            raise OSError(f"{path} became longer while it was read")


def _header(name: str, size: int) -> bytes:
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf(tarfile.GNU_FORMAT)  # for sizes beyond 8 GiB; without them it is plain ustar


def _size(content: bytes | Path) -> int:
    if isinstance(content, bytes):
        return len(content)
    try:
        if not content.is_file():
            raise error(Reason.INVALID_ARGUMENT, f"{content!s:.200} is not a file", field="files")
        return content.stat().st_size
    except OSError as problem:
        raise error(Reason.INVALID_ARGUMENT, f"cannot read {content!s:.200}: {problem.strerror}") from problem


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _invalid(why: str) -> VantageError:
    return error(Reason.ARGUMENTS_INVALID, f"the archive of the arguments is not usable: {why}")


def _too_large(why: str) -> VantageError:
    return error(
        Reason.PAYLOAD_TOO_LARGE, f"{why}: send less, or ask the node's admin for a higher limits.max_input_bytes"
    )
