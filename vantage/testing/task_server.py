"""Tasks, sessions and payloads behind a real grpc.aio server, with callers named by the test instead of by tokens.

The narrow harness of the task path; the whole server is in ``vantage.testing.server``.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from sqlalchemy import insert

from vantage.api.node.v1 import node_session_service_pb2_grpc
from vantage.api.payload.v1 import payload_service_pb2_grpc
from vantage.api.relay.v1 import relay_broker_service_pb2_grpc
from vantage.api.task.v1 import task_pb2, task_service_pb2_grpc
from vantage.api.types.v1 import types_pb2
from vantage.common.clock import ManualClock
from vantage.common.errors import VantageError
from vantage.common.payload_frames import add_payload_service
from vantage.common.rpc import CHANNEL_OPTIONS, abort
from vantage.server.config import ServerConfig
from vantage.server.domain.contents import Quota
from vantage.server.domain.permissions import rights_of
from vantage.server.domain.principals import NodePrincipal, Principal, UserPrincipal
from vantage.server.domain.roles import ROLES
from vantage.server.domain.session import SessionSettings
from vantage.server.events.bus import Bus
from vantage.server.payloads.files import PayloadFiles
from vantage.server.payloads.store import PayloadStore
from vantage.server.relaying import Relaying
from vantage.server.rpc.context import set_principal
from vantage.server.rpc.node_session import NodeSessionServicer
from vantage.server.rpc.payloads import PayloadServicer
from vantage.server.rpc.tasks import TaskServicer
from vantage.server.services.commits import Commits
from vantage.server.services.payload_collection import PayloadCollection
from vantage.server.services.payloads import Payloads
from vantage.server.services.retries import Retries
from vantage.server.services.sessions import Sessions
from vantage.server.services.tasks import Tasks
from vantage.server.services.waits import WaitNews, Waits
from vantage.server.storage import schema, task_schema  # noqa: F401  # the tables join the metadata
from vantage.server.storage.database import Database, sqlite_engine
from vantage.testing.scripted_node import ScriptedNode

COLLABORATION = "collaborations/lungs"
ORGANIZATIONS = ("organizations/alpha", "organizations/beta", "organizations/gamma")
IMAGE = "registry.example:5000/summary@sha256:" + "ab" * 32
LIMIT = 4_096


def user(name: str, role: str, organization: str = "organizations/alpha", *collaborations: str) -> UserPrincipal:
    return UserPrincipal(
        f"users/{name}",
        organization,
        frozenset({f"roles/{role}"}),
        "session",
        frozenset(collaborations or {COLLABORATION}),
        rights_of(ROLES[f"roles/{role}"].permissions),
    )


def node(name: str, organization: str) -> NodePrincipal:
    return NodePrincipal(f"{organization}/nodes/{name}", organization, frozenset({COLLABORATION}))


_PRINCIPALS: tuple[Principal, ...] = (
    user("rosa", "researcher"),
    user("otto", "researcher", "organizations/beta"),
    user("olga", "researcher", "organizations/beta"),
    user("vera", "viewer"),
    user("stranger", "researcher", "organizations/delta", "collaborations/other"),
    *(node("one", organization) for organization in ORGANIZATIONS),
    node("two", "organizations/alpha"),
)
PRINCIPALS = {each.name: each for each in _PRINCIPALS}


class As(grpc.aio.ServerInterceptor):
    """Takes the caller's name from the metadata and turns errors into statuses, as the real interceptors do."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        details: grpc.HandlerCallDetails,
    ) -> Any:
        handler: Any = await continuation(details)
        principal = PRINCIPALS[str(dict(details.invocation_metadata)["x-as"])]

        def one(behaviour: Any) -> Any:
            @functools.wraps(behaviour)
            async def call(request: Any, context: Any) -> Any:
                set_principal(principal)
                try:
                    return await behaviour(request, context)
                except VantageError as problem:
                    await abort(context, problem)

            return call

        def many(behaviour: Any) -> Any:
            @functools.wraps(behaviour)
            async def call(request: Any, context: Any) -> AsyncIterator[Any]:
                set_principal(principal)
                try:
                    async for response in behaviour(request, context):
                        yield response
                except VantageError as problem:
                    await abort(context, problem)

            return call

        kind = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary, one),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream, many),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary, one),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream, many),
        }[handler.request_streaming, handler.response_streaming]
        make, behaviour, wrap = kind
        return make(wrap(behaviour), handler.request_deserializer, handler.response_serializer)


class Network:
    """A server that can be stopped and started again on the same data."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = ManualClock(datetime(2026, 11, 1, tzinfo=UTC))
        self.config = ServerConfig()
        self.session_settings = SessionSettings()
        self.store: PayloadStore = PayloadFiles(directory / "payloads")
        self.payload_quota = Quota()
        self.sync = False
        self.interceptors: list[grpc.aio.ClientInterceptor] = []
        self._channels: list[grpc.aio.Channel] = []
        engine = sqlite_engine(directory / "server.db")
        schema.metadata.create_all(engine, tables=[*schema.metadata.tables.values()])
        now = self.clock.now()
        with engine.begin() as connection:
            for organization in ORGANIZATIONS:
                connection.execute(
                    insert(schema.organization).values(name=organization, display_name=organization, created=now)
                )
            connection.execute(
                insert(schema.collaboration).values(
                    name=COLLABORATION, display_name="Lungs", creator="users/rosa", created=now
                )
            )
            for organization in ORGANIZATIONS:
                connection.execute(insert(schema.member).values(collaboration=COLLABORATION, organization=organization))
            for name in PRINCIPALS:
                organization, nodes, _node = name.partition("/nodes/")
                if nodes:
                    row = insert(schema.node).values(name=name, organization=organization, created=now)
                    connection.execute(row)
                    connection.execute(insert(schema.node_collaboration).values(node=name, collaboration=COLLABORATION))
        engine.dispose()

    async def start(self) -> None:
        self.database = Database(self.directory / "server.db")
        self.bus = Bus()
        self.commits = Commits(self.database)
        self.retries = Retries(self.commits, self.clock)
        self.sessions = Sessions(self.commits, self.clock, self.bus, self.session_settings)
        waits = Waits(self.database, self.sessions)
        self.wait_news = WaitNews(self.database, self.bus, self.clock)
        self.sessions.on_attendance = self.wait_news.changed
        self.tasks = Tasks(self.commits, self.clock, self.bus, waits)
        self.collection = PayloadCollection(self.database, self.store, self.clock)
        self.payloads = Payloads(
            self.database, self.store, self.collection, self.clock, 8 * 1024 * 1024, self.payload_quota
        )
        await self.collection.start()
        self.relaying = Relaying(self.directory, self.config, self.clock, self.commits, self.sessions)
        await self.relaying.start()
        await self.tasks.start()
        await self.sessions.start()
        await self.retries.start()
        await self.wait_news.start()
        self.server = grpc.aio.server(interceptors=[As()], options=CHANNEL_OPTIONS)
        task_service_pb2_grpc.add_TaskServiceServicer_to_server(
            TaskServicer(self.tasks, self.sessions, waits, LIMIT), self.server
        )
        self.node_sessions = NodeSessionServicer(self.sessions)
        node_session_service_pb2_grpc.add_NodeSessionServiceServicer_to_server(self.node_sessions, self.server)
        add_payload_service(PayloadServicer(self.payloads), self.server)
        self.relaying.add_to(self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        await self.server.start()

    async def stop(self) -> None:
        for channel in self._channels:
            await channel.close()
        self._channels = []
        await self.relaying.stop()
        await self.retries.stop()
        await self.wait_news.stop()
        await self.sessions.stop()
        await self.tasks.stop()
        await self.server.stop(1)
        await self.node_sessions.stop()
        await self.collection.stop()
        await self.database.close()

    def channel(self) -> grpc.aio.Channel:
        # A connection of its own for each, as in life: one that breaks breaks alone.
        channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.port}",
            options=[*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)],
            interceptors=self.interceptors,
        )
        self._channels.append(channel)
        return channel

    def stub(self) -> task_service_pb2_grpc.TaskServiceStub:
        return task_service_pb2_grpc.TaskServiceStub(self.channel())

    def payload_stub(self) -> payload_service_pb2_grpc.PayloadServiceStub:
        return payload_service_pb2_grpc.PayloadServiceStub(self.channel())

    def broker(self) -> relay_broker_service_pb2_grpc.RelayBrokerServiceStub:
        return relay_broker_service_pb2_grpc.RelayBrokerServiceStub(self.channel())

    def node(self, name: str = "organizations/alpha/nodes/one") -> ScriptedNode:
        return ScriptedNode(self.channel(), as_(name), sync=self.sync)

    def advance(self, by: timedelta) -> None:
        """Let time pass, and let what waits for a moment look at the clock."""
        self.clock.advance(by)
        self._wake()

    def jump(self, by: timedelta) -> None:
        """Set the time of day, as a time server does, and let what waits for a moment look at the clock."""
        self.clock.jump(by)
        self._wake()

    def _wake(self) -> None:
        self.tasks.deadlines.wake()
        self.sessions.leases.wake()
        self.retries.timers.wake()
        self.collection.timers.wake()


def as_(name: str) -> tuple[tuple[str, str], ...]:
    return (("x-as", name),)


ROSA = as_("users/rosa")


def spec(*organizations: str, **fields: Any) -> task_pb2.TaskSpec:
    """A question to organizations, alpha alone unless given."""
    message = task_pb2.TaskSpec(**{"collaboration": COLLABORATION, "image": IMAGE, "function": "summary", **fields})
    for organization in organizations or ("organizations/alpha",):
        target = message.targets.add(organization=organization)
        target.arguments.CopyFrom(
            types_pb2.Payload(
                media_type="application/json", sealing=types_pb2.SEALING_NONE, inline=b'{"column": "age"}'
            )
        )
    return message


def request_id() -> str:
    return str(uuid.uuid4())
