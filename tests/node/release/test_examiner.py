"""Looking into results in a process of its own: tables too, whatever it meets there."""

from __future__ import annotations

import hashlib
import resource
import time
from pathlib import Path

import pyarrow as pa
import pytest

from vantage.common.errors import Reason, VantageError
from vantage.node.door import StoredResult
from vantage.node.release import examiner as module
from vantage.node.release.examiner import Examiner
from vantage.node.release.looking import ARROW, JSON, Look
from vantage.node.release.terms import Terms

COUNTS = Terms(looks=(Look(counts=("n",), minimum=10, suppress=True),))


def stored(path: Path, media_type: str, content: bytes) -> StoredResult:
    path.write_bytes(content)
    return StoredResult(media_type, path, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


async def test_a_table_is_looked_into(tmp_path: Path) -> None:
    result = stored(tmp_path / "result", ARROW, arrow(pa.table({"n": [3, 30], "mean": [1.5, 2.5]})))
    released, blanked = await Examiner().examine(COUNTS, result, lambda: tmp_path)
    assert isinstance(released.content, Path)
    content = released.content.read_bytes()
    assert pa.ipc.open_stream(content).read_all().to_pylist() == [{"n": None, "mean": None}, {"n": 30, "mean": 2.5}]
    assert (released.size, released.digest) == (len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")
    assert blanked == 1


async def test_what_is_written_anew_keeps_to_the_size(tmp_path: Path) -> None:
    names = pa.array(["long" * 100] * 1000).dictionary_encode()
    result = stored(tmp_path / "result", ARROW, arrow(pa.table({"n": [30] * 1000, "name": names})))
    terms = Terms(max_bytes=result.size + 1000, looks=COUNTS.looks)
    with pytest.raises(VantageError, match="written anew") as caught:
        await Examiner().examine(terms, result, lambda: tmp_path)
    assert caught.value.reason is Reason.RESULT_TOO_LARGE


async def test_a_reader_that_takes_too_long_or_too_much_is_ended_and_the_result_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = b'{"n":100},' * 2_000_000
    result = stored(tmp_path / "result", JSON, b"[" + rows[:-1] + b"]")
    terms = Terms(looks=(Look(counts=("*.n",), minimum=10),))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    monkeypatch.setattr(module, "MAX_SECONDS", -9)  # one second is left
    began = time.monotonic()
    with pytest.raises(VantageError, match="too large") as caught:
        await Examiner().examine(terms, result, lambda: tmp_path)
    assert caught.value.reason is Reason.DISCLOSURE_REFUSED
    assert time.monotonic() - began < 20
    # 20 MB of JSON are a gigabyte of objects: not here.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024
