"""A server, and a node that reaches it over a way that the test chooses; both in this process, sockets between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from vantage.api.admin.v1 import node_service_pb2, node_service_pb2_grpc
from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.common.backoff import Backoff
from vantage.node import config as node_config
from vantage.node.agent import Agent
from vantage.node.assembly import assemble
from vantage.server.config import ServerConfig
from vantage.testing import inprocess
from vantage.testing.processes import Installation
from vantage.testing.researcher import Researcher
from vantage.testing.server import RunningServer, running_server
from vantage.testing.station import COLLABORATION, IMAGE

NODE = "organizations/clara/nodes/clara-1"
PATIENCE = 60.0


@dataclass
class Outpost:
    """Use ``running``, then ``start_node``.

    Attributes:
        server: without TLS, for a proxy that ends it.
        researcher: asks over a connection of their own.
        said: what the node said on its console.
    """

    server: RunningServer
    installation: Installation
    researcher: Researcher
    said: list[str] = field(default_factory=list)
    agent: Agent | None = None
    _spoke: asyncio.Event = field(default_factory=asyncio.Event)
    _running: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def running(
        cls, directory: Path, *, heartbeat: int = 10, lease: int = 30, **config: Any
    ) -> AsyncIterator[Self]:
        """Set a server up in an empty directory, and end everything in the end.

        Args:
            directory: empty.
            heartbeat: seconds.
            lease: seconds.
            config: of the server.
        """
        settings = ServerConfig(
            stop_grace_seconds=1, trial=True, heartbeat_seconds=heartbeat, lease_seconds=lease, **config
        )
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(running_server(directory / "server", tls=False, config=settings))
            stack.callback(inprocess.gates.clear)
            installation = Installation(directory, False, server.address)
            channel = await stack.enter_async_context(installation.channel())
            await installation._found(channel, server.bootstrap_token, ["clara"])
            outpost = cls(server, installation, Researcher(channel, installation.access_token, COLLABORATION))
            stack.push_async_callback(outpost._stop)
            yield outpost

    async def start_node(self, way: Mapping[str, Any], **settings: Any) -> None:
        """Start the node; returns when it is connected.

        Args:
            way: section ``server`` of its configuration.
            settings: other sections.
        """
        way = {"tls": False, **way}
        self.installation._node("clara", {"server": way, **settings})
        loaded = node_config.load(self.installation.directory / "clara" / "node.yaml")
        self.agent = Agent(loaded, assemble(loaded), backoff=Backoff(base=0.05, cap=0.1), say=self._say)
        self._running = asyncio.create_task(self.agent.run(), name="node")
        async with asyncio.timeout(PATIENCE):
            await self.agent.connected.wait()

    async def heard(self, text: str) -> None:
        """Wait until the node's console has said something."""
        async with asyncio.timeout(PATIENCE):
            while not any(text in line for line in self.said):
                self._spoke.clear()
                await self._spoke.wait()

    def _say(self, text: str) -> None:
        self.said.append(text)
        self._spoke.set()

    def question(self, function: str, **arguments: Any) -> task_service_pb2.RunTaskRequest:
        """What ``ask`` asks."""
        return self.researcher.question(IMAGE, function, arguments)

    async def ask(self, function: str, **arguments: Any) -> task_pb2.Run:
        """Ask the node and return its run as it ended."""
        async with asyncio.timeout(PATIENCE):
            run: task_pb2.Run = await self.researcher.ask(IMAGE, function, arguments)
        return run

    async def create(self, function: str, **arguments: Any) -> str:
        """Ask the node, and return the name of the task at once."""
        asked = self.question(function, **arguments)
        request = task_service_pb2.CreateTaskRequest(request_id=asked.request_id, spec=asked.spec)
        async with self.installation.channel() as channel:
            stub = task_service_pb2_grpc.TaskServiceStub(channel)
            return (await stub.CreateTask(request, metadata=self.installation.metadata)).task.name

    async def cancel(self, task: str) -> None:
        """Cancel a task."""
        async with self.installation.channel() as channel:
            stub = task_service_pb2_grpc.TaskServiceStub(channel)
            await stub.CancelTask(task_service_pb2.CancelTaskRequest(name=task), metadata=self.installation.metadata)

    async def node(self) -> node_service_pb2.Node:
        """What the server shows of the node."""
        async with self.installation.channel() as channel:
            stub = node_service_pb2_grpc.NodeServiceStub(channel)
            request = node_service_pb2.GetNodeRequest(name=NODE)
            return (await stub.GetNode(request, metadata=self.installation.metadata)).node

    async def _stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
