"""Streams of bytes through the one door."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

sys.path.insert(0, str(Path(__file__).parents[3]))

from tests.node.local_api.test_local_api import CONTEXT, Served, serving
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.common.errors import Reason, error
from vantage.common.rpc import bearer, error_from_rpc
from vantage.node.outside import NoOutside

ME = (bearer(CONTEXT.token),)
TARGET = pb.DialRequest(target=pb.DialTarget(peer=pb.PeerTarget(peer="hilda", label="ring")))


class Echo:
    """A target that sends back what it gets, and holds at most one message."""

    def __init__(self) -> None:
        self.held: asyncio.Queue[bytes] = asyncio.Queue(1)
        self.closed = asyncio.Event()
        self.broken = asyncio.Event()
        self.writes = 0
        self.blocked = asyncio.Event()

    async def read(self) -> bytes:
        getter, broken = asyncio.ensure_future(self.held.get()), asyncio.ensure_future(self.broken.wait())
        await asyncio.wait({getter, broken}, return_when=asyncio.FIRST_COMPLETED)
        broken.cancel()
        if getter.done():
            return getter.result()
        getter.cancel()
        raise error(Reason.PEER_LOST, "the peer is gone")

    async def write(self, data: bytes) -> None:
        self.writes += 1
        if self.held.full():
            self.blocked.set()
        await self.held.put(data)

    async def finish(self) -> None:
        await self.held.put(b"")

    def close(self) -> None:
        self.closed.set()
        self.broken.set()


class EchoOutside(NoOutside):
    def __init__(self) -> None:
        self.stream = Echo()
        self.targets: list[pb.DialTarget] = []

    async def dial(self, target: pb.DialTarget) -> Echo:
        self.targets.append(target)
        return self.stream


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    async with serving(tmp_path) as running:
        running.recorder.outside = EchoOutside()
        yield running


def echo(served: Served) -> EchoOutside:
    assert isinstance(served.recorder.outside, EchoOutside)
    return served.recorder.outside


async def code_of(call: grpc.aio.StreamStreamCall[pb.DialRequest, pb.DialResponse]) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read_all(call)
    return error_from_rpc(caught.value).reason


async def read_all(call: grpc.aio.StreamStreamCall[pb.DialRequest, pb.DialResponse]) -> None:
    while await call.read() is not grpc.aio.EOF:
        pass


async def test_bytes_go_both_ways_and_each_side_ends_by_itself(served: Served) -> None:
    call = served.stub.Dial(metadata=ME)
    await call.write(TARGET)
    opened = await call.read()
    assert isinstance(opened, pb.DialResponse)
    assert opened.HasField("opened")
    for data in (b"one", b"x" * 1024 * 1024):
        await call.write(pb.DialRequest(data=data))
        answer = await call.read()
        assert isinstance(answer, pb.DialResponse)
        assert answer.data == data
    await call.write(pb.DialRequest(finished=pb.DialFinished()))
    await call.done_writing()
    said = set()
    for _ in range(2):
        last = await call.read()
        assert isinstance(last, pb.DialResponse)
        said.add(last.WhichOneof("part"))
    assert said == {"sent", "finished"}
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    assert echo(served).targets == [TARGET.target]
    await echo(served).stream.closed.wait()


async def test_a_broken_target_ends_the_call_with_its_reason(served: Served) -> None:
    call = served.stub.Dial(metadata=ME)
    await call.write(TARGET)
    await call.read()
    echo(served).stream.broken.set()
    assert await code_of(call) is Reason.PEER_LOST
    await echo(served).stream.closed.wait()


async def test_cancelling_breaks_the_connection(served: Served) -> None:
    call = served.stub.Dial(metadata=ME)
    await call.write(TARGET)
    await call.read()
    call.cancel()
    await echo(served).stream.closed.wait()


async def test_a_target_that_does_not_read_stops_the_run(served: Served) -> None:
    stream = echo(served).stream
    call = served.stub.Dial(metadata=ME)
    await call.write(TARGET)
    # The client does not read either, so that what comes back fills everything up.
    chunk = pb.DialRequest(data=bytes(1024 * 1024))
    sent = 0

    async def send() -> None:
        nonlocal sent
        for _ in range(256):
            await call.write(chunk)
            sent += 1

    sender = asyncio.create_task(send())
    await stream.blocked.wait()
    # 256 MiB do not fit into what lies between; whatever was taken is bounded by the buffers of the connection.
    done, _ = await asyncio.wait({sender}, timeout=0.5)
    assert not done
    assert sent < 64
    sender.cancel()
    call.cancel()
    await stream.closed.wait()


@pytest.mark.parametrize(
    "requests",
    [
        [pb.DialRequest(data=b"too early")],
        [pb.DialRequest(target=pb.DialTarget())],
        [TARGET, TARGET],
        [TARGET, pb.DialRequest(data=bytes(1024 * 1024 + 1))],
        [TARGET, pb.DialRequest()],
        [TARGET, pb.DialRequest(data=b"no end in order")],
        [],
    ],
)
async def test_what_does_not_belong_is_refused(served: Served, requests: list[pb.DialRequest]) -> None:
    call = served.stub.Dial(metadata=ME)
    for request in requests:
        await call.write(request)
    await call.done_writing()
    assert await code_of(call) is Reason.INVALID_ARGUMENT


async def test_without_peers_all_is_refused_and_strangers_get_nothing(served: Served) -> None:
    served.recorder.outside = NoOutside()
    call = served.stub.Dial(metadata=ME)
    await call.write(TARGET)
    assert await code_of(call) is Reason.PEERS_REFUSED
    for streaming in (
        served.stub.Listen(pb.ListenRequest(label="ring"), metadata=ME),
        served.stub.WatchPeers(pb.WatchPeersRequest(), metadata=ME),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await streaming.read()
        assert error_from_rpc(caught.value).reason is Reason.PEERS_REFUSED
    assert await code_of(served.stub.Dial(metadata=(bearer("wrong"),))) is Reason.UNAUTHENTICATED
