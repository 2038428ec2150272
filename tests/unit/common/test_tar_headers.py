"""Headers that readers of archives understand differently are refused: nothing in a layer is hidden from a reviewer."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from vantage.common.errors import Reason, VantageError
from vantage.common.layers import PLAIN_TYPES, Budget, read_layer
from vantage.common.oci import digest_of

END = bytes(1024)
SIZE, CHECKSUM, MAGIC, PREFIX = 124, 148, 257, 345


def header(
    name: str = "app/file", kind: bytes = tarfile.REGTYPE, size: int = 0, patches: dict[int, bytes] | None = None
) -> bytes:
    """A header, with other bytes at some places; its checksum is right unless it is one of them."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    for place, content in (patches or {}).items():
        block[place : place + len(content)] = content
    if CHECKSUM not in (patches or {}):
        block[CHECKSUM : CHECKSUM + 8] = b" " * 8
        block[CHECKSUM : CHECKSUM + 8] = b"%06o\0 " % sum(block)
    return bytes(block)


def extended(kind: bytes, content: bytes, padding: bytes = b"") -> bytes:
    padded = content + padding + bytes(-len(content + padding) % 512)
    return header("extension", kind, len(content)) + padded


def record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n"
    return f"{next(each for each in range(99) if each == len(f'{each}{rest}'))}{rest}".encode()


def read(archive: bytes) -> list[tuple[str, bytes]]:
    with io.BytesIO(archive) as source:
        members = read_layer(source, PLAIN_TYPES[0], Budget(10**6), digest_of(archive))
        return [(member.info.name, member.read()) for member in members]


EVIL = header("app/evil", size=512)
PAX, LONG = tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME


@pytest.mark.parametrize(
    "odd",
    [
        # Python's library takes these for the end of the archive; Go reads on.
        pytest.param(header(patches={CHECKSUM: b"\0" + header()[CHECKSUM:][:7]}), id="checksum with zeros first"),
        pytest.param(header(patches={CHECKSUM: b"0000000\0"}), id="wrong checksum"),
        # A size that one takes for none: what follows is content for one, and members for the other.
        pytest.param(header(patches={SIZE: b"\0" + b"0" * 7 + b"1000"}) + EVIL, id="size with zeros first"),
        pytest.param(header(patches={SIZE: b"\xff" * 12}), id="negative size"),
        pytest.param(header(patches={SIZE: b"\x80" + b"\xff" * 11}), id="immense size"),
        pytest.param(extended(PAX, record("size", "-512")) + header(), id="negative size of pax"),
        pytest.param(extended(PAX, record("size", "")) + EVIL + header(), id="empty size of pax"),
        pytest.param(extended(PAX, record("size", "0") + record("size", "512")) + EVIL, id="two sizes"),
        pytest.param(extended(PAX, record("size", "512")) + extended(PAX, record("size", "0")) + EVIL, id="two pax"),
        pytest.param(extended(PAX, record("a", "b"), record("size", "512")) + EVIL, id="records after the last"),
        pytest.param(extended(PAX, b"9 path=ab\n") + header(), id="wrong length"),
        # Names.
        pytest.param(extended(PAX, record("path", "doc/a")) + extended(LONG, b"app/evil\0") + header(), id="two names"),
        pytest.param(extended(LONG, b"doc/a\0") + extended(LONG, b"app/evil\0") + header(), id="two long names"),
        pytest.param(extended(PAX, record("path", "")) + header(), id="empty name"),
        pytest.param(header("evil", patches={MAGIC: bytes(8), PREFIX: b"doc"}), id="prefix before POSIX"),
        pytest.param(header("evil", patches={MAGIC: b"ustar  \0", PREFIX: b"doc"}), id="prefix of GNU"),
        # A directory has no content for one, and a file of that name for the other.
        pytest.param(extended(PAX, record("path", "app/")) + header(kind=b"\0", size=512) + EVIL, id="directory"),
        pytest.param(header("", kind=b"\0", size=512, patches={PREFIX: b"app"}) + EVIL, id="directory by prefix"),
        pytest.param(header(kind=tarfile.CONTTYPE), id="unknown type"),
        pytest.param(extended(PAX, record("GNU.sparse.size", str(-(10**15)))) + header(), id="sparse of pax"),
    ],
)
def test_what_readers_understand_differently_is_refused(odd: bytes) -> None:
    assert [name for name, _content in read(header("app/a") + END)] == ["app/a"]
    with pytest.raises(VantageError) as caught:
        read(header("app/a") + odd + END)
    assert caught.value.reason is Reason.IMAGE_TAMPERED


def test_half_a_header_is_not_the_end() -> None:
    with pytest.raises(VantageError, match="ends in the middle"):
        read(header("app/a") + EVIL[:300])
    with pytest.raises(VantageError, match="ends in the middle"):
        read(header("app/a") + END[:300])


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "pax"])
def test_what_tar_writes_is_read(tmp_path: Path, form: str) -> None:
    names = [
        "a",
        "d/b",
        *([] if form == "v7" else [f"d/{'n' * 60}/{'m' * 90}"]),
        *(["ü" * 120] if form in "pax gnu" else []),
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "link").symlink_to("a")
    subprocess.run(["tar", "-C", tmp_path, f"--format={form}", "-cf", tmp_path / "x.tar", "link", *names], check=True)
    found = read((tmp_path / "x.tar").read_bytes())
    assert found == [("link", b""), *((name, name.encode()) for name in names)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_what_python_writes_is_read(form: int) -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=form) as archive:
        for name in ("d/", "d/a", f"{'p' * 90}/{'q' * 90}"):
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = 0 if name.endswith("/") else 600
            archive.addfile(info, io.BytesIO(b"x" * 600))
    assert read(written.getvalue()) == [("d", b""), ("d/a", b"x" * 600), (f"{'p' * 90}/{'q' * 90}", b"x" * 600)]
