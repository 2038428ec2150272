"""A data station for tests: configuration, identity and data on disk, a node that is started and stopped at will."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import pki
from vantage.common.backoff import Backoff
from vantage.common.names import new_id
from vantage.node import config as node_config
from vantage.node.agent import Agent
from vantage.node.assembly import assemble
from vantage.node.executor.docker import LABEL_NODE, owner_of
from vantage.testing.scripted_server import TIMEOUT, ScriptedServer, ScriptedSession

REPOSITORY = "registry.test/algorithms/inprocess"
IMAGE = f"{REPOSITORY}@sha256:{'a' * 64}"
COLLABORATION = "collaborations/trial"
ORGANIZATION = "organizations/clara"
NODE = f"{ORGANIZATION}/nodes/clara-1"


@dataclass
class Station:
    """A data station on disk: configuration, key, certificate, data; and its node, started and stopped at will."""

    directory: Path
    server: ScriptedServer
    settings: dict[str, Any]
    said: list[str] = field(default_factory=list)
    _spoke: asyncio.Event = field(default_factory=asyncio.Event)

    @classmethod
    def create(cls, directory: Path, server: ScriptedServer) -> Station:
        """Set a station up in an empty directory."""
        authority = pki.CertificateAuthority.create(directory / "ca", ORGANIZATION)
        key = pki.create_key()
        pki.write_key(directory / "node-key.pem", key)
        (directory / "node-cert.pem").write_text(pki.to_pem(authority.issue(NODE, key.public_key())))
        (directory / "lung.csv").write_text("time,status\n1,0\n2,1\n3,1\n")
        return cls(
            directory,
            server,
            {
                "server": {"address": "", "tls": False},
                "identity": {"organization": "clara", "node": "clara-1"},
                "data_dir": "data",
                "datasets": [{"name": "lung", "path": "lung.csv", "format": "csv"}],
                "executor": "process",
                "allow_unsandboxed": True,
                "process": {"modules": {REPOSITORY: "vantage.testing.inprocess"}},
                "slots": 2,
            },
        )

    @property
    def config_path(self) -> Path:
        """The node's configuration."""
        return self.directory / "node.yaml"

    @property
    def runs(self) -> list[Path]:
        """What runs have left on disk."""
        directory = self.directory / "data" / "runs"
        return list(directory.iterdir()) if directory.is_dir() else []

    @property
    def label(self) -> str:
        """What its containers carry in the engine."""
        return f"{LABEL_NODE}={owner_of(self.directory / 'data')}"

    async def heard(self, text: str, times: int = 1) -> None:
        """Wait until the node's console has said something, so many times."""
        async with asyncio.timeout(TIMEOUT):
            while sum(text in line for line in self.said) < times:
                self._spoke.clear()
                await self._spoke.wait()

    def _say(self, text: str) -> None:
        self.said.append(text)
        self._spoke.set()

    def write(self) -> Path:
        """Write the settings to the configuration."""
        self.settings["server"]["address"] = self.server.address
        # The scripted server signs nothing, unless a test says so.
        self.settings["policy"] = {"allow_unsigned": True, **self.settings.get("policy", {})}
        self.config_path.write_text(yaml.safe_dump(self.settings))
        return self.config_path

    def agent(self) -> Agent:
        """A node that is not running yet."""
        loaded = node_config.load(self.write())
        return Agent(loaded, assemble(loaded), backoff=Backoff(base=0.01, cap=0.1), say=self._say)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Agent]:
        """The node, killed at the end: what is said last is not waited for."""
        agent = self.agent()
        task = asyncio.create_task(agent.run())
        try:
            yield agent
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def session(self, **welcome: Any) -> ScriptedSession:
        """Take the node's next session and welcome it."""
        session = await self.server.accept()
        session.welcome(COLLABORATION, **welcome)
        return session


def assign(
    function: str = "echo",
    arguments: str = '{"value": 1}',
    *,
    attempt: int = 1,
    datasets: dict[str, str] | None = None,
    seconds: float = 60,
    **changes: Any,
) -> pb.Assign:
    """An assignment as a server sends it."""
    message = pb.Assign(
        lease=pb.Lease(run=f"tasks/{new_id()}/runs/{new_id()}", lease_id=new_id(), attempt=attempt),
        spec=task_pb2.TaskSpec(
            collaboration=COLLABORATION,
            image=changes.get("image", IMAGE),
            function=function,
            targets=[
                task_pb2.Target(
                    organization=ORGANIZATION,
                    arguments=types_pb2.Payload(media_type="application/json", inline=arguments.encode()),
                    datasets=[
                        task_pb2.DatasetBinding(parameter=parameter, dataset=name)
                        for parameter, name in (datasets or {}).items()
                    ],
                )
            ],
        ),
        creator=changes.get("creator", "users/alice"),
        creator_organization=changes.get("creator_organization", "organizations/dora"),
        organizations=[ORGANIZATION, "organizations/dora"],
    )
    if "collaboration" in changes:
        message.spec.collaboration = changes["collaboration"]
    message.deadline.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return message


def send(session: ScriptedSession, message: pb.Assign) -> pb.Lease:
    """Give the node a run."""
    session.send(pb.ConnectResponse(assign=message))
    return message.lease
