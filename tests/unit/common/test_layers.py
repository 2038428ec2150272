"""Layers that want to harm their reader."""

from __future__ import annotations

import gzip
import io
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from vantage.common.errors import Reason, VantageError
from vantage.common.layers import GZIP_TYPES, PLAIN_TYPES, BoundedArchive, Budget, read_layer
from vantage.common.oci import digest_of
from vantage.common.tar_headers import MAX_HEADER
from vantage.testing.layered_images import Layer, archive_of

MEBIBYTE = 1024 * 1024


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Fails when reading took more than a few mebibytes."""
    tracemalloc.start()
    yield
    _now, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * MEBIBYTE


def read(layer: Layer, size: int = MEBIBYTE, members: int = 1000) -> list[tuple[str, bytes]]:
    """Names and the first bytes of what is in a layer."""
    with io.BytesIO(layer.blob) as source:
        budget = Budget(size, members)
        return [
            (member.info.name, member.read(100))
            for member in read_layer(source, layer.media_type, budget, layer.diff_id)
        ]


def refusal(layer: Layer, size: int = MEBIBYTE, members: int = 1000) -> VantageError:
    with pytest.raises(VantageError) as caught:
        read(layer, size, members)
    return caught.value


def header(kind: bytes, size: int) -> bytes:
    """A header that announces content."""
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def test_what_a_builder_wrote_is_read() -> None:
    files = {"app/algorithm.py": b"print()\n", "n" * 300: b"x" * 5000, "empty": b""}
    assert read(Layer.of(files)) == [(name, content[:100]) for name, content in files.items()]
    plain = archive_of(files)
    assert len(read(Layer(plain, digest_of(plain), PLAIN_TYPES[0]))) == 3
    in_parts = gzip.compress(plain[:700]) + gzip.compress(plain[700:])  # as parallel compressors write
    assert len(read(Layer(in_parts, digest_of(plain)))) == 3


@pytest.mark.usefixtures("bounded_memory")
def test_a_kilobyte_that_unpacks_to_more_than_is_allowed() -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as packed:
        packed.write(header(tarfile.REGTYPE, 64 * MEBIBYTE))
        for _ in range(64):
            packed.write(bytes(MEBIBYTE))
    layer = Layer(bomb.getvalue(), "sha256:" + "0" * 64)
    assert refusal(layer, 50 * MEBIBYTE).reason is Reason.IMAGE_TOO_LARGE
    # The same after the end mark, where no engine would look.
    tail = Layer.packed(archive_of({}) + bytes(4 * MEBIBYTE))
    assert refusal(tail).reason is Reason.IMAGE_TOO_LARGE
    assert read(tail, 5 * MEBIBYTE) == []


@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_a_file_of_holes_is_refused(tmp_path: Path, form: str) -> None:
    """It is not what builders write, and readers differ in how large it becomes."""
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(10 * 1024**4)
    subprocess.run(["tar", "-C", tmp_path, "-S", f"--format={form}", "-cf", tmp_path / "a.tar", "holes"], check=True)
    layer = Layer.packed((tmp_path / "a.tar").read_bytes())
    assert len(layer.blob) < 2000
    problem = refusal(layer, 1024**5)
    assert (problem.reason, "sparse files" in problem.message) == (Reason.IMAGE_TAMPERED, True)


@pytest.mark.usefixtures("bounded_memory")
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_headers_are_not_read_into_memory_whole(kind: bytes) -> None:
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1) as packed:
        packed.write(header(kind, 100 * MEBIBYTE))
        for _ in range(100):
            packed.write(b"x" * MEBIBYTE)
    problem = refusal(Layer(bomb.getvalue(), "sha256:" + "0" * 64), 1024 * MEBIBYTE)
    assert problem.reason is Reason.IMAGE_TAMPERED
    assert "header is too long" in problem.message


@pytest.mark.usefixtures("bounded_memory")
def test_millions_of_empty_files_are_counted() -> None:
    layer = Layer.packed(b"".join(header(tarfile.REGTYPE, 0) for _ in range(5000)) + bytes(1024))
    assert refusal(layer, 100 * MEBIBYTE, 4999).reason is Reason.IMAGE_TOO_LARGE
    assert len(read(layer, 100 * MEBIBYTE, 5000)) == 5000


def test_layers_of_one_image_share_the_budget() -> None:
    layer, budget = Layer.of({"a": bytes(600_000)}), Budget(MEBIBYTE)
    list(read_layer(io.BytesIO(layer.blob), layer.media_type, budget, layer.diff_id))
    with pytest.raises(VantageError, match="unpacks to more"):
        list(read_layer(io.BytesIO(layer.blob), layer.media_type, budget, layer.diff_id))


GOOD = archive_of({"a": b"a" * 1000, "b": b"b"})


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        pytest.param(gzip.compress(GOOD[:700]), Reason.IMAGE_TAMPERED, id="ends early"),
        pytest.param(gzip.compress(GOOD)[:-20], Reason.IMAGE_TAMPERED, id="compression ends early"),
        pytest.param(gzip.compress(GOOD.replace(b"aaa", b"aba", 1)), Reason.IMAGE_TAMPERED, id="other content"),
        pytest.param(gzip.compress(GOOD) + b"\0\1rest", Reason.IMAGE_TAMPERED, id="rest"),
        pytest.param(b"no gzip", Reason.IMAGE_TAMPERED, id="no gzip"),
        pytest.param(gzip.compress(b"no tar"), Reason.IMAGE_TAMPERED, id="no tar"),
        pytest.param(b"", Reason.IMAGE_TAMPERED, id="nothing"),
    ],
)
def test_what_is_no_layer_is_refused(blob: bytes, reason: Reason) -> None:
    assert refusal(Layer(blob, digest_of(GOOD))).reason is reason


def test_headers_for_all_members_are_refused() -> None:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", pax_headers={"path": "harmless"}) as archive:
        archive.addfile(tarfile.TarInfo("evil"))
    assert "headers for all" in refusal(Layer.packed(written.getvalue())).message


def test_another_compression_is_refused_by_name() -> None:
    problem = refusal(Layer(b"", digest_of(b""), "application/vnd.oci.image.layer.v1.tar+zstd"))
    assert (problem.reason, "zstd" in problem.message) == (Reason.IMAGE_NOT_ALLOWED, True)


def test_nobody_waits_any_more() -> None:
    layer, budget = Layer.of({"a": bytes(600_000), "b": b""}), Budget(MEBIBYTE)
    members = read_layer(io.BytesIO(layer.blob), GZIP_TYPES[1], budget, layer.diff_id)
    next(members)
    budget.give_up()
    with pytest.raises(VantageError):
        next(members)


def test_contents_can_be_leapt_over_in_a_file() -> None:
    archive = archive_of({"a": bytes(2 * MAX_HEADER), "b": b"b"})
    budget = Budget(10_000)
    members = BoundedArchive(io.BytesIO(archive), budget, seekable=True)
    assert [(each.info.name, each.info.offset_data) for each in members] == [("a", 512), ("b", 2 * MAX_HEADER + 1024)]
