"""The files of an image are those that an engine would have, and what differs is told."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from vantage.client import image_changes
from vantage.client.image_changes import MAX_COMPARED, Change, changes, setting_changes, unified, with_text
from vantage.client.image_files import File, StoredLayer, apply, scan, texts
from vantage.common.blobs import Descriptor
from vantage.common.errors import Reason, VantageError
from vantage.common.layers import Budget
from vantage.testing.layered_images import Layer, archive_of

BUDGET = 10**7


def stored(directory: Path, layer: Layer) -> StoredLayer:
    path = directory / layer.diff_id.partition(":")[2]
    path.write_bytes(layer.blob)
    return StoredLayer(path, Descriptor(layer.media_type, "sha256:" + "0" * 64, len(layer.blob)), layer.diff_id)


def special(*members: tuple[str, bytes, str]) -> Layer:
    """Members that are no files: name, type, target."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, kind, target in members:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.mode = kind, target, 0o755
            archive.addfile(info)
    return Layer.packed(written.getvalue())


def test_layers_are_applied_as_an_engine_does(tmp_path: Path) -> None:
    below = Layer.of({"etc/a": b"1", "etc/b": b"1", "opt/x/deep/file": b"1", "opt/y": b"1", "srv/old": b"1"})
    directories = special(("srv", tarfile.DIRTYPE, ""), ("tmp", tarfile.DIRTYPE, ""))
    above = Layer.of(
        {"./etc/a": b"2", "/etc/.wh.b": b"", "opt/.wh.x": b"", "opt/x2": b"2", "srv/.wh..wh..opq": b"", "srv/new": b"2"}
    )
    replaced = special(("tmp", tarfile.SYMTYPE, "/srv"), ("hard", tarfile.LNKTYPE, "etc/a"))
    layers = [scan(stored(tmp_path, each), Budget(BUDGET)) for each in (below, directories, above, replaced)]
    image = apply(layers)
    assert {path: number for path, (_file, number) in image.items()} == {
        "/etc/a": 2,
        "/opt/y": 0,
        "/opt/x2": 2,
        "/srv": 1,
        "/srv/new": 2,
        "/tmp": 3,
        "/hard": 3,
    }
    assert (image["/tmp"][0].kind, image["/tmp"][0].target) == ("link", "/srv")
    assert image["/hard"][0].kind == "hard link"
    assert layers[0].size >= len(archive_of({}))


def test_a_directory_that_becomes_a_file_takes_along_what_was_in_it(tmp_path: Path) -> None:
    below = special(("app", tarfile.DIRTYPE, ""), ("app/sub", tarfile.DIRTYPE, ""))
    layers = [scan(stored(tmp_path, each), Budget(BUDGET)) for each in (below, Layer.of({"app": b"a file"}))]
    assert list(apply(layers)) == ["/app"]


@pytest.mark.parametrize("above", ["opt", "hard"])
def test_what_would_be_shown_at_another_path_than_it_has_is_refused(tmp_path: Path, above: str) -> None:
    links = ("opt", tarfile.SYMTYPE, "/app"), ("hard", tarfile.LNKTYPE, "opt")
    layer = special(*links, (f"{above}/deep/algorithm.py", tarfile.REGTYPE, ""))
    with pytest.raises(VantageError, match=rf"'/{above}/deep/algorithm\.py' below what is no directory") as caught:
        scan(stored(tmp_path, layer), Budget(BUDGET))
    assert caught.value.reason is Reason.IMAGE_TAMPERED


def test_what_differs_is_told(tmp_path: Path) -> None:
    before, after = (
        apply([scan(stored(tmp_path, Layer.of(files)), Budget(BUDGET))])
        for files in ({"same": b"1", "gone": b"1", "other": b"1"}, {"same": b"1", "new": b"1", "other": b"2"})
    )
    assert [(each.what, each.path) for each in changes(before, after)] == [
        ("removed", "/gone"),
        ("added", "/new"),
        ("changed", "/other"),
    ]
    assert unified("a\nb\nc\n", "a\nB\nc\n") == ("@@ -1,3 +1,3 @@", " a", "-b", "+B", " c")


def test_a_text_that_does_not_fit_is_said_to_be_left_out() -> None:
    file = File("file", 0o644, "0:0", size=2, digest="sha256:1")
    change = Change("/a", "changed", file, file)
    for left, omitted in ((100, False), (3, True), (0, True)):
        told = with_text(change, "a", "b", left)
        assert (told.omitted, bool(told.diff)) == (omitted, not omitted)
    assert not with_text(change, "a", "a", 0).omitted  # e.g. another owner
    assert not with_text(change, "a", None, 0).omitted  # no text
    assert with_text(change, None, "a", 100).diff[1:] == ("+a", "\\ No newline at end of file")  # it was none before


def test_texts_with_many_lines_are_not_compared_for_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of the kind for which difflib takes time by the cube: matches of falling length, each line just not too frequent.
    signs = [chr(0x21 + number) for number in range(94)] + [chr(0xA1 + number) for number in range(6)]
    new = [signs[number % 100] for number in range(6_000)]
    old = [sign for number in range(120) for sign in (*new[number * 37 :][: 20 - number // 8], "~~")]
    assert len(old) * len(new) > MAX_COMPARED
    lines = unified("\n".join(old), "\n".join(new))
    assert len(lines) > 0.9 * (len(old) + len(new))
    monkeypatch.setattr(image_changes, "MAX_COMPARED", 0)
    assert unified("a\nb\nc\n", "a\nB\nd\nc\n") == ("@@ -2,1 +2,2 @@", "-b", "+B", "+d")
    assert unified("a\nc\n", "a\nb\nc\n") == ("@@ -1,0 +2,1 @@", "+b")
    assert unified("a\na\n", "a\n") == ("@@ -2,1 +1,0 @@", "-a")
    assert unified("a\n", "a") == ("@@ -1,1 +1,1 @@", "-a", "+a", "\\ No newline at end of file")


@pytest.mark.parametrize("compared", [MAX_COMPARED, 0])
@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        # What was a comment as a whole becomes a program: only a line feed ends a line.
        ("# x\x0bevil()\n", "# x\nevil()\n", {"-# x\x0bevil()", "+# x", "+evil()"}),
        ("# x\x85evil()\n", "# x\nevil()\n", {"-# x\x85evil()", "+# x", "+evil()"}),
        ("a\n", "a\r\n", {"-a", "+a\r"}),
        ("a\n", "a", {"-a", "+a", "\\ No newline at end of file"}),
    ],
)
def test_texts_that_differ_in_the_ends_of_lines_are_not_shown_as_equal(
    monkeypatch: pytest.MonkeyPatch, compared: int, old: str, new: str, shown: set[str]
) -> None:
    monkeypatch.setattr(image_changes, "MAX_COMPARED", compared)
    assert {line for line in unified(old, new) if not line.startswith("@@")} == shown
    (setting,) = setting_changes({"Cmd": old}, {"Cmd": new})
    assert setting.diff


def test_only_short_texts_are_read(tmp_path: Path) -> None:
    files = {
        "text": "fünf".encode(),
        "binary": b"a\0b",
        "latin": b"f\xfcnf",
        "long": b"x" * 65_537,
        "limit": b"x" * 65_536,
        "unwanted": b"1",
    }
    wanted = {f"/{name}" for name in files if name != "unwanted"}
    found = texts(stored(tmp_path, Layer.of(files)), wanted, Budget(BUDGET))
    assert found == {"/text": "fünf", "/limit": "x" * 65_536}
