"""Who is not let in, and what servers and nodes say that cannot start: one line for the person who can mend it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.common import pki
from vantage.common.errors import Reason
from vantage.common.rpc import bearer, error_from_rpc
from vantage.testing.process_network import RESEARCHER, NodeStation, ProcessNetwork
from vantage.testing.program import Program, vantage

pytestmark = pytest.mark.docker  # the nodes of the network need an engine

IMAGE = "127.0.0.1:1/algorithms/none@sha256:" + "0" * 64
FAILURE, USAGE, NOT_ADMITTED = 1, 2, 3


async def reason(call: Any) -> Reason:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return error_from_rpc(caught.value).reason


async def test_a_wrong_password_opens_nothing(network: ProcessNetwork) -> None:
    async with network.channel() as channel:
        auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        for name in (RESEARCHER, "nobody"):
            request = auth_service_pb2.LoginRequest(username=name, password="wrong")
            assert await reason(auth.Login(request)) is Reason.CREDENTIALS_INVALID


async def test_a_forged_token_opens_nothing(network: ProcessNetwork) -> None:
    async with network.researcher() as researcher, network.channel() as channel:
        genuine = researcher.metadata[0][1].removeprefix("Bearer ")
        claims = jwt.decode(genuine, options={"verify_signature": False})
        key = ec.generate_private_key(ec.SECP256R1())
        header, body, signature = genuine.split(".")
        forged = [
            jwt.encode(claims, key, algorithm="ES256"),
            jwt.encode(claims, "", algorithm="none"),
            jwt.encode(claims, network.fingerprint, algorithm="HS256"),
            jwt.encode(claims | {"exp": int(time.time()) + 10**6}, key, algorithm="ES256").rpartition(".")[0]
            + f".{signature}",
            f"{header}.{body}.{signature[:-4]}AAAA",
            f"{header}.{body}.",
            "not-a-token",
        ]
        auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        ask = auth_service_pb2.GetPrincipalRequest()
        for token in forged:
            assert await reason(auth.GetPrincipal(ask, metadata=(bearer(token),))) is Reason.TOKEN_INVALID
        assert (await auth.GetPrincipal(ask, metadata=researcher.metadata)).name == f"users/{RESEARCHER}"


async def test_an_organization_outside_the_collaboration_is_not_asked(network: ProcessNetwork) -> None:
    async with network.researcher() as researcher:
        question = researcher.question(IMAGE, "echo", to=["clara", "outsider"])
        assert await reason(researcher.events(question)) is Reason.ORGANIZATION_NOT_MEMBER
        question.spec.collaboration = "collaborations/secret"
        assert await reason(researcher.events(question)) is Reason.PERMISSION_DENIED  # whether it exists is not said


@pytest.fixture
def newcomer(network: ProcessNetwork) -> Iterator[NodeStation]:
    """A node of clara that nobody has created at the server, in a directory of its own."""
    directory = network.directory / "clara-9"
    station = network.station("clara", "clara-9")
    yield station
    station.program.stop()
    for each in directory.iterdir():
        if each.is_file():
            each.unlink()


def certify(station: NodeStation, authority: pki.CertificateAuthority, name: str) -> None:
    request = x509.load_pem_x509_csr((station.directory / "node-cert.csr").read_bytes())
    key = request.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    (station.directory / "node-cert.pem").write_text(pki.to_pem(authority.issue(name, key)))


def test_a_node_that_was_not_created_is_told_so(newcomer: NodeStation) -> None:
    assert newcomer.program.start().wait() == NOT_ADMITTED
    assert "clara-9 is not known here" in newcomer.program.said
    assert "PRINCIPAL_UNKNOWN" in newcomer.program.said


def test_a_node_with_a_certificate_of_another_organization_does_not_start(
    newcomer: NodeStation, network: ProcessNetwork
) -> None:
    certify(newcomer, network.authorities["hilda"], "organizations/hilda/nodes/clara-9")
    assert newcomer.program.start().wait() == FAILURE
    assert "organizations/hilda/nodes/clara-9" in newcomer.program.said


def test_an_authority_that_calls_itself_clara_is_not_believed(
    newcomer: NodeStation, network: ProcessNetwork, tmp_path: Path
) -> None:
    impostor = pki.CertificateAuthority.create(tmp_path / "impostor", "organizations/clara")
    certify(newcomer, impostor, newcomer.name)
    assert newcomer.program.start().wait() == NOT_ADMITTED
    assert "CERTIFICATE_UNTRUSTED" in newcomer.program.said


def test_a_malformed_configuration_is_shown_with_its_line(newcomer: NodeStation, tmp_path: Path) -> None:
    text = newcomer.config.read_text()
    for broken, hint in ((text + "slots: [\n", "node.yaml:"), (text + "slotz: 3\n", "slotz")):
        newcomer.config.write_text(broken)
        assert newcomer.program.start().wait() == USAGE
        assert hint in newcomer.program.said
        assert "Traceback" not in newcomer.program.said


def test_a_server_with_a_malformed_configuration_says_what_is_wrong(tmp_path: Path) -> None:
    data = tmp_path / "server"
    assert Program(vantage("server", "init", "--trial", "--data", data), tmp_path / "log").start().wait() == 0
    for broken, hint in (("listen: [\n", "server.yaml"), ("lease_seconds: soon\n", "lease_seconds")):
        (data / "server.yaml").write_text(broken)
        program = Program(vantage("server", "start", "--data", data), tmp_path / "log").start()
        assert program.wait() in (FAILURE, USAGE)
        assert hint in program.said
        assert "Traceback" not in program.said


def test_a_port_in_use_is_said(network: ProcessNetwork, tmp_path: Path) -> None:
    data = tmp_path / "server"
    assert Program(vantage("server", "init", "--trial", "--data", data), tmp_path / "log").start().wait() == 0
    command = vantage("server", "start", "--data", data, "--listen", network.address)
    program = Program(command, tmp_path / "log").start()
    assert program.wait() in (FAILURE, USAGE)
    assert f"cannot listen on {network.address}: is the port in use?" in program.said
    assert "Traceback" not in program.said
