"""The calls of Sync one by one: what is counted, what may come twice, what waits."""

from __future__ import annotations

import asyncio
import threading
import uuid
from datetime import timedelta
from typing import Any

import grpc
import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2_grpc
from vantage.api.types.v1 import types_pb2
from vantage.common.errors import Reason
from vantage.common.rpc import error_from_rpc
from vantage.server.domain.session import Transport
from vantage.server.rpc import sync_sessions
from vantage.testing.task_server import Network, as_

ONE = "organizations/alpha/nodes/one"
HELLO = pb.ConnectRequest(
    hello=pb.Hello(
        version="1.0.0", instance_id="one", slots=4, transport=pb.TRANSPORT_SYNC, executor="process" + "s" * 100
    )
)


class Calls:
    """Calls of one session."""

    def __init__(self, network: Network) -> None:
        self.session = str(uuid.uuid4())
        self._stub = node_session_service_pb2_grpc.NodeSessionServiceStub(network.channel())

    async def bring(self, offset: int, *messages: pb.ConnectRequest, **fields: Any) -> pb.SyncResponse:
        request = pb.SyncRequest(**{"session": self.session, "offset": offset, "messages": messages, **fields})
        return await self._stub.Sync(request, metadata=as_(ONE), timeout=20)

    async def wait(self, received: int = 0, seconds: float = 10) -> pb.SyncResponse:
        request = pb.SyncRequest(session=self.session, received=received)
        request.wait.FromMilliseconds(round(seconds * 1000))
        return await self._stub.Sync(request, metadata=as_(ONE), timeout=20)

    async def refused(self, *messages: pb.ConnectRequest, offset: int = 0, **fields: Any) -> Reason:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.bring(offset, *messages, **fields)
        return error_from_rpc(caught.value).reason

    async def failed(self, received: int) -> Reason:
        """Wait until the session fails, and say why."""
        while True:
            try:
                await self.wait(received)
            except grpc.aio.AioRpcError as problem:
                return error_from_rpc(problem).reason


def beat() -> pb.ConnectRequest:
    return pb.ConnectRequest(heartbeat=pb.Heartbeat())


def kinds(answer: pb.SyncResponse) -> list[str | None]:
    return [message.WhichOneof("message") for message in answer.messages]


async def test_a_call_that_is_made_again_opens_no_second_session(network: Network) -> None:
    node = Calls(network)
    for _ in range(3):
        assert (await node.bring(0, HELLO)).taken == 1
    assert kinds(await node.wait()) == ["welcome"]
    known = network.sessions.presence(ONE)
    assert known.transport is Transport.SYNC
    assert known.executor == "process" + "s" * 33
    assert kinds(await node.wait(1, 0.05)) == []  # it is not fenced


async def test_messages_that_come_again_are_taken_once(network: Network) -> None:
    node = Calls(network)
    await node.bring(0, HELLO)
    await node.bring(0, HELLO, beat())
    assert (await node.bring(1, beat(), beat())).taken == 3
    await node.wait()
    while (answer := await node.wait()).offset + len(answer.messages) < 3:
        pass
    assert kinds(answer) == ["welcome", "heartbeat_reply", "heartbeat_reply"]
    assert kinds(await node.wait(3, 0.05)) == []


async def test_an_answer_that_was_lost_comes_again_until_it_was_received(network: Network) -> None:
    node = Calls(network)
    await node.bring(0, HELLO)
    first = await node.wait()
    assert await node.wait() == first
    await node.bring(1, beat())
    answer = await node.wait(1)
    assert (answer.offset, kinds(answer)) == (1, ["heartbeat_reply"])


async def test_a_call_waits_for_the_server_to_speak_and_no_longer_than_it_wants(network: Network) -> None:
    node = Calls(network)
    await node.bring(0, HELLO)
    await node.wait()
    assert kinds(await node.wait(1, 0.05)) == []
    waiting = asyncio.create_task(node.wait(1))
    await node.bring(1, beat())
    assert kinds(await waiting) == ["heartbeat_reply"]


async def test_a_newer_call_that_waits_ends_the_older(network: Network) -> None:
    node = Calls(network)
    await node.bring(0, HELLO)
    await node.wait()
    older = asyncio.create_task(node.wait(1))
    newer = asyncio.create_task(node.wait(1))
    done, _ = await asyncio.wait({older, newer}, return_when=asyncio.FIRST_COMPLETED)
    assert kinds(done.pop().result()) == []
    await node.bring(1, beat())
    answers = [kinds(await each) for each in (older, newer)]
    assert sorted(answers) == [[], ["heartbeat_reply"]]


async def test_the_last_words_can_be_fetched_twice(network: Network) -> None:
    older, newer = Calls(network), Calls(network)
    await older.bring(0, HELLO)
    await older.wait()
    await newer.bring(0, HELLO)
    await newer.wait()
    for _ in range(2):
        answer = await older.wait(1)
        assert answer.messages[0].goodbye.reason == "SESSION_FENCED"
        assert answer.ended


async def test_the_node_ends_a_session(network: Network) -> None:
    node = Calls(network)
    await node.bring(0, HELLO)
    await node.wait()
    for _ in range(2):
        await node.bring(1, beat(), last=True)
    answer = await node.wait(2)
    assert answer.ended
    assert not network.sessions.presence(ONE).online
    assert network.sessions.presence(ONE).transport is Transport.UNKNOWN
    assert network.sessions.presence(ONE).executor == ""


async def test_what_does_not_fit_is_told(network: Network) -> None:
    node = Calls(network)
    assert await node.refused(session="") is Reason.INVALID_ARGUMENT
    assert await node.refused() is Reason.SESSION_UNKNOWN
    assert await node.refused(beat(), offset=1) is Reason.SESSION_UNKNOWN
    assert await node.refused(*[HELLO] * (sync_sessions.MAX_MESSAGES + 1)) is Reason.INVALID_ARGUMENT
    await node.bring(0, HELLO)
    assert await node.refused(beat(), offset=2) is Reason.PROTOCOL_VIOLATION
    assert await node.refused(received=5) is Reason.PROTOCOL_VIOLATION
    await node.bring(1, HELLO)
    assert await node.failed(1) is Reason.PROTOCOL_VIOLATION


async def test_the_session_of_another_node_is_unknown(network: Network) -> None:
    node, other = Calls(network), Calls(network)
    await node.bring(0, HELLO)
    request = pb.SyncRequest(session=node.session)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await other._stub.Sync(request, metadata=as_("organizations/beta/nodes/one"))
    assert error_from_rpc(caught.value).reason is Reason.SESSION_UNKNOWN


async def test_a_silent_session_ends_and_is_forgotten(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_sessions, "LINGER", 0.0)
    node = Calls(network)
    await node.bring(0, HELLO)
    await node.wait()
    waiting = asyncio.create_task(node.wait(1))
    await node.bring(1, beat())
    await waiting
    network.advance(timedelta(seconds=31))
    assert await node.failed(2) is Reason.SESSION_UNKNOWN
    assert not network.sessions.presence(ONE).online


async def test_only_the_latest_sessions_of_a_node_are_remembered(network: Network) -> None:
    sessions = [Calls(network) for _ in range(6)]
    for each in sessions:
        await each.bring(0, HELLO)
        await each.wait()
    assert await sessions[0].refused() is Reason.SESSION_UNKNOWN
    assert (await sessions[4].wait(1)).ended
    assert len(network.node_sessions._sync._of[ONE]) == 4


async def test_large_messages_wait_at_the_node_and_not_here(network: Network) -> None:
    node = Calls(network)
    await node.bring(0, HELLO)
    await node.wait()
    # 14 MiB in one call. What came of them may be looked at, but not committed: the database is busy.
    result = types_pb2.Payload(media_type="text/plain", sealing=types_pb2.SEALING_NONE, inline=bytes(512 * 1024))
    lease = pb.Lease(run="tasks/1/runs/1", lease_id="none", attempt=1)
    messages = [
        pb.ConnectRequest(sequence=number, completed=pb.Completed(lease=lease, result=result))
        for number in range(1, 29)
    ]
    occupied, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def occupy(_connection: object) -> None:
        loop.call_soon_threadsafe(occupied.set)
        assert release.wait(60)

    busy = asyncio.create_task(network.database.write(occupy))
    try:
        await occupied.wait()
        call = asyncio.create_task(node.bring(1, *messages))
        for _ in range(20):
            # Of two calls that find no room, one waits.
            waiting = {call, asyncio.create_task(node.bring(1, *messages))}
            done, (call,) = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert 8 <= done.pop().result().taken <= 26
    finally:
        release.set()
    await busy
    assert (await call).taken == 29
    while (await node.wait(1)).messages[-1].ack < 28:
        pass
