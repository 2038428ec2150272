"""Arguments into targets: each different one sealed once, to all who get it, and nobody beyond."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client.packing import Given, Packer
from vantage.client.payloads import Payloads
from vantage.common import dsse, sealing
from vantage.common.argument_files import MEDIA_TYPE, unpack
from vantage.common.bound_arguments import arguments_of
from vantage.common.errors import InvalidArgumentError, Reason, RefusedError
from vantage.common.recipients import Recipients
from vantage.common.sealing import SealedPayload

ROSA = "organizations/dora/users/rosa"
KEYS = [sealing.create_identity() for _ in range(70)]


class Inline(Payloads):
    """Takes everything into the message, and counts."""

    def __init__(self) -> None:
        self.packed: list[bytes] = []

    async def pack(
        self,
        source: bytes | Path,
        media_type: str,
        limit: int | None = None,
        digest: str | None = None,
        question: str = "",
    ) -> types_pb2.Payload:
        content = source if isinstance(source, bytes) else await asyncio.to_thread(source.read_bytes)
        self.packed.append(content)
        return types_pb2.Payload(media_type=media_type, sealing=types_pb2.SEALING_NONE, inline=content)


async def sealed(arguments: list[Any]) -> tuple[task_pb2.TaskSpec, list[bytes]]:
    """Targets with these arguments, one key each, and what was packed for them."""
    payloads = Inline()
    spec = task_pb2.TaskSpec(
        targets=[task_pb2.Target(organization=f"organizations/o{n}") for n in range(len(arguments))]
    )
    whom = [Recipients((sealing.recipient_of(key),), ()) for key in KEYS[: len(arguments)]]
    await Packer(payloads).sealed(spec, [_given(each) for each in arguments], whom, ROSA)
    return spec, payloads.packed


def _given(each: Any) -> Given:
    return each if isinstance(each, Given) else Given(each)


def opened(target: task_pb2.Target, key: str) -> bytes:
    arguments = target.arguments
    assert arguments.sealing == types_pb2.SEALING_AGE_V1
    assert (arguments.digest, arguments.size_bytes) == (dsse.digest_of(arguments.inline), len(arguments.inline))
    return arguments_of(sealing.unseal(SealedPayload(arguments.inline), [key]), ROSA)


async def test_equal_arguments_are_sealed_once_and_different_ones_apart(tmp_path: Path) -> None:
    path = tmp_path / "arguments.json"
    path.write_text('{"of": "a file"}')
    common: dict[str, Any] = {"n": 1}
    spec, packed = await sealed([common, {"n": 2}, common, {"n": 1}, path, path, None])
    assert len(packed) == 4
    texts = [opened(target, key) for target, key in zip(spec.targets, KEYS, strict=False)]
    assert texts == [b'{"n":1}', b'{"n":2}', b'{"n":1}', b'{"n":1}', b'{"of": "a file"}', b'{"of": "a file"}', b"{}"]
    with pytest.raises(RefusedError):
        opened(spec.targets[0], KEYS[1])  # who is asked something else does not read it


async def test_more_recipients_than_a_payload_may_have_get_several() -> None:
    spec, packed = await sealed([{"n": 1}] * 70)
    assert len(packed) == 2
    assert all(opened(target, key) == b'{"n":1}' for target, key in zip(spec.targets, KEYS, strict=True))


async def test_nothing_of_a_file_stays_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    with pytest.raises(InvalidArgumentError) as caught:
        await sealed([tmp_path / "no-such-file.json"])
    assert caught.value.reason is Reason.INVALID_ARGUMENT
    path = tmp_path / "arguments.json"
    path.write_text("{}")
    await sealed([path])
    assert not list(scratch.iterdir())


async def test_files_and_tables_travel_with_the_arguments_in_one_sealed_archive(tmp_path: Path) -> None:
    table = pa.table({"age": [61, 44], "name": ["a", None]})
    notes = tmp_path / "private name.TXT"
    notes.write_text("anything")
    files = {"cohort": table, "notes": notes}
    spec, packed = await sealed([Given({"n": 1}, files), Given({"n": 1}, files), Given({"n": 1})])
    assert len(packed) == 2  # with files, and without
    assert [each.arguments.media_type for each in spec.targets] == [MEDIA_TYPE, MEDIA_TYPE, "application/json"]
    content = opened(spec.targets[1], KEYS[1])
    assert b"private name" not in content
    directory = tmp_path / "unpacked"
    directory.mkdir()
    unpacked = unpack(io.BytesIO(content), directory, 10_000)
    assert unpacked.arguments == b'{"n":1}'
    assert [(each.parameter, each.format) for each in unpacked.files] == [("cohort", "arrow"), ("notes", "file")]
    with pa.ipc.open_file(pa.memory_map(str(unpacked.files[0].path))) as reader:
        assert reader.read_all().equals(table)
    assert unpacked.files[1].path.read_text() == "anything"


@pytest.mark.parametrize("files", [{"df": 3}, {"no identifier": Path(__file__)}, {"df": Path("/no/such/file.csv")}])
async def test_what_cannot_be_a_file_of_a_parameter_is_said(files: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError):
        await sealed([Given({}, files)])
