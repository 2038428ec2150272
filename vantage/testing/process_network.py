"""A whole network of real processes on this machine: one server, a node per organization, set up as its people would.

The counterpart of ``vantage.testing.server``, which keeps the server in the test's own process.
"""

from __future__ import annotations

import asyncio
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import docker
import grpc
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

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
from vantage.node.executor.docker import LABEL_NODE, owner_of
from vantage.testing.engine import leftovers
from vantage.testing.program import Program, vantage
from vantage.testing.researcher import Researcher

PASSWORD = "correct horse battery staple"  # noqa: S105  # of throw-away servers
COLLABORATION = "collaborations/lungs"
RESEARCHER = "rosa"
RESEARCHERS_ORGANIZATION = "organizations/dora"


@dataclass
class NodeStation:
    """The directory of a node, and its process.

    Attributes:
        directory: holds configuration, key, certificate and state.
        settings: what the admin adds to the configuration that ``vantage node init`` made.
    """

    name: str
    directory: Path
    settings: dict[str, Any]
    program: Program

    @property
    def config(self) -> Path:
        """The node's configuration."""
        return self.directory / "node.yaml"

    @property
    def data(self) -> Path:
        """Where the node keeps its state."""
        return self.directory / str(yaml.safe_load(self.config.read_text())["data_dir"])

    def leftovers(self, engine: docker.DockerClient) -> list[str]:
        """What runs have left: containers, and on disk."""
        runs = self.data / "runs"
        on_disk = [str(each) for each in runs.iterdir()] if runs.is_dir() else []
        return [*leftovers(engine, f"{LABEL_NODE}={owner_of(self.data)}"), *on_disk]

    def configure(self, **settings: Any) -> None:
        """Change settings in the configuration, e.g. ``limits={"memory": "64MiB"}``."""
        self.settings |= settings
        written = yaml.safe_load(self.config.read_text())
        self.config.write_text(yaml.safe_dump(written | self.settings))

    def start(self) -> None:
        """Start it; returns when it is connected."""
        self.program.start().wait_for("ready: ")


class ProcessNetwork:
    """Use as a context manager, outside of an event loop.

    Args:
        directory: holds everything.
        datasets: organization -> its CSV file, which nodes offer as "lung".
        settings: of every node, e.g. its policy.

    Attributes:
        nodes: by organization.
        authorities: the organizations' own.
    """

    def __init__(self, directory: Path, datasets: Mapping[str, Path], settings: Mapping[str, Any]) -> None:
        self.directory = directory
        self.data = directory / "server"
        self.address = "127.0.0.1:0"
        self.server = Program([], directory / "server.log")
        self.nodes: dict[str, NodeStation] = {}
        self.authorities: dict[str, pki.CertificateAuthority] = {}
        self._datasets = datasets
        self._settings = settings

    def __enter__(self) -> Self:
        try:
            said = run(*vantage("server", "init", "--trial", "--data", self.data))
            self.fingerprint = _value(said, "fingerprint")
            self.start_server()
            asyncio.run(self._create(_value(said, "bootstrap-token")))
            for organization in self._datasets:
                self.nodes[organization] = self.station(organization, f"{organization}-1")
            for node in self.nodes.values():
                node.program.start()
            for node in self.nodes.values():
                node.program.wait_for("ready: ")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop nodes, then the server; nodes cancel what runs. All are stopped even when one does not want to."""
        with ExitStack() as programs:
            programs.callback(self.server.stop)
            for node in self.nodes.values():
                programs.callback(node.program.stop)
            for node in self.nodes.values():
                node.program.send(signal.SIGTERM)  # once to stop, once more to cancel what runs

    def start_server(self) -> None:
        """Start the server, at the address that it had before; returns when it listens."""
        self.server.command = vantage("server", "start", "--data", self.data, "--listen", self.address)
        self.address = _value(self.server.start().wait_for("ready: "), "ready")

    def station(self, organization: str, name: str) -> NodeStation:
        """Make the directory of a node: init, a certificate of its organization's authority, data and settings."""
        directory = self.directory / name
        init = ("--server", self.address, "--organization", organization, "--node", name)
        run(*vantage("node", "init", directory, *init, "--fingerprint", self.fingerprint))
        full = f"organizations/{organization}/nodes/{name}"
        request = x509.load_pem_x509_csr((directory / "node-cert.csr").read_bytes())
        key = request.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101
        certificate = self.authorities[organization].issue(full, key)
        (directory / "node-cert.pem").write_text(pki.to_pem(certificate))
        dataset = {"name": "lung", "path": str(self._datasets[organization]), "format": "csv"}
        program = Program(vantage("node", "start", "--config", directory / "node.yaml"), directory / "node.log")
        station = NodeStation(full, directory, {}, program)
        station.configure(datasets=[dataset], **self._settings)
        return station

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        """A channel to the server, which is recognised by its fingerprint."""
        trust = await ServerTrust.from_fingerprint(self.address, self.fingerprint)
        channel = open_channel(self.address, trust, options=[("grpc.use_local_subchannel_pool", 1)])
        try:
            yield channel
        finally:
            await channel.close()

    @asynccontextmanager
    async def researcher(self) -> AsyncIterator[Researcher]:
        """The researcher of the organization without data, logged in."""
        async with self.channel() as channel:
            auth = auth_service_pb2_grpc.AuthServiceStub(channel)
            answer = await auth.Login(auth_service_pb2.LoginRequest(username=RESEARCHER, password=PASSWORD))
            yield Researcher(channel, answer.tokens.access_token, COLLABORATION)

    async def _create(self, bootstrap_token: str) -> None:
        async with self.channel() as channel:
            auth = auth_service_pb2_grpc.AuthServiceStub(channel)
            first = auth_service_pb2.BootstrapRequest(
                bootstrap_token=bootstrap_token, username="root", password=PASSWORD
            )
            me = (bearer((await auth.Bootstrap(first)).tokens.access_token),)
            organizations = organization_service_pb2_grpc.OrganizationServiceStub(channel)
            for name in (*self._datasets, RESEARCHERS_ORGANIZATION.partition("/")[2], "outsider"):
                authority = pki.CertificateAuthority.create(self.directory / f"ca-{name}", f"organizations/{name}")
                self.authorities[name] = authority
                await organizations.CreateOrganization(
                    organization_service_pb2.CreateOrganizationRequest(
                        organization_id=name, ca_certificates=[pki.to_pem(authority.certificate)]
                    ),
                    metadata=me,
                )
            members = [*(f"organizations/{name}" for name in self._datasets), RESEARCHERS_ORGANIZATION]
            await collaboration_service_pb2_grpc.CollaborationServiceStub(channel).CreateCollaboration(
                collaboration_service_pb2.CreateCollaborationRequest(
                    collaboration_id=COLLABORATION.partition("/")[2], organizations=members
                ),
                metadata=me,
            )
            await user_service_pb2_grpc.UserServiceStub(channel).CreateUser(
                user_service_pb2.CreateUserRequest(
                    user_id=RESEARCHER,
                    organization=RESEARCHERS_ORGANIZATION,
                    roles=["roles/researcher"],
                    password=PASSWORD,
                ),
                metadata=me,
            )
            for name in self._datasets:
                await node_service_pb2_grpc.NodeServiceStub(channel).CreateNode(
                    node_service_pb2.CreateNodeRequest(
                        organization=f"organizations/{name}", node_id=f"{name}-1", collaborations=[COLLABORATION]
                    ),
                    metadata=me,
                )


def run(*command: str) -> str:
    """Run a command to its end and return what it said.

    Raises:
        AssertionError: it failed; with what it said.
    """
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command[1:6])} ended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _value(text: str, key: str) -> str:
    found = re.search(rf"^{key}: (\S+)", text, re.MULTILINE)
    if found is None:
        raise AssertionError(f"no line {key!r} in:\n{text}")
    return found[1]
