"""What a run hands over for its subtasks is kept once, within bounds, and only for who knows its digest."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import argument_files, sealing
from vantage.common.errors import Reason, VantageError
from vantage.node import staging as staging_module
from vantage.node.door import StoredResult
from vantage.node.sealed import Sealer
from vantage.node.staging import Staging

JSON = "application/json"
LIMIT = 100


def made(directory: Path) -> Staging:
    return Staging(directory / "staged", LIMIT)


async def stage(staging: Staging, content: bytes, media_type: str = JSON) -> StoredResult:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 7):
            yield content[start : start + 7]

    return await staging.take(media_type, chunks())


def names(digest: str, media_type: str = JSON, size: int = 0) -> pb.RunSubtaskRequest:
    arguments = types_pb2.Payload(media_type=media_type, digest=digest, size_bytes=size)
    return pb.RunSubtaskRequest(targets=[task_pb2.Target(organization="organizations/dora", arguments=arguments)])


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def files(directory: Path) -> list[Path]:
    return list((directory / "staged").iterdir())


async def test_what_was_staged_is_found_by_its_digest(tmp_path: Path) -> None:
    staging = made(tmp_path)
    stored = await stage(staging, b'{"a": 1}')
    assert (stored.size, stored.digest) == (8, digest_of(b'{"a": 1}'))
    assert await stage(staging, b'{"a": 1}') == stored
    assert len(files(tmp_path)) == 1
    for request in (names(stored.digest), names(stored.digest, media_type="", size=8)):
        with staging.held(request) as held:
            assert held[JSON, stored.digest].content.read_bytes() == b'{"a": 1}'  # type: ignore[union-attr]
        assert request.targets[0].arguments.size_bytes == 8


@pytest.mark.parametrize(
    "digest",
    [
        digest_of(b"something else"),
        "sha256:" + "0" * 64,
        "sha256:../../secret",
        "../staged/" + "0" * 64,
        "x" * 5000,
    ],
)
async def test_nothing_else_is_found(tmp_path: Path, digest: str) -> None:
    staging = made(tmp_path)
    (tmp_path / "secret.json").write_bytes(b"{}")
    await stage(staging, b"{}")
    with pytest.raises(VantageError, match="hand them over") as caught, staging.held(names(digest)):
        pass
    assert caught.value.reason is Reason.ARGUMENTS_NOT_STAGED


async def test_what_another_run_has_staged_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    stored = await stage(made(tmp_path / "other"), b"{}")
    for request in (
        names(stored.digest),
        names(stored.digest, size=3),
        names(stored.digest, argument_files.MEDIA_TYPE),
    ):
        staging = made(tmp_path if request.targets[0].arguments.size_bytes == 0 else tmp_path / "other")
        with pytest.raises(VantageError) as caught, staging.held(request):
            pass
        assert caught.value.reason is Reason.ARGUMENTS_NOT_STAGED


async def test_a_payload_of_the_server_cannot_be_named(tmp_path: Path) -> None:
    request = names("")
    request.targets[0].arguments.reference = "payloads/of-somebody-else"
    with pytest.raises(VantageError, match="StageArguments") as caught, made(tmp_path).held(request):
        pass
    assert caught.value.reason is Reason.INVALID_ARGUMENT


async def test_what_waits_for_its_subtask_is_bounded_and_the_rest_makes_room(tmp_path: Path) -> None:
    staging = made(tmp_path)
    first = await stage(staging, b"1" * 60)
    with pytest.raises(VantageError, match=r"limits\.max_staged_bytes") as caught:
        await stage(staging, b"2" * 41)
    assert caught.value.reason is Reason.PAYLOAD_QUOTA_EXCEEDED
    assert len(files(tmp_path)) == 1
    second = await stage(staging, b"2" * 40)
    with staging.held(names(first.digest)):
        pass
    with staging.held(names(first.digest)), pytest.raises(VantageError):
        await stage(staging, b"3")  # one waits, and with the other a subtask is made right now
    await stage(staging, b"3" * 60)
    with pytest.raises(VantageError) as caught, staging.held(names(first.digest)):
        pass
    assert caught.value.reason is Reason.ARGUMENTS_NOT_STAGED
    with staging.held(names(second.digest)):
        pass
    assert len(files(tmp_path)) == 2


async def test_what_is_staged_again_waits_again(tmp_path: Path) -> None:
    staging = made(tmp_path)
    first = await stage(staging, b"1" * 40)
    with staging.held(names(first.digest)):
        pass
    await stage(staging, b"1" * 40)
    with pytest.raises(VantageError) as caught:
        await stage(staging, b"2" * 61)
    assert caught.value.reason is Reason.PAYLOAD_QUOTA_EXCEEDED
    with staging.held(names(first.digest)):
        pass


async def test_what_is_staged_again_while_a_subtask_is_made_with_it_waits_again(tmp_path: Path) -> None:
    staging = made(tmp_path)
    first = await stage(staging, b"1" * 40)
    with staging.held(names(first.digest)):
        await stage(staging, b"1" * 40)
    with pytest.raises(VantageError) as caught:
        await stage(staging, b"2" * 61)
    assert caught.value.reason is Reason.PAYLOAD_QUOTA_EXCEEDED


async def test_their_number_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging_module, "MAX_STAGED", 2)
    staging = made(tmp_path)
    for content in (b"1", b"2"):
        await stage(staging, content)
    with pytest.raises(VantageError) as caught:
        await stage(staging, b"3")
    assert caught.value.reason is Reason.PAYLOAD_QUOTA_EXCEEDED


@pytest.mark.parametrize(
    ("content", "media_type", "reason"),
    [
        (b"x" * 101, JSON, Reason.PAYLOAD_TOO_LARGE),
        (b"x" * 11, JSON, Reason.PAYLOAD_TOO_LARGE),
        (b"x", "text/csv", Reason.INVALID_ARGUMENT),
        (b"x", "../../../etc/passwd", Reason.INVALID_ARGUMENT),
        (b"no archive", argument_files.MEDIA_TYPE, Reason.ARGUMENTS_INVALID),
    ],
)
async def test_what_is_not_taken_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, media_type: str, reason: Reason
) -> None:
    monkeypatch.setattr(argument_files, "MAX_JSON_BYTES", 10)
    staging = made(tmp_path)
    await stage(staging, b"{}")
    with pytest.raises(VantageError) as caught:
        await stage(staging, content, media_type)
    assert caught.value.reason is reason
    assert len(files(tmp_path)) == 1


async def test_the_next_process_goes_on_with_what_was_complete(tmp_path: Path) -> None:
    stored = await stage(made(tmp_path), b'{"a": 1}')
    (tmp_path / "staged" / "incoming-1").write_bytes(b"half")
    (tmp_path / "staged" / "0.age").write_bytes(b"half")
    again = made(tmp_path)
    assert [str(each) for each in files(tmp_path)] == [str(stored.content)]
    with again.held(names(stored.digest)) as held:
        assert held[JSON, stored.digest] == stored
    await stage(again, b"2" * 95)  # nobody knows of a subtask that waits for it any more
    assert len(files(tmp_path)) == 1


async def test_where_nothing_can_be_written_the_run_is_told(tmp_path: Path) -> None:
    (tmp_path / "staged").write_bytes(b"a file")
    with pytest.raises(VantageError) as caught:
        await stage(made(tmp_path), b"{}")
    assert caught.value.reason is Reason.SCRATCH_UNAVAILABLE


async def test_memory_is_bounded_whatever_the_size(tmp_path: Path) -> None:
    size = 48 * 1024 * 1024
    staging = Staging(tmp_path / "staged", size)
    recipient = sealing.recipient_of(sealing.create_identity())

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // 65536):
            yield bytes(65536)

    tracemalloc.start()
    try:
        stored = await staging.take(JSON, chunks())
        async with Sealer(lambda: ()).sealed_arguments(stored, "organizations/clara/nodes/c", (recipient,)) as sealed:
            assert sealed.size > size
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < size // 2
    assert files(tmp_path) == [stored.content]
