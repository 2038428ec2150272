"""Tokens of the server at a real registry: it takes them for pulling, for five minutes, for one repository."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import grpc
import jwt
import pytest
import pytest_asyncio
from click.testing import CliRunner
from cryptography import x509

from tests.rpc.access.world import World
from vantage.__main__ import vantage
from vantage.api.node.v1 import registry_service_pb2 as pb
from vantage.api.node.v1 import registry_service_pb2_grpc
from vantage.common import oci, pki
from vantage.common.clock import ManualClock
from vantage.common.errors import Reason, VantageError
from vantage.common.oci import ImageReference, RegistryAccess
from vantage.common.rpc import error_from_rpc
from vantage.node.connection import Connection
from vantage.node.images.tokens import ServerTokens
from vantage.server.app import initialize
from vantage.server.config import RegistryEntry, ServerConfig
from vantage.server.domain.pull_tokens import LIFETIME, PullTokens
from vantage.server.registry_certificate import CERTIFICATE_FILE, KEY_FILE, pull_tokens
from vantage.testing.engine import docker_client
from vantage.testing.layered_images import Build, Layer, push_build
from vantage.testing.registry import Registry, TokenTrust
from vantage.testing.server import running_server

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]

PATH = "algorithms/summary"
SERVICE = "test-registry"
Ask = Callable[[str, str], Awaitable[str]]


@dataclass
class Scene:
    """A server, a registry that trusts it, and a node."""

    data: Path
    registry: Registry
    image: ImageReference
    other: ImageReference
    node: str
    ask: Ask
    connection: Connection

    def shown(self, token: str) -> RegistryAccess:
        """Access with one token, whatever is asked for."""

        async def given(_registry: str, _path: str) -> str:
            return token

        return RegistryAccess(tokens=given)

    async def answer(self, token: str, image: ImageReference | None = None) -> Reason | None:
        """Why the registry does not let one pull with a token; None when it does."""
        named = image or self.image
        try:
            async with oci.connect(named.registry, named.path, self.shown(token)) as connection:
                found = await connection.manifest(named.digest)
                assert found is not None
                assert await connection.blob(found[1]["config"]["digest"]) is not None
        except VantageError as problem:
            return problem.reason if "does not accept the credentials" in problem.message else Reason.INTERNAL
        return None


class Admitted(Connection):
    """The way of a node to its server, after it has proved who it is."""

    def __init__(self, channel: grpc.aio.Channel, metadata: tuple[tuple[str, str], ...]) -> None:
        self._opened, self._shown = channel, metadata

    async def channel(self) -> grpc.aio.Channel:
        return self._opened

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        return self._shown


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    directory = tmp_path_factory.mktemp("tokens")
    with Registry(directory / "registry") as filling:
        pushed = [
            await push_build(filling.address, path, Build([Layer.of({"a": path.encode()})]))
            for path in (PATH, "secret/summary")
        ]
    data = directory / "server"
    initialize(data, ServerConfig(stop_grace_seconds=1))
    # As an operator does it.
    done = CliRunner().invoke(vantage, ["server", "registry-certificate", "--data", str(data)])
    assert done.exit_code == 0, done.output
    (directory / "vantage.crt").write_text(done.stdout)
    trust = TokenTrust(directory / "vantage.crt", "vantage", SERVICE, "https://vantage.invalid/token")
    with Registry(directory / "registry", tokens=trust) as registry:
        entry = RegistryEntry(address=registry.address, repositories=("algorithms/*",), service=SERVICE)
        config = ServerConfig(stop_grace_seconds=1, registries=(entry,))
        async with running_server(data, config=config) as server:
            world = await World.make(server)
            node = world.caller("node")
            await world.admit(node)
            stub = registry_service_pb2_grpc.RegistryServiceStub(world.channel)

            async def ask(address: str, repository: str) -> str:
                request = pb.GetPullTokenRequest(registry=address, repository=repository)
                answer = await stub.GetPullToken(request, metadata=node.metadata)
                assert answer.lifetime.ToTimedelta() == LIFETIME
                return answer.token

            image, other = (ImageReference(registry.address, each.path, each.digest) for each in pushed)
            connection = Admitted(world.channel, node.metadata)
            yield Scene(data, registry, image, other, node.name, ask, connection)


async def test_a_node_pulls_with_it(scene: Scene) -> None:
    assert await scene.answer(await scene.ask(scene.registry.address, PATH)) is None
    # The whole of it, as a node does: asked for when the registry wants one.
    tokens = ServerTokens()
    tokens.through(scene.connection)
    async with oci.connect(scene.registry.address, PATH, RegistryAccess(tokens=tokens)) as connection:
        assert await connection.manifest(scene.image.digest) is not None
    # In its mirror's place, by the name that it has there.
    mirrored = RegistryAccess(tokens=tokens, mirror=f"{scene.registry.address}/algorithms")
    async with oci.connect("registry.example.org", "summary", mirrored) as connection:
        assert await connection.manifest(scene.image.digest) is not None
    async with oci.connect(scene.registry.address, "secret/summary", RegistryAccess(tokens=tokens)) as connection:
        with pytest.raises(VantageError, match="gives no tokens") as caught:
            await connection.manifest(scene.other.digest)
    assert caught.value.reason is Reason.REGISTRY_UNAVAILABLE


async def test_an_engine_takes_it_as_well(scene: Scene) -> None:
    token = await scene.ask(scene.registry.address, PATH)
    with docker_client() as engine:

        def refusals(**identity: Any) -> list[str]:
            pull: Any = engine.api.pull
            try:
                said = list(pull(scene.image.repository, tag=scene.image.digest, stream=True, decode=True, **identity))
            except docker.errors.APIError as problem:
                return [str(problem)]
            return [each["error"] for each in said if "error" in each]

        assert refusals() != []
        assert refusals(auth_config={"registrytoken": token}) == []
        engine.images.remove(str(scene.image))


async def test_it_says_no_more_than_it_must_and_is_signed_by_the_certificate(scene: Scene) -> None:
    token = await scene.ask(scene.registry.address, PATH)
    certificate = x509.load_pem_x509_certificate((scene.data / CERTIFICATE_FILE).read_bytes())
    key: Any = certificate.public_key()
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=SERVICE, issuer="vantage")
    assert claims["sub"] == scene.node
    assert claims["access"] == [{"type": "repository", "name": PATH, "actions": ["pull"]}]
    assert claims["exp"] - claims["iat"] == 300
    assert set(claims) == {"iss", "sub", "aud", "iat", "nbf", "exp", "jti", "access"}
    assert jwt.get_unverified_header(token)["alg"] == "ES256"
    again = await scene.ask(scene.registry.address, PATH)
    assert jwt.decode(again, options={"verify_signature": False})["jti"] != claims["jti"]
    assert (scene.data / KEY_FILE).stat().st_mode & 0o777 == 0o600


async def test_nothing_can_be_pushed_with_it(scene: Scene) -> None:
    token = await scene.ask(scene.registry.address, PATH)
    async with oci.connect(scene.registry.address, PATH, scene.shown(token)) as connection:
        for attempt in (
            connection.put_blob(b"content"),
            connection.put_manifest("latest", {"schemaVersion": 2, "mediaType": oci.MANIFEST_TYPES[0]}),
        ):
            with pytest.raises(VantageError, match="does not accept the credentials"):
                await attempt


async def test_it_opens_no_other_repository(scene: Scene) -> None:
    token = await scene.ask(scene.registry.address, PATH)
    assert await scene.answer(token, scene.other) is Reason.REGISTRY_UNAVAILABLE


@pytest.mark.parametrize(
    ("registry", "repository", "reason"),
    [
        ("", "secret/summary", Reason.NOT_FOUND),
        ("", "algorithms/a/b", Reason.NOT_FOUND),
        ("other.example.org", PATH, Reason.NOT_FOUND),
        ("", "algorithms/../secret", Reason.INVALID_ARGUMENT),
        ("", "algorithms/" + "a" * 300, Reason.INVALID_ARGUMENT),
        ("", "", Reason.INVALID_ARGUMENT),
    ],
)
async def test_there_is_none_for_what_the_operator_did_not_name(
    scene: Scene, registry: str, repository: str, reason: Reason
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await scene.ask(registry or scene.registry.address, repository)
    assert error_from_rpc(caught.value).reason is reason


async def test_an_old_one_is_refused(scene: Scene) -> None:
    """The registry allows its clock a minute."""
    now = datetime.now(UTC)
    for age, reason in ((timedelta(minutes=4), None), (timedelta(minutes=7), Reason.REGISTRY_UNAVAILABLE)):
        tokens = pull_tokens(scene.data, ManualClock(now - age))
        assert await scene.answer(tokens.issue("organizations/a/nodes/b", "vantage", SERVICE, PATH)) is reason


async def test_one_of_somebody_else_is_refused(scene: Scene) -> None:
    genuine, key = pull_tokens(scene.data, ManualClock(datetime.now(UTC))), pki.create_key()
    forged = PullTokens(key, genuine.certificate, genuine.clock)
    stranger = PullTokens(key, pki.self_signed(key, "organizations/a", datetime.now(UTC)), genuine.clock)
    for tokens, issuer, service in (
        (genuine, "other", SERVICE),
        (genuine, "vantage", "other"),
        (forged, "vantage", SERVICE),
        (stranger, "vantage", SERVICE),
    ):
        token = tokens.issue("organizations/a/nodes/b", issuer, service, PATH)
        assert await scene.answer(token) is Reason.REGISTRY_UNAVAILABLE
    assert await scene.answer(genuine.issue("organizations/a/nodes/b", "vantage", SERVICE, PATH)) is None
