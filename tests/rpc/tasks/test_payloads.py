"""Upload, continue and download of payloads, and who may."""

from __future__ import annotations

import hashlib
import os
import resource
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest

from vantage.api.node.v1 import node_session_service_pb2 as node_pb
from vantage.api.payload.v1 import payload_service_pb2 as pb
from vantage.api.task.v1 import task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common.errors import Reason, VantageError
from vantage.common.rpc import error_from_rpc
from vantage.server.domain.session import SessionSettings
from vantage.server.payloads.files import PayloadFiles
from vantage.testing.task_server import ORGANIZATIONS, ROSA, Network, as_, request_id, spec

ONE = "organizations/alpha/nodes/one"
CHUNK = 64 * 1024
MIB = 1024 * 1024


async def test_what_was_uploaded_comes_back(network: Network) -> None:
    content = os.urandom(3 * 1024 * 1024 + 17)
    stored = await upload(network, content)
    assert stored.size_bytes == len(content)
    assert await download(network, stored.name) == content
    assert await download(network, stored.name, offset=len(content) - 5) == content[-5:]
    assert await download(network, stored.name, offset=len(content)) == b""
    assert await reason(download(network, stored.name, offset=len(content) + 1)) is Reason.OUT_OF_RANGE


async def test_the_same_request_answers_with_the_same_payload(network: Network) -> None:
    identity = request_id()
    first = await upload(network, b"abc", identity)
    assert await upload(network, b"abc", identity) == first
    assert await reason(upload(network, b"abcd", identity)) is Reason.REQUEST_ID_REUSED


async def test_a_broken_upload_goes_on_where_it_stopped(network: Network) -> None:
    content, identity = os.urandom(2 * 1024 * 1024), request_id()
    half = len(content) // 2
    broken = upload(network, content, identity, chunks=[content[:half]])
    assert await reason(broken) is Reason.PAYLOAD_OFFSET_MISMATCH
    await network.stop()
    await network.start()
    known = await network.payload_stub().GetUpload(pb.GetUploadRequest(request_id=identity), metadata=ROSA)
    assert known.offset == half
    assert not known.HasField("payload")
    others = await network.payload_stub().GetUpload(
        pb.GetUploadRequest(request_id=identity), metadata=as_("users/otto")
    )
    assert others.offset == 0
    assert await reason(upload(network, content, identity, offset=1, chunks=[])) is Reason.PAYLOAD_OFFSET_MISMATCH
    stored = await upload(network, content, identity, offset=half)
    assert await download(network, stored.name) == content
    done = await network.payload_stub().GetUpload(pb.GetUploadRequest(request_id=identity), metadata=ROSA)
    assert done.payload == stored


async def test_wrong_bytes_are_not_kept(network: Network) -> None:
    identity = request_id()
    wrong = upload(network, b"right", identity, chunks=[b"wrong"])
    assert await reason(wrong) is Reason.PAYLOAD_DIGEST_MISMATCH
    stored = await upload(network, b"right", identity)
    assert await download(network, stored.name) == b"right"


async def test_limits(network: Network) -> None:
    too_large = upload(network, b"x", size=8 * 1024 * 1024 + 1, chunks=[])
    assert await reason(too_large) is Reason.PAYLOAD_TOO_LARGE
    more_than_announced = upload(network, b"xy", chunks=[b"xy", b"z"])
    assert await reason(more_than_announced) is Reason.PAYLOAD_OFFSET_MISMATCH
    outside = upload(network, b"xy", offset=3)
    assert await reason(outside) is Reason.INVALID_ARGUMENT


async def test_parties_of_the_task_read_and_nobody_else(network: Network) -> None:
    arguments = await upload(network, b'{"column": "age"}')
    request = task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec())
    request.spec.targets[0].arguments.reference = arguments.name
    node = network.node(ONE)
    await node.hello()
    # Somebody else's upload cannot be referred to, nor read.
    foreign = network.stub().CreateTask(request, metadata=as_("users/otto"))
    assert await reason(foreign) is Reason.NOT_FOUND
    assert await reason(download(network, arguments.name, caller=ONE)) is Reason.NOT_FOUND
    created = await network.stub().CreateTask(request, metadata=ROSA)
    assign = await node.assigned()
    given = assign.spec.targets[0].arguments
    assert (given.reference, given.size_bytes, given.digest) == (
        arguments.name,
        arguments.size_bytes,
        arguments.digest,
    )
    assert await download(network, given.reference, caller=ONE) == b'{"column": "age"}'

    result = await upload(network, b"large", caller=ONE)
    payload = types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_NONE, reference=result.name)
    completed = node_pb.Completed(lease=assign.lease, result=payload)
    await node.acknowledged(await node.report(completed=completed))
    task = (await network.stub().GetTask(task_service_pb2.GetTaskRequest(name=created.task.name), metadata=ROSA)).task
    assert task.runs[0].result.reference == result.name
    assert task.runs[0].result.digest == result.digest
    assert await download(network, result.name) == b"large"
    assert await download(network, task.runs[0].name) == b"large"
    for caller in ("users/vera", "users/otto", "users/stranger", "organizations/beta/nodes/one"):
        assert await reason(download(network, result.name, caller=caller)) is Reason.NOT_FOUND


async def test_results_that_are_too_much_for_one_message_are_referred_to(network: Network) -> None:
    await network.stop()
    network.session_settings = SessionSettings(max_inline_bytes=4 * MIB)
    await network.start()
    organizations = list(ORGANIZATIONS)
    stub, watched = network.stub(), task_service_pb2.WatchTaskRequest(after_sequence=1)
    created = await stub.CreateTask(
        task_service_pb2.CreateTaskRequest(request_id=request_id(), spec=spec(*organizations)), metadata=ROSA
    )
    contents = {organization: os.urandom(3 * MIB) for organization in organizations}
    for organization in organizations:
        node = network.node(f"{organization}/nodes/one")
        await node.hello()
        await node.acknowledged(await node.succeed(await node.assigned(), contents[organization]))

    watched.name = created.task.name
    finished = [
        response.event.run_finished.run
        async for response in stub.WatchTask(watched, metadata=ROSA)
        if response.event.HasField("run_finished")
    ]
    get = task_service_pb2.GetTaskRequest(name=created.task.name)
    for runs in ((await stub.GetTask(get, metadata=ROSA)).task.runs, finished):
        assert sorted(str(run.result.WhichOneof("content")) for run in runs) == ["inline", "inline", "reference"]
        for run in runs:
            content = contents[run.organization]
            assert run.result.size_bytes == len(content)
            assert run.result.digest == f"sha256:{hashlib.sha256(content).hexdigest()}"
            # Under the name of its run each can be fetched, whether it was left out or not.
            assert run.result.inline or await download(network, run.result.reference, offset=5) == content[5:]
            assert await download(network, run.name) == content
    (left_out,) = [run for run in finished if not run.result.inline]
    last = left_out.result.reference
    assert last == left_out.name
    assert await reason(download(network, last, offset=3 * MIB + 1)) is Reason.OUT_OF_RANGE
    for caller in ("users/vera", "users/otto", "users/stranger", f"{left_out.organization}/nodes/one"):
        assert await reason(download(network, last, caller=caller)) is Reason.NOT_FOUND
    assert await reason(download(network, last[:-1] + "x")) is Reason.INVALID_ARGUMENT
    unknown = f"{created.task.name}/runs/{request_id()}"
    assert await reason(download(network, unknown)) is Reason.NOT_FOUND


async def upload(
    network: Network,
    content: bytes,
    identity: str | None = None,
    *,
    offset: int = 0,
    chunks: Iterable[bytes] | None = None,
    size: int | None = None,
    caller: str = "users/rosa",
) -> pb.StoredPayload:
    async def requests() -> AsyncIterator[pb.UploadPayloadRequest]:
        yield pb.UploadPayloadRequest(
            header=pb.UploadHeader(
                request_id=identity or request_id(),
                size_bytes=len(content) if size is None else size,
                digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
                offset=offset,
            )
        )
        parts = chunks
        if parts is None:
            parts = [content[start : start + CHUNK] for start in range(offset, len(content), CHUNK)]
        for part in parts:
            yield pb.UploadPayloadRequest(chunk=part)

    response = await network.payload_stub().UploadPayload(requests(), metadata=as_(caller))
    return response.payload


async def download(network: Network, name: str, *, offset: int = 0, caller: str = "users/rosa") -> bytes:
    call = network.payload_stub().DownloadPayload(
        pb.DownloadPayloadRequest(name=name, offset=offset), metadata=as_(caller)
    )
    return b"".join([response.chunk async for response in call])


async def reason(call: Any) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason


async def test_a_disk_that_takes_a_part_of_a_block_completes_nothing(tmp_path: Path) -> None:
    """The operating system says how much it took, and fails only at the next write."""
    store, block = PayloadFiles(tmp_path), bytes(1_000)
    incoming = await store.begin("payloads/one", 0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, before[1]))
    try:
        with pytest.raises(VantageError) as caught:
            await incoming.append([block])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.reason is Reason.STORAGE_FULL
    await incoming.keep()
    # What is there is gone on with.
    assert await store.offset("payloads/one") == 600
    incoming = await store.begin("payloads/one", 600)
    await incoming.append([block[600:]])
    await incoming.finish(f"sha256:{hashlib.sha256(block).hexdigest()}")
    assert b"".join([part async for part in store.read("payloads/one", 0)]) == block
