"""The archive of arguments with files: read as it was written, and nothing else accepted."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from vantage.common.argument_files import Archive, ArgumentFile, Listing, look_into, unpack
from vantage.common.errors import InvalidArgumentError, LimitExceededError, Reason, VantageError


def archive(tmp_path: Path) -> bytes:
    (tmp_path / "a.csv").write_bytes(b"x\n" * 700)
    (tmp_path / "empty.bin").write_bytes(b"")
    made = Archive(b'{"n": 1}', [ArgumentFile("df", tmp_path / "a.csv"), ArgumentFile("model", tmp_path / "empty.bin")])
    with made.open() as stream:
        content = stream.read()
    assert len(content) == made.size
    return content


def target(tmp_path: Path) -> Path:
    directory = tmp_path / "unpacked"
    directory.mkdir()
    return directory


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> io.BytesIO:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as made:
        for member, content in members:
            member.size = len(content)
            made.addfile(member, io.BytesIO(content))
    stream.seek(0)
    return stream


def member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    made.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
    return made


def test_what_was_packed_comes_out_again(tmp_path: Path) -> None:
    unpacked = unpack(io.BytesIO(archive(tmp_path)), target(tmp_path), 1400)
    assert unpacked.arguments == b'{"n": 1}'
    assert [(each.parameter, each.format, each.path.read_bytes()) for each in unpacked.files] == [
        ("df", "csv", b"x\n" * 700),
        ("model", "file", b""),
    ]


def test_any_tar_program_can_read_and_write_it(tmp_path: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(tmp_path))) as made:
        assert made.getnames() == ["arguments.json", "files/df.csv", "files/model.bin"]
    unpacked = unpack(tar((member("arguments.json"), b"{}"), (member("files/df.csv"), b"a\n1\n")), target(tmp_path), 99)
    assert unpacked.files[0].path.read_bytes() == b"a\n1\n"


def test_more_than_is_allowed_is_refused_before_it_is_written(tmp_path: Path) -> None:
    directory = target(tmp_path)
    with pytest.raises(LimitExceededError, match=r"limits\.max_input_bytes"):
        unpack(io.BytesIO(archive(tmp_path)), directory, 1399)
    assert not list(directory.iterdir())


@pytest.mark.parametrize(
    "members",
    [
        [],
        [("files/df.csv", tarfile.REGTYPE)],
        [("arguments.json", tarfile.DIRTYPE)],
        [("arguments.json", tarfile.REGTYPE), ("files/../../escaped", tarfile.REGTYPE)],
        [("arguments.json", tarfile.REGTYPE), ("/etc/cron.d/x", tarfile.REGTYPE)],
        [("arguments.json", tarfile.REGTYPE), ("files/df.csv", tarfile.SYMTYPE)],
        [("arguments.json", tarfile.REGTYPE), ("files/df.csv", tarfile.LNKTYPE)],
        [("arguments.json", tarfile.REGTYPE), ("files/df.csv", tarfile.CHRTYPE)],
        [("arguments.json", tarfile.REGTYPE), ("files/df.csv", tarfile.REGTYPE), ("files/df.arrow", tarfile.REGTYPE)],
        [("arguments.json", tarfile.REGTYPE), ("arguments.json", tarfile.REGTYPE)],
        [("x" * 200, tarfile.REGTYPE)],  # which needs an extended header
    ],
)
def test_an_archive_of_another_shape_is_refused(tmp_path: Path, members: list[tuple[str, bytes]]) -> None:
    directory = target(tmp_path)
    made = tar(*((member(*each), b"{}" if each[1] == tarfile.REGTYPE else b"") for each in members))
    (tmp_path / "made.tar").write_bytes(made.getvalue())
    for read in (lambda: unpack(made, directory, 99), lambda: look_into(tmp_path / "made.tar", 10)):
        with pytest.raises(InvalidArgumentError) as caught:
            read()
        assert caught.value.reason is Reason.ARGUMENTS_INVALID
    assert not any(each.is_symlink() for each in directory.iterdir())
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize("kept", [0, 10, 700, 1600, 4000])
def test_half_an_archive_is_none(tmp_path: Path, kept: int) -> None:
    half = archive(tmp_path)[:kept]
    (tmp_path / "half.tar").write_bytes(half)
    for read in (
        lambda: unpack(io.BytesIO(half), target(tmp_path), 10_000),
        lambda: look_into(tmp_path / "half.tar", 10),
    ):
        with pytest.raises(VantageError) as caught:
            read()
        assert caught.value.reason is Reason.ARGUMENTS_INVALID


def test_an_archive_is_looked_into_without_unpacking_it(tmp_path: Path) -> None:
    path = tmp_path / "made.tar"
    path.write_bytes(archive(tmp_path))
    assert look_into(path, 3) == Listing(b'{"n', 8, (("df.csv", 1400), ("model.bin", 0)))
    assert look_into(path, 100).arguments == b'{"n": 1}'
    with path.open("ab") as file:
        file.write(bytes(10_000) + b"x")
    with pytest.raises(InvalidArgumentError, match="follows its end"):
        look_into(path, 100)


def test_a_size_beyond_all_bounds_is_no_reason_to_seek(tmp_path: Path) -> None:
    huge = member("files/df.csv")
    huge.size = 2**80
    path = tmp_path / "made.tar"
    begin = tar((member("arguments.json"), b"{}")).getvalue()[:1024]
    path.write_bytes(begin + huge.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    with pytest.raises(InvalidArgumentError, match="end is missing"):
        look_into(path, 100)


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"before")
    made = Archive(b"{}", [ArgumentFile("df", path)])
    path.write_bytes(b"longer than before")
    with made.open() as stream, pytest.raises(OSError, match="longer"):
        stream.read()


def test_names_are_as_long_as_the_reader_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"x\n")
    with Archive(b"{}", [ArgumentFile("p" * 90, path)]).open() as stream:
        (found,) = unpack(stream, target(tmp_path), 1_000).files
    assert found.parameter == "p" * 90
    with pytest.raises(InvalidArgumentError, match="at most 94 characters"):
        Archive(b"{}", [ArgumentFile("p" * 91, path)])
