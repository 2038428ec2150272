"""A server that says what a test tells it to, on a real socket: the counterpart of a node under test.

Answers of unary calls are scripted with ``script``; sessions of the node are taken with ``accept`` and led by the test.
What was scripted and not asked for is an error when the server stops: the test expected something that did not happen.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self

import grpc
from google.protobuf.message import Message

from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import auth_service_pb2_grpc as auth_grpc
from vantage.api.identity.v1 import key_service_pb2 as key_pb
from vantage.api.identity.v1 import key_service_pb2_grpc as key_grpc
from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.node.v1 import node_session_service_pb2_grpc as node_grpc
from vantage.api.node.v1 import registry_service_pb2 as registry_pb
from vantage.api.node.v1 import registry_service_pb2_grpc as registry_grpc
from vantage.api.payload.v1 import payload_service_pb2 as payload_pb
from vantage.api.payload.v1 import payload_service_pb2_grpc as payload_grpc
from vantage.api.task.v1 import task_service_pb2 as task_pb
from vantage.api.task.v1 import task_service_pb2_grpc as task_grpc
from vantage.common.errors import VantageError
from vantage.common.names import new_id
from vantage.common.rpc import CHANNEL_OPTIONS, abort
from vantage.server.rpc.sync_sessions import SyncSessions

Context = grpc.aio.ServicerContext[Any, Any]

TIMEOUT = 60.0
"""Seconds after which waiting for the node is a failure of the test."""
AUDIENCE = "vantage-scripted"
_LOSSY = ("heartbeat", "progress", "log_lines")


class ScriptedSession:
    """One stream of the node, after its Hello.

    Attributes:
        hello: the first message.
        token: access token that the node showed.
        received: every message but heartbeats, in order.
        heartbeats: every heartbeat.
    """

    def __init__(self, hello: pb.Hello, token: str) -> None:
        self.hello = hello
        self.token = token
        self.received: list[pb.ConnectRequest] = []
        self.heartbeats: list[pb.Heartbeat] = []
        self.answer_heartbeats = True
        self.ended = asyncio.Event()
        self._outgoing: asyncio.Queue[pb.ConnectResponse | VantageError | None] = asyncio.Queue()
        self._incoming: asyncio.Queue[pb.ConnectRequest | None] = asyncio.Queue()

    def send(self, message: pb.ConnectResponse) -> None:
        """Say something to the node."""
        self._outgoing.put_nowait(message)

    def welcome(
        self,
        *collaborations: str,
        heartbeat: float = 10.0,
        lease: float = 30.0,
        revoked: tuple[pb.Lease, ...] = (),
        max_inline: int = 1024 * 1024,
    ) -> None:
        """Answer Hello."""
        message = pb.Welcome(collaborations=collaborations, revoked=revoked, max_inline_payload_bytes=max_inline)
        message.heartbeat_interval.FromMilliseconds(round(heartbeat * 1000))
        message.lease_duration.FromMilliseconds(round(lease * 1000))
        self.send(pb.ConnectResponse(welcome=message))

    def acknowledge(self, sequence: int) -> None:
        """Everything up to a sequence is durable."""
        self.send(pb.ConnectResponse(ack=sequence))

    def end(self, problem: VantageError | None = None) -> None:
        """End the stream, with an error if given."""
        self._outgoing.put_nowait(problem)

    async def receive(self, *kinds: str) -> pb.ConnectRequest:
        """The next message of the node, which must be of one of these kinds.

        Heartbeats, progress and logs are passed over unless asked for.
        """
        async with asyncio.timeout(TIMEOUT):
            while True:
                message = await self._incoming.get()
                if message is None:
                    raise AssertionError(f"the node ended the stream, expected {kinds}")
                found = message.WhichOneof("message")
                if found in kinds:
                    return message
                if found not in _LOSSY:
                    raise AssertionError(f"expected {kinds}, the node sent {message}")

    async def wait_ended(self) -> None:
        """Wait until the node has left."""
        async with asyncio.timeout(TIMEOUT):
            await self.ended.wait()

    def _take(self, message: pb.ConnectRequest) -> None:
        if message.HasField("heartbeat"):
            self.heartbeats.append(message.heartbeat)
            if self.answer_heartbeats:
                reply = pb.HeartbeatReply()
                reply.server_time.GetCurrentTime()
                self.send(pb.ConnectResponse(heartbeat_reply=reply))
        else:
            self.received.append(message)
        self._incoming.put_nowait(message)

    def _finish(self) -> None:
        self.ended.set()
        self._incoming.put_nowait(None)


class ScriptedServer:
    """Use as ``async with ScriptedServer() as server``; ``server.address`` is where it listens.

    Attributes:
        calls: requests of unary calls by method name.
        uploads: bytes of finished uploads by payload name.
    """

    def __init__(self) -> None:
        self.address = ""
        self.calls: dict[str, list[Message]] = defaultdict(list)
        self.uploads: dict[str, bytes] = {}
        self.downloads: dict[str, bytes] = {}
        self.token_seconds = 900.0
        self._scripts: dict[str, deque[Any]] = defaultdict(deque)
        self._sessions: asyncio.Queue[ScriptedSession] = asyncio.Queue()
        self._open: set[ScriptedSession] = set()
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if kind is None:
            unused = {method: list(answers) for method, answers in self._scripts.items() if answers}
            if unused:
                raise AssertionError(f"scripted and never asked for: {unused}")

    async def start(self) -> None:
        """Listen; again at the same address after ``stop``."""
        self._server = grpc.aio.server(options=[*CHANNEL_OPTIONS, ("grpc.so_reuseport", 0)])
        auth_grpc.add_AuthServiceServicer_to_server(_Auth(self), self._server)  # type: ignore[abstract]  # the rest is unimplemented
        key_grpc.add_KeyServiceServicer_to_server(_Keys(self), self._server)  # type: ignore[abstract]
        self._servicer = _Sessions(self)
        node_grpc.add_NodeSessionServiceServicer_to_server(self._servicer, self._server)
        registry_grpc.add_RegistryServiceServicer_to_server(_Registries(self), self._server)
        payload_grpc.add_PayloadServiceServicer_to_server(_Payloads(self), self._server)
        task_grpc.add_TaskServiceServicer_to_server(_Tasks(self), self._server)  # type: ignore[abstract]
        port = self._server.add_insecure_port(self.address or "127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self) -> None:
        """Cut all connections."""
        if self._server is not None:
            await self._server.stop(None)
            await self._servicer.sync.stop()
            self._server = None

    def script(self, method: str, *answers: Any) -> None:
        """Answers of the next calls of a method, e.g. ``ExchangeAssertion``: a response, an error to raise, or for a
        streaming method a list of responses, of events to wait for, with an error at the end if there is to be one."""
        self._scripts[method].extend(answers)

    async def accept(self) -> ScriptedSession:
        """Wait for the node's next session."""
        async with asyncio.timeout(TIMEOUT):
            return await self._sessions.get()

    async def _answer(self, method: str, request: Message, context: Context, default: Any = None) -> Any:
        self.calls[method].append(request)
        answer = self._scripts[method].popleft() if self._scripts[method] else default
        if isinstance(answer, VantageError):
            await abort(context, answer)
        if answer is None:
            await context.abort(grpc.StatusCode.INTERNAL, f"nothing is scripted for {method}")
        return answer

    async def _stream(self, method: str, request: Message, context: Context) -> AsyncIterator[Any]:
        for each in await self._answer(method, request, context):
            if isinstance(each, VantageError):
                await abort(context, each)
            if isinstance(each, asyncio.Event):
                await each.wait()
                continue
            yield each


class _Auth(auth_grpc.AuthServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    async def GetServerInfo(
        self, request: auth_pb.GetServerInfoRequest, context: Context
    ) -> auth_pb.GetServerInfoResponse:
        default = auth_pb.GetServerInfoResponse(version="0", audience=AUDIENCE)
        answer: auth_pb.GetServerInfoResponse = await self._server._answer("GetServerInfo", request, context, default)
        return answer

    async def ExchangeAssertion(
        self, request: auth_pb.ExchangeAssertionRequest, context: Context
    ) -> auth_pb.ExchangeAssertionResponse:
        default = auth_pb.ExchangeAssertionResponse(tokens=auth_pb.TokenPair(access_token=new_id()))
        default.tokens.access_expires_in.FromMilliseconds(round(self._server.token_seconds * 1000))
        answer: auth_pb.ExchangeAssertionResponse = await self._server._answer(
            "ExchangeAssertion", request, context, default
        )
        return answer


class _Keys(key_grpc.KeyServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    async def PublishKeys(self, request: key_pb.PublishKeysRequest, context: Context) -> key_pb.PublishKeysResponse:
        default = key_pb.PublishKeysResponse(keys=key_pb.PublishedKeys(envelope=request.envelope))
        answer: key_pb.PublishKeysResponse = await self._server._answer("PublishKeys", request, context, default)
        return answer

    async def ListNodeKeys(self, request: key_pb.ListNodeKeysRequest, context: Context) -> key_pb.ListNodeKeysResponse:
        answer: key_pb.ListNodeKeysResponse = await self._server._answer("ListNodeKeys", request, context)
        return answer


class _Sessions(node_grpc.NodeSessionServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self.sync = SyncSessions()

    async def Connect(
        self, request_iterator: AsyncIterator[pb.ConnectRequest], context: Context
    ) -> AsyncGenerator[pb.ConnectResponse, None]:
        try:
            async with aclosing(self._serve(request_iterator, _token(context))) as messages:
                async for message in messages:
                    yield message
        except VantageError as problem:
            await abort(context, problem)

    async def Sync(self, request: pb.SyncRequest, context: Context) -> pb.SyncResponse:
        self._server.calls["Sync"].append(request)
        token = _token(context)
        try:
            return await self.sync.exchange("the node", request, lambda messages: self._serve(messages, token))
        except VantageError as problem:
            await abort(context, problem)

    async def _serve(
        self, requests: AsyncIterator[pb.ConnectRequest], token: str
    ) -> AsyncGenerator[pb.ConnectResponse, None]:
        if self._server._scripts["Connect"]:
            raise self._server._scripts["Connect"].popleft()
        first = await anext(aiter(requests))
        assert first.HasField("hello"), f"the first message was {first}"  # noqa: S101
        session = ScriptedSession(first.hello, token)
        self._server._sessions.put_nowait(session)

        async def read() -> None:
            try:
                async for message in requests:
                    session._take(message)
            finally:
                session._outgoing.put_nowait(None)

        reader = asyncio.create_task(read())
        try:
            while (message := await session._outgoing.get()) is not None:
                if isinstance(message, VantageError):
                    raise message
                yield message
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
            session._finish()


def _token(context: Context) -> str:
    metadata = {key: str(value) for key, value in context.invocation_metadata() or ()}
    return metadata.get("authorization", "").removeprefix("Bearer ")


class _Registries(registry_grpc.RegistryServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    async def GetPullToken(
        self, request: registry_pb.GetPullTokenRequest, context: Context
    ) -> registry_pb.GetPullTokenResponse:
        answer: registry_pb.GetPullTokenResponse = await self._server._answer("GetPullToken", request, context)
        return answer


class _Payloads(payload_grpc.PayloadServiceServicer):
    """Keeps uploads in memory; ``script("UploadPayload", error)`` breaks one after its first chunk.

    A download likewise; with an event it waits there.
    """

    def __init__(self, server: ScriptedServer) -> None:
        self._server = server
        self._parts: dict[str, bytearray] = {}
        self._done: dict[str, payload_pb.StoredPayload] = {}

    async def GetUpload(self, request: payload_pb.GetUploadRequest, context: Context) -> payload_pb.GetUploadResponse:
        self._server.calls["GetUpload"].append(request)
        part = self._parts.get(request.request_id, bytearray())
        return payload_pb.GetUploadResponse(offset=len(part), payload=self._done.get(request.request_id))

    async def UploadPayload(
        self, request_iterator: AsyncIterator[payload_pb.UploadPayloadRequest], context: Context
    ) -> payload_pb.UploadPayloadResponse:
        requests = aiter(request_iterator)
        header = (await anext(requests)).header
        self._server.calls["UploadPayload"].append(header)
        content = self._parts.setdefault(header.request_id, bytearray())
        assert header.offset == len(content), "the upload does not continue where it was"  # noqa: S101
        problem = self._server._scripts["UploadPayload"]
        async for request in requests:
            content += request.chunk
            if problem:
                await abort(context, problem.popleft())
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        assert digest == header.digest, "the upload has another digest than announced"  # noqa: S101
        stored = payload_pb.StoredPayload(name=f"payloads/{new_id()}", size_bytes=len(content), digest=digest)
        self._done[header.request_id] = stored
        self._server.uploads[stored.name] = bytes(content)
        return payload_pb.UploadPayloadResponse(payload=stored)

    async def DownloadPayload(
        self, request: payload_pb.DownloadPayloadRequest, context: Context
    ) -> AsyncGenerator[payload_pb.DownloadPayloadResponse, None]:
        self._server.calls["DownloadPayload"].append(request)
        content = self._server.downloads[request.name][request.offset :]
        problem = self._server._scripts["DownloadPayload"]
        for start in range(0, len(content), 1000):
            yield payload_pb.DownloadPayloadResponse(chunk=content[start : start + 1000])
            if problem:
                match problem.popleft():
                    case asyncio.Event() as held:
                        await held.wait()
                    case cut:
                        await abort(context, cut)


class _Tasks(task_grpc.TaskServiceServicer):
    def __init__(self, server: ScriptedServer) -> None:
        self._server = server

    async def CreateTask(self, request: task_pb.CreateTaskRequest, context: Context) -> task_pb.CreateTaskResponse:
        answer: task_pb.CreateTaskResponse = await self._server._answer("CreateTask", request, context)
        return answer

    async def GetTask(self, request: task_pb.GetTaskRequest, context: Context) -> task_pb.GetTaskResponse:
        answer: task_pb.GetTaskResponse = await self._server._answer("GetTask", request, context)
        return answer

    async def RunTask(
        self, request: task_pb.RunTaskRequest, context: Context
    ) -> AsyncGenerator[task_pb.RunTaskResponse, None]:
        async for answer in self._server._stream("RunTask", request, context):
            yield answer

    async def WatchTask(
        self, request: task_pb.WatchTaskRequest, context: Context
    ) -> AsyncGenerator[task_pb.WatchTaskResponse, None]:
        async for answer in self._server._stream("WatchTask", request, context):
            yield answer
