"""A network of real processes, started as an operator starts them: a server, nodes, users; for what must not share one
process with its tests (clients in other languages, measurements, kills)."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import yaml

from vantage.api.admin.v1 import (
    collaboration_service_pb2,
    collaboration_service_pb2_grpc,
    node_service_pb2,
    node_service_pb2_grpc,
    organization_service_pb2,
    organization_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.common import pki
from vantage.common.rpc import ServerTrust, bearer, open_channel
from vantage.server.app import initialize
from vantage.server.certificate import CERTIFICATE_FILE, fingerprint
from vantage.server.config import ServerConfig
from vantage.testing import program as programs
from vantage.testing.ports import free_ports
from vantage.testing.station import COLLABORATION, REPOSITORY

PASSWORD = "correct horse battery staple"  # noqa: S105  # of throw-away servers
RESEARCHER = "rosa"
HOME = "organizations/dora"
"""Organization of the researcher; it has no node."""


class Program:
    """A ``vantage.testing.program.Program`` within an event loop. ``start``, then ``stop`` any number of times.

    Args:
        arguments: what follows the interpreter.
        log: gets everything that it prints.
    """

    def __init__(self, arguments: Sequence[str], log: Path) -> None:
        self._program = programs.Program([sys.executable, *arguments], log)

    @property
    def pid(self) -> int:
        """Of the running process."""
        return self._program.pid

    @property
    def status(self) -> int | None:
        """How it has ended, below zero when a signal has killed it; None while it runs."""
        return self._program.status

    async def start(self, prefix: str) -> str:
        """Start it and return what follows ``prefix`` in the first line that has it.

        Raises:
            AssertionError: it ended, or said nothing in time; the message has the end of the log.
        """
        self._program.start()
        try:
            line = await asyncio.to_thread(self._program.wait_for, prefix)
        except BaseException:
            await self.stop(kill=True)
            raise
        return line.partition(prefix)[2].strip()

    async def said(self, text: str, *, again: bool = False) -> str:
        """Wait until it has said something; once more, if it has said that before. Returns the line.

        Raises:
            AssertionError: it ended, or has not said it in time.
        """
        before = self._program.said.count(text) if again else 0
        return await asyncio.to_thread(self._program.wait_for, text, skip=before)

    async def wait(self) -> int:
        """Wait until it has ended by itself, however long it takes, and return its ``status``."""
        return await asyncio.to_thread(self._program.wait, None)

    def ask_to_end(self) -> None:
        """Send SIGTERM; ``wait`` tells when it has ended."""
        self._program.send(signal.SIGTERM)

    async def stop(self, *, kill: bool = False) -> None:
        """End it; nothing happens when it does not run."""
        await asyncio.to_thread(self._program.kill if kill else self._program.stop)


def program(noun: str, *arguments: str, log: Path, faults: Path | None = None) -> Program:
    """``vantage server …`` or ``vantage node …`` as a process; with the file of its fault points, if it shall have some
    (see ``vantage.testing.fault_points``)."""
    if faults is not None:
        return Program(["-m", "vantage.testing.fault_points", str(faults), noun, *arguments], log)
    return Program(["-c", f"from vantage.{noun}.cli import {noun}; {noun}()", *arguments], log)


@dataclass
class Installation:
    """A network on disk and, while started, in processes.

    Attributes:
        directory: of everything.
        tls: whether clients and nodes use it.
        nodes: programs by the name of their organization.
        data: certificate of the server and so on.
        authority: of the researcher's organization.
        faulty: whether server and nodes have fault points; the files that arm them are ``faults(NAME)``.
    """

    directory: Path
    tls: bool = True
    address: str = ""
    nodes: dict[str, Program] = field(default_factory=dict)
    access_token: str = ""
    root_token: str = ""
    faulty: bool = False

    def __post_init__(self) -> None:
        self.data = self.directory / "server"
        self.certificate = self.data / CERTIFICATE_FILE
        self.server = self._server("127.0.0.1:0")

    def faults(self, name: str) -> Path:
        """The file that arms a fault point of the server (``server``) or of a node (the name of its organization)."""
        return self.directory / f"{name}.fault"

    async def start_server(self) -> None:
        """Start the server, where it was before."""
        self.server = self._server(self.address or "127.0.0.1:0")
        self.address = await self.server.start("ready: ")

    def _server(self, listen: str) -> Program:
        options = ["--data", str(self.data), "--listen", listen, *([] if self.tls else ["--insecure"])]
        faults = self.faults("server") if self.faulty else None
        return program("server", "start", *options, log=self.directory / "server.log", faults=faults)

    @property
    def trust(self) -> ServerTrust | None:
        """How a client recognises the server."""
        return ServerTrust.from_pem(self.certificate.read_bytes()) if self.tls else None

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Of calls by the researcher."""
        return (bearer(self.access_token),)

    def channel(self) -> grpc.aio.Channel:
        """A new channel with a connection of its own; the caller closes it."""
        return open_channel(self.address, self.trust, options=[("grpc.use_local_subchannel_pool", 1)])

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        directory: Path,
        organizations: Sequence[str] = ("clara",),
        *,
        tls: bool = True,
        settings: Mapping[str, Any] | None = None,
        config: ServerConfig | None = None,
        faulty: bool = False,
        way: Callable[[str, str], Awaitable[str]] | None = None,
    ) -> AsyncIterator[Self]:
        """Set up in an empty directory, start everything, stop it in the end.

        Args:
            directory: empty.
            organizations: last parts of the names of those that have a node each.
            tls: with or without.
            settings: changes to the configuration of the nodes, which run ``vantage.testing.inprocess``.
            config: of the server.
            faulty: with fault points.
            way: gets the name of an organization and the server's address and gives the one that its node uses; for
                what stands in between without TLS.
        """
        token = initialize(directory / "server", config or ServerConfig(stop_grace_seconds=1, trial=True))
        (port,) = free_ports()  # it may be killed, and come back
        network = cls(directory, tls, f"127.0.0.1:{port}", faulty=faulty)
        try:
            await network.start_server()
            async with network.channel() as channel:
                await network._found(channel, token, organizations)
            async with asyncio.TaskGroup() as starting:
                for name in organizations:
                    chosen = dict(settings or {})
                    if way is not None:
                        chosen["server"] = {"address": await way(name, network.address), "tls": False}
                    node = network.nodes[name] = network._node(name, chosen)
                    starting.create_task(node.start("ready: "))
            yield network
        finally:
            await network._stop()

    async def _stop(self) -> None:
        """Those that are there in the end; the server last, so that nodes can say their last words."""
        try:
            await asyncio.gather(*(node.stop() for node in self.nodes.values()))
        finally:
            await self.server.stop()

    async def reconfigure(self, organization: str, **settings: Any) -> None:
        """Restart a node with other settings."""
        await self.nodes[organization].stop()
        self.nodes[organization] = self._node(organization, settings)
        await self.nodes[organization].start("ready: ")

    async def _found(self, channel: grpc.aio.Channel, token: str, organizations: Sequence[str]) -> None:
        """Everything that people do once: organizations, a collaboration, nodes, a researcher who logs in."""
        auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        answer = await auth.Bootstrap(
            auth_service_pb2.BootstrapRequest(bootstrap_token=token, username="root", password=PASSWORD)
        )
        self.root_token = answer.tokens.access_token
        root = (bearer(self.root_token),)
        organization = organization_service_pb2_grpc.OrganizationServiceStub(channel)
        self.authority = pki.CertificateAuthority.create(self.directory / "home-ca", HOME)
        await organization.CreateOrganization(
            organization_service_pb2.CreateOrganizationRequest(
                organization_id=HOME.rpartition("/")[2], ca_certificates=[pki.to_pem(self.authority.certificate)]
            ),
            metadata=root,
        )
        for name in organizations:
            authority = pki.CertificateAuthority.create(self.directory / name / "ca", f"organizations/{name}")
            key = pki.create_key()
            pki.write_key(self.directory / name / "node-key.pem", key)
            certificate = authority.issue(f"organizations/{name}/nodes/{name}-1", key.public_key())
            (self.directory / name / "node-cert.pem").write_text(pki.to_pem(certificate))
            await organization.CreateOrganization(
                organization_service_pb2.CreateOrganizationRequest(
                    organization_id=name, ca_certificates=[pki.to_pem(authority.certificate)]
                ),
                metadata=root,
            )
        await collaboration_service_pb2_grpc.CollaborationServiceStub(channel).CreateCollaboration(
            collaboration_service_pb2.CreateCollaborationRequest(
                collaboration_id=COLLABORATION.rpartition("/")[2],
                organizations=[HOME, *(f"organizations/{name}" for name in organizations)],
            ),
            metadata=root,
        )
        for name in organizations:
            await node_service_pb2_grpc.NodeServiceStub(channel).CreateNode(
                node_service_pb2.CreateNodeRequest(
                    organization=f"organizations/{name}", node_id=f"{name}-1", collaborations=[COLLABORATION]
                ),
                metadata=root,
            )
        await user_service_pb2_grpc.UserServiceStub(channel).CreateUser(
            user_service_pb2.CreateUserRequest(
                user_id=RESEARCHER, organization=HOME, roles=["roles/researcher"], password=PASSWORD
            ),
            metadata=root,
        )
        session = await auth.Login(auth_service_pb2.LoginRequest(username=RESEARCHER, password=PASSWORD))
        self.access_token = session.tokens.access_token

    def _node(self, name: str, settings: Mapping[str, Any]) -> Program:
        home = self.directory / name
        server: dict[str, Any] = {"address": self.address, "tls": self.tls}
        if self.tls:
            server["fingerprint"] = fingerprint(self.data)
        configuration = {
            "server": server,
            "identity": {"organization": name, "node": f"{name}-1"},
            "data_dir": "data",
            "executor": "process",
            "allow_unsandboxed": True,
            "process": {"modules": {REPOSITORY: "vantage.testing.inprocess"}},
            "slots": 2,
            **settings,
        }
        # Callers of this network are bare stubs that sign nothing.
        configuration["policy"] = {"allow_unsigned": True, **configuration.get("policy", {})}
        (home / "node.yaml").write_text(yaml.safe_dump(configuration))
        faults = self.faults(name) if self.faulty else None
        return program("node", "start", "--config", str(home / "node.yaml"), log=home / "node.log", faults=faults)
