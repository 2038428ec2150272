"""Server and nodes in this process, real sockets between them, and runs whose doors the test holds."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.api.types.v1 import types_pb2
from vantage.client import AsyncClient, Identity
from vantage.client.keyring import KeyFiles
from vantage.common import pki
from vantage.common.backoff import Backoff
from vantage.common.trust import TrustStore
from vantage.node import config as node_config
from vantage.node.agent import Agent
from vantage.node.assembly import assemble
from vantage.node.door import RunCallbacks
from vantage.server.config import ServerConfig
from vantage.testing import doors
from vantage.testing.processes import HOME, RESEARCHER, Installation
from vantage.testing.server import PASSWORD, RunningServer, running_server
from vantage.testing.station import COLLABORATION, IMAGE, REPOSITORY

PATIENCE = 30.0
ALLOWED: dict[str, Any] = {"policy": {"peers": True, "pin_peer_authorities": True}, "slots": 10}


class PeerNetwork:
    """Use ``running``.

    Attributes:
        agents: by the last part of their organization's name.
    """

    def __init__(
        self, server: RunningServer, installation: Installation, way: str = "", transport: str = "auto"
    ) -> None:
        self.server = server
        self.installation = installation
        self._server = {"address": way, "tls": False, "transport": transport} if way else None
        self.agents: dict[str, Agent] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        directory: Path,
        organizations: Sequence[str],
        *,
        settings: Mapping[str, Mapping[str, Any]] | None = None,
        config: ServerConfig | None = None,
        tls: bool = True,
        way: Callable[[str], Awaitable[str]] | None = None,
        transport: str = "auto",
    ) -> AsyncIterator[PeerNetwork]:
        """Set up in an empty directory, start everything, stop it in the end.

        Args:
            directory: empty.
            organizations: last parts of the names of those that have a node each.
            settings: by organization, instead of ``ALLOWED``.
            config: of the server.
            tls: between nodes and server.
            way: gets the server's address and gives the one that the nodes use; for what stands in between without TLS.
            transport: as nodes are configured, for those that have such a way.
        """
        async with AsyncExitStack() as stack:
            server = await stack.enter_async_context(
                running_server(
                    directory / "server", tls=tls, config=config or ServerConfig(stop_grace_seconds=1, trial=True)
                )
            )
            stack.callback(doors.forget)
            installation = Installation(directory, tls, server.address)
            async with installation.channel() as channel:
                await installation._found(channel, server.bootstrap_token, organizations)
            network = cls(server, installation, "" if way is None else await way(server.address), transport)
            stack.push_async_callback(network._stop)
            for name in organizations:
                chosen = dict((settings or {}).get(name, ALLOWED))
                network._start(name, chosen)
            async with asyncio.timeout(PATIENCE):
                for agent in network.agents.values():
                    await agent.connected.wait()
            yield network

    @asynccontextmanager
    async def signing_client(self, directory: Path) -> AsyncIterator[AsyncClient]:
        """The researcher's, logged in, with keys that her organization certifies; it trusts whom it sees first.

        Args:
            directory: for keys and trust.
        """
        files = KeyFiles(directory / "keys")
        request = pki.load_request(files.create(f"{HOME}/users/{RESEARCHER}").read_bytes())
        files.install(pki.to_pem(self.installation.authority.issue(request.name, request.public_key)).encode())
        identity = Identity(files.open(), TrustStore(directory / "trust", first_use=True))
        async with AsyncClient.connect(
            self.server.address, fingerprint=self.server.fingerprint, identity=identity
        ) as client:
            await client.auth.login(RESEARCHER, PASSWORD)
            yield client

    async def ask(self, *organizations: str, key: str = "") -> dict[str, RunCallbacks]:
        """Create a task and return the doors of its runs by organization, once all have begun."""
        await self.create(*organizations, key=key)
        return {each: await self.door(each, key) for each in organizations}

    async def door(self, organization: str, key: str = "") -> RunCallbacks:
        """The door of a run of a task that was created with this key."""
        async with asyncio.timeout(PATIENCE):
            return (await doors.lent(f"{key}{organization}").door).callbacks

    def end(self, organization: str, key: str = "") -> None:
        """Let a run end."""
        doors.lent(f"{key}{organization}").back.set()

    async def create(self, *organizations: str, key: str = "") -> task_pb2.Task:
        """Create a task of one run per organization."""
        spec = task_pb2.TaskSpec(collaboration=COLLABORATION, image=IMAGE, function="lend")
        for each in organizations:
            content = f'{{"name": "{key}{each}"}}'.encode()
            arguments = types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_NONE, inline=content)
            spec.targets.add(organization=f"organizations/{each}", arguments=arguments)
        async with self.installation.channel() as channel:
            answer = await task_service_pb2_grpc.TaskServiceStub(channel).CreateTask(
                task_service_pb2.CreateTaskRequest(request_id=str(uuid.uuid4()), spec=spec),
                metadata=self.installation.metadata,
            )
        return answer.task

    async def kill(self, organization: str) -> None:
        """End a node without a word."""
        task = self._running.pop(organization)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    def _start(self, name: str, settings: dict[str, Any]) -> None:
        modules = {"process": {"modules": {REPOSITORY: "vantage.testing.doors"}}}
        between = {} if self._server is None else {"server": self._server}
        self.installation._node(name, {**modules, **between, **settings})
        loaded = node_config.load(self.installation.directory / name / "node.yaml")
        agent = Agent(loaded, assemble(loaded), backoff=Backoff(base=0.05, cap=0.1), say=lambda text: None)
        self.agents[name] = agent
        self._running[name] = asyncio.create_task(agent.run(), name=name)

    async def _stop(self) -> None:
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
