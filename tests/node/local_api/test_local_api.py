"""The local API over a real unix socket."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.api.algorithm.v1 import algorithm_service_pb2_grpc
from vantage.api.task.v1 import task_pb2
from vantage.common.errors import Reason, VantageError, error
from vantage.common.rpc import bearer, error_from_rpc, open_channel
from vantage.node.door import SOCKET_NAME, BoundDataset, ByteStream, RunContext, StoredResult
from vantage.node.local_api import serve, server
from vantage.node.outside import NoOutside, Outside
from vantage.node.sockets import short_address
from vantage.node.staging import Staging

CONTEXT = RunContext(
    run="tasks/t/runs/r",
    function="summary",
    organization="organizations/clara",
    collaboration="collaborations/trial",
    organizations=("organizations/clara", "organizations/dora"),
    datasets=(BoundDataset("table", "lung", "csv", Path("/somewhere/lung.csv"), "/data/table/lung.csv"),),
    arguments=b"x" * 200_000,
    arguments_media_type="application/json",
    max_result_bytes=300_000,
    deadline=datetime.now(UTC) + timedelta(hours=1),
    image="registry/image@sha256:0",
    token="the token",
)
SUBTASK_RUN = "tasks/s/runs/r"


@dataclass
class Recorder:
    """Callbacks that remember."""

    told: list[object] = field(default_factory=list)
    content: bytes = b""
    outside: Outside = field(default_factory=NoOutside)
    staging: Staging = field(default_factory=lambda: Staging(Path("nowhere"), 0))

    def progress(self, fraction: float, message: str) -> None:
        self.told.append((fraction, message))

    async def result(self, result: StoredResult) -> None:
        if self.content:
            raise error(Reason.RESULT_ALREADY_SUBMITTED, "again")
        assert isinstance(result.content, Path)
        self.content = result.content.read_bytes()
        self.told.append(result)

    async def result_refused(self, problem: VantageError) -> None:
        self.told.append(problem.reason)

    async def failure(self, reason: str, message: str) -> None:
        self.told.append((reason, message))

    async def dial(self, target: pb.DialTarget) -> ByteStream:
        return await self.outside.dial(target)

    def listen(self, label: str) -> AsyncGenerator[pb.ListenResponse, None]:
        return self.outside.listen(label)

    def peers(self) -> AsyncGenerator[pb.WatchPeersResponse, None]:
        return self.outside.peers()

    async def stage(self, media_type: str, chunks: AsyncIterator[bytes]) -> StoredResult:
        return await self.staging.take(media_type, chunks)

    async def subtask(self, request: pb.RunSubtaskRequest) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        if request.function == "refused":
            raise error(Reason.ORGANIZATION_NOT_MEMBER, "no member")
        try:
            for sequence in (1, 2):
                yield task_pb2.TaskEvent(sequence=sequence)
            if request.function == "long":
                await asyncio.Event().wait()
        finally:
            self.told.append("closed")

    async def subtask_result(self, run: str) -> AsyncGenerator[bytes, None]:
        if run != SUBTASK_RUN:
            raise error(Reason.NOT_FOUND, "no such run")
        try:
            yield b"a" * 1024 * 1024
            yield b"b"
        finally:
            self.told.append("closed")


@dataclass
class Served:
    stub: algorithm_service_pb2_grpc.AlgorithmServiceStub
    recorder: Recorder
    directory: Path
    socket: Path


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Served]:
    recorder = Recorder(staging=Staging(directory / "staged", 2 * 1024 * 1024))
    async with serve(CONTEXT, recorder, directory) as place:
        socket = place / SOCKET_NAME
        # As a container sees it: below a short path of its own.
        link = Path(tempfile.mkdtemp()) / "run"
        link.symlink_to(place)
        try:
            async with open_channel(f"unix:{link / SOCKET_NAME}", None) as channel:
                stub = algorithm_service_pb2_grpc.AlgorithmServiceStub(channel)
                yield Served(stub, recorder, directory, socket)
        finally:
            shutil.rmtree(link.parent)


def names(directory: Path) -> list[str]:
    return [each.name for each in directory.iterdir()]


TOKEN = (bearer("the token"),)


def parts(*chunks: bytes, media_type: str = "application/json") -> list[pb.SubmitResultRequest]:
    header = pb.SubmitResultRequest(header=pb.ResultHeader(media_type=media_type))
    return [header, *(pb.SubmitResultRequest(chunk=chunk) for chunk in chunks)]


def staged(*chunks: bytes, media_type: str = "application/json") -> list[pb.StageArgumentsRequest]:
    header = pb.StageArgumentsRequest(header=pb.ArgumentsHeader(media_type=media_type))
    return [header, *(pb.StageArgumentsRequest(chunk=chunk) for chunk in chunks)]


async def test_a_run_is_told_what_it_was_asked(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        answer = await served.stub.GetContext(pb.GetContextRequest(), metadata=TOKEN)
        assert (answer.task, answer.function) == ("tasks/t", "summary")
        assert [(each.parameter, each.path) for each in answer.datasets] == [("table", "/data/table/lung.csv")]
        assert "/somewhere" not in str(answer)  # where the file lies at the node is nobody's business
        assert answer.arguments_size_bytes == 200_000
        chunks = [part.chunk async for part in served.stub.ReadArguments(pb.ReadArgumentsRequest(), metadata=TOKEN)]
        assert b"".join(chunks) == CONTEXT.arguments
        assert len(chunks) > 1


@pytest.mark.parametrize("metadata", [(), (bearer("other"),), (("authorization", "the token"),)])
async def test_without_the_token_of_the_run_nothing_is_said(
    tmp_path: Path, metadata: tuple[tuple[str, str], ...]
) -> None:
    async with serving(tmp_path) as served:
        calls = [
            served.stub.GetContext(pb.GetContextRequest(), metadata=metadata),
            served.stub.ReportProgress(pb.ReportProgressRequest(fraction=1), metadata=metadata),
            served.stub.SubmitFailure(pb.SubmitFailureRequest(message="x"), metadata=metadata),
            served.stub.SubmitResult(iter(parts(b"x")), metadata=metadata),
            served.stub.StageArguments(iter(staged(b"x")), metadata=metadata),
        ]
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call  # type: ignore[misc]
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        streams = [
            served.stub.ReadArguments(pb.ReadArgumentsRequest(), metadata=metadata),
            served.stub.RunSubtask(pb.RunSubtaskRequest(), metadata=metadata),
        ]
        for stream in streams:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                [part async for part in stream]  # type: ignore[attr-defined]
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert served.recorder.told == []


async def test_a_result_is_stored_whole_with_its_digest(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        answer = await served.stub.SubmitResult(iter(parts(b"a" * 100_000, b"b" * 100_000)), metadata=TOKEN)
        content = b"a" * 100_000 + b"b" * 100_000
        assert served.recorder.content == content
        assert answer.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert answer.size_bytes == 200_000


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        (parts(b"x" * 200_000, b"x" * 100_001), Reason.RESULT_TOO_LARGE),
        (parts(b"x", media_type=""), Reason.INVALID_ARGUMENT),
        (parts(b"x")[1:], Reason.INVALID_ARGUMENT),
        ([], Reason.INVALID_ARGUMENT),
        ([*parts(b"x"), *parts(b"y")], Reason.INVALID_ARGUMENT),
    ],
)
async def test_a_result_that_is_not_taken_leaves_no_file(
    tmp_path: Path, requests: list[pb.SubmitResultRequest], reason: Reason
) -> None:
    async with serving(tmp_path) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.SubmitResult(iter(requests), metadata=TOKEN)
        assert error_from_rpc(caught.value).reason is reason
        assert served.recorder.told == ([reason] if reason is Reason.RESULT_TOO_LARGE else [])
        assert names(tmp_path) == ["api"]


async def test_arguments_of_subtasks_are_kept_where_no_container_looks(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        content = b"a" * 700_000 + b"b" * 300_000
        for _twice in range(2):
            answer = await served.stub.StageArguments(
                iter(staged(content[:700_000], content[700_000:])), metadata=TOKEN
            )
            assert answer.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            assert answer.size_bytes == len(content)
        (file,) = (tmp_path / "staged").iterdir()
        assert file.read_bytes() == content
        assert file.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        (staged(*[b"x" * 700_000] * 3), Reason.PAYLOAD_TOO_LARGE),
        (staged(b"x" * (1024 * 1024 + 1)), Reason.INVALID_ARGUMENT),
        (staged(b"x", media_type=""), Reason.INVALID_ARGUMENT),
        (staged(b"x", media_type="text/csv"), Reason.INVALID_ARGUMENT),
        (staged(b"x", media_type="application/vnd.vantage.arguments+tar"), Reason.ARGUMENTS_INVALID),
        (staged(b"x")[1:], Reason.INVALID_ARGUMENT),
        ([], Reason.INVALID_ARGUMENT),
        ([*staged(b"x"), *staged(b"y")], Reason.INVALID_ARGUMENT),
    ],
)
async def test_arguments_that_are_not_taken_leave_no_file(
    tmp_path: Path, requests: list[pb.StageArgumentsRequest], reason: Reason
) -> None:
    async with serving(tmp_path) as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.stub.StageArguments(iter(requests), metadata=TOKEN)
        assert error_from_rpc(caught.value).reason is reason
        assert names(tmp_path / "staged" if "staged" in names(tmp_path) else tmp_path) in ([], ["api"])


async def test_progress_and_failures_are_passed_on(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        await served.stub.ReportProgress(pb.ReportProgressRequest(fraction=0.5, message="m" * 500), metadata=TOKEN)
        await served.stub.SubmitFailure(pb.SubmitFailureRequest(reason="TOO_FEW_RECORDS", message="5"), metadata=TOKEN)
        assert served.recorder.told == [(0.5, "m" * 200), ("TOO_FEW_RECORDS", "5")]
        for fraction in (-0.1, 1.1, float("nan")):
            with pytest.raises(grpc.aio.AioRpcError):
                await served.stub.ReportProgress(pb.ReportProgressRequest(fraction=fraction), metadata=TOKEN)


async def test_events_of_a_subtask_are_streamed_and_the_source_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        targets = [task_pb2.Target(organization="organizations/dora")]
        request = pb.RunSubtaskRequest(function="partial", targets=targets)
        events = [each.event.sequence async for each in served.stub.RunSubtask(request, metadata=TOKEN)]
        assert events == [1, 2]
        call = served.stub.RunSubtask(pb.RunSubtaskRequest(function="long", targets=targets), metadata=TOKEN)
        assert (await anext(aiter(call))).event.sequence == 1
        call.cancel()
        request = pb.RunSubtaskRequest(function="refused", targets=targets)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [each async for each in served.stub.RunSubtask(request, metadata=TOKEN)]
        assert error_from_rpc(caught.value).reason is Reason.ORGANIZATION_NOT_MEMBER
    assert served.recorder.told.count("closed") == 2


async def test_a_large_result_of_a_subtask_is_streamed_in_pieces(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        request = pb.ReadSubtaskResultRequest(run=SUBTASK_RUN)
        chunks = [each.chunk async for each in served.stub.ReadSubtaskResult(request, metadata=TOKEN)]
        assert b"".join(chunks) == b"a" * 1024 * 1024 + b"b"
        assert max(map(len, chunks)) <= 1024 * 1024
        call = served.stub.ReadSubtaskResult(request, metadata=TOKEN)
        await anext(aiter(call))
        call.cancel()
        other = pb.ReadSubtaskResultRequest(run="tasks/t/runs/r")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [each async for each in served.stub.ReadSubtaskResult(other, metadata=TOKEN)]
        assert error_from_rpc(caught.value).reason is Reason.NOT_FOUND
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [each async for each in served.stub.ReadSubtaskResult(request)]
        assert error_from_rpc(caught.value).reason is Reason.UNAUTHENTICATED
    assert served.recorder.told.count("closed") == 2


async def test_any_user_may_open_the_socket_and_it_is_gone_afterwards(tmp_path: Path) -> None:
    async with serving(tmp_path) as served:
        assert served.socket.stat().st_mode & 0o777 == 0o666
        assert served.socket.parent.stat().st_mode & 0o777 == 0o755
    assert not served.socket.exists()


async def test_connections_of_a_run_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 2)
    async with serving(tmp_path) as served:
        await served.stub.GetContext(pb.GetContextRequest(), metadata=TOKEN)
        with short_address(served.socket) as (address, _descriptors):
            kept, kept_writer = await asyncio.open_unix_connection(address)
            kept_writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
            assert await kept.read(9)  # the server's settings
            more, more_writer = await asyncio.open_unix_connection(address)
        async with asyncio.timeout(20):
            assert await more.read() == b""
        kept_writer.close()
        more_writer.close()
        await served.stub.GetContext(pb.GetContextRequest(), metadata=TOKEN)


async def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    async with serving(deep) as served:
        assert (await served.stub.GetContext(pb.GetContextRequest(), metadata=TOKEN)).function == "summary"
