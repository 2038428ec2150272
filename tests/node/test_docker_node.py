"""The whole node with a real registry, real engine and real image, against a scripted server."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from docker.errors import ImageNotFound

from vantage.api.node.v1 import registry_service_pb2 as registry_pb
from vantage.common import audit, cosign, oci, pki
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, error
from vantage.common.image_signing import sign_image
from vantage.node import config as node_config
from vantage.node.images.tokens import ServerTokens
from vantage.server.registry_certificate import pull_tokens
from vantage.testing.engine import BASE_IMAGE, docker_client, leftovers
from vantage.testing.layered_images import Build, Layer, push_build
from vantage.testing.proxy import Proxy
from vantage.testing.registry import Registry, TokenTrust
from vantage.testing.station import NODE, Station, assign, send

pytestmark = pytest.mark.docker

AUTHOR = pki.create_key()
DECLARATION = json.dumps(
    {
        "schema": 1,
        "functions": {
            "count": {
                "arguments": {
                    "type": "object",
                    "properties": {"rounds": {"default": 1}},
                    "additionalProperties": False,
                },
                "data": [{"parameter": "table"}],
            },
            "bomb": {"arguments": {"type": "object", "properties": {"rounds": {"default": 1}}}},
        },
    }
)
BAD = {"schema": 1, "functions": {"f": {"arguments": {"type": "object"}}}}
PROGRAM = """\
import grpc, json, os, sys
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb, algorithm_service_pb2_grpc as g
stub = g.AlgorithmServiceStub(grpc.insecure_channel("unix:" + os.environ["VANTAGE_SOCKET"]))
me = (("authorization", "Bearer " + os.environ["VANTAGE_TOKEN"]),)
context = stub.GetContext(pb.GetContextRequest(), metadata=me)
if context.function == "bomb":
    bytearray(1024**3).replace(b"x", b"y")
    block = b"1" * 1024**3
rows = len(open(context.datasets[0].path).read().splitlines()) - 1
answer = json.dumps({"rows": rows, "organizations": list(context.organizations)}).encode()
header = pb.SubmitResultRequest(header=pb.ResultHeader(media_type="application/json"))
stub.SubmitResult(iter([header, pb.SubmitResultRequest(chunk=answer)]), metadata=me)
print("private line")
"""


@pytest.fixture(scope="module")
def image(registry: Registry) -> Iterator[str]:
    repository = f"{registry.address}/algorithms/count"
    text = f"FROM {BASE_IMAGE}\nLABEL org.vantage.declaration={json.dumps(DECLARATION)}\n"
    text += f'ENTRYPOINT ["python3", "-c", {json.dumps(PROGRAM)}]\n'
    with docker_client() as engine:
        # An image of its own: what is removed below is nobody else's build of the same.
        labels = {"org.vantage.test": repository}
        built, _log = engine.images.build(fileobj=io.BytesIO(text.encode()), labels=labels, rm=True)
        built.tag(repository, tag="1")
        pushed = engine.images.push(repository, tag="1", stream=True, decode=True)
        (digest,) = [item["aux"]["Digest"] for item in pushed if "aux" in item]
        engine.images.remove(str(built.id), force=True)
        yield f"{repository}@{digest}"
        with suppress(ImageNotFound):
            engine.images.remove(str(built.id), force=True)


def trust_author(directory: Path) -> None:
    (directory / "author.pub").write_bytes(cosign.public_pem(AUTHOR.public_key()))
    (directory / "lung.csv").chmod(0o644)


async def test_a_signed_image_answers_and_an_unsigned_one_is_refused(
    station: Station, registry: Registry, image: str
) -> None:
    trust_author(station.directory)
    station.settings |= {
        "executor": "docker",
        "allow_unsandboxed": False,
        "policy": {
            "images": [
                {
                    "repository": f"{registry.address}/algorithms/*",
                    "keys": ["author.pub"],
                    "users": ["dora/alice"],
                    "arguments": {"rounds": {"maximum": 3}},
                }
            ]
        },
        "limits": {"memory": "256MiB"},
    }
    with docker_client() as engine:
        async with station.running():
            session = await station.session()
            send(session, assign("count", "{}", datasets={"table": "lung"}, image=image))
            assert (await session.receive("refused")).refused.failure.reason == "IMAGE_UNSIGNED"

            reference = oci.ImageReference.parse(image)
            async with oci.connect(reference.registry, reference.path, oci.RegistryAccess()) as connection:
                await sign_image(connection, reference, AUTHOR)
            send(session, assign("count", "{}", datasets={"table": "lung"}, image=image))
            await session.receive("accepted")
            await session.receive("started")
            completed = (await session.receive("completed")).completed
            assert json.loads(completed.result.inline) == {
                "rows": 3,
                "organizations": ["organizations/clara", "organizations/dora"],
            }
            assert any(each.progress.message == "pulling image" for each in session.received)

            decided = [each for each in audit.records(station.directory / "data" / "audit.log") if "decision" in each]
            assert [(each["decision"], each.get("signers")) for each in decided] == [
                ("refused", None),
                ("allowed", ["author.pub"]),
            ]

            # The registry is not asked again, and what the rule says of the question holds for each.
            for refused, reason in (
                (assign("bomb", "{}", image=image, creator="users/bob"), "POLICY_REFUSED"),
                (assign("bomb", '{"rounds": 4}', image=image), "ARGUMENTS_NOT_ALLOWED"),
            ):
                send(session, refused)
                assert (await session.receive("refused")).refused.failure.reason == reason

            send(session, assign("bomb", "{}", image=image))
            await session.receive("accepted")
            await session.receive("started")
            assert (await session.receive("completed")).completed.failure.reason == "OUT_OF_MEMORY"
            assert not any(each.HasField("log_lines") for each in session.received)
            assert station.runs == []
        assert leftovers(engine, station.label) == []


async def test_images_that_do_not_arrive_end_their_own_runs_and_no_others(
    station: Station, registry: Registry, image: str
) -> None:
    trust_author(station.directory)
    reference = oci.ImageReference.parse(image)
    mebibyte = 1024 * 1024
    async with Proxy.to(registry.address) as proxy:
        proxy.allowance = 300_000
        bomb, silent = [
            await push_build(registry.address, "algorithms/bad", Build([Layer.of({"x": content})], BAD))
            for content in (bytes(80 * mebibyte), os.urandom(mebibyte))
        ]
        for each in (bomb, silent, reference):
            async with oci.connect(each.registry, each.path, oci.RegistryAccess()) as connection:
                await sign_image(connection, each, AUTHOR)
        station.settings |= {
            "executor": "docker",
            "allow_unsandboxed": False,
            "policy": {
                "images": [{"repository": "**", "keys": ["author.pub"], "signed_as": [f"{registry.address}/**"]}]
            },
            "registries": [{"address": proxy.address, "timeout": 4}],
            "limits": {"memory": "256MiB", "max_image_size": "64MiB"},
        }
        with docker_client() as engine:  # it is larger than this node would fetch
            repository, _, digest = image.partition("@")
            await asyncio.to_thread(engine.images.pull, repository, digest)
        async with station.running():
            session = await station.session()
            through = oci.ImageReference(proxy.address, silent.path, silent.digest)
            hanging = send(session, assign("f", "{}", image=str(through)))
            await session.receive("accepted")
            # While it hangs, others answer.
            send(session, assign("count", "{}", datasets={"table": "lung"}, image=image))
            await session.receive("accepted")
            await session.receive("started")
            assert (await session.receive("completed")).completed.HasField("result")
            huge = send(session, assign("f", "{}", image=str(bomb)))
            await session.receive("accepted")
            ends = [(await session.receive("completed")).completed for _ in range(2)]
            failures = {each.lease.lease_id: each.failure for each in ends}
            assert failures[hanging.lease_id].reason == "REGISTRY_UNAVAILABLE"
            assert "does not answer in time" in failures[hanging.lease_id].message
            assert failures[huge.lease_id].reason == "IMAGE_TOO_LARGE"
            assert str(64 * mebibyte) in failures[huge.lease_id].message
    assert list((station.directory / "data" / "images").iterdir()) == []


async def test_a_registry_that_trusts_the_server_is_asked_with_its_tokens(station: Station, tmp_path: Path) -> None:
    tokens = pull_tokens(tmp_path, SystemClock())
    with Registry(tmp_path / "registry") as filling:
        pushed = await push_build(filling.address, "algorithms/x", Build([Layer.of({"x": os.urandom(20)})], BAD))
        async with oci.connect(filling.address, "algorithms/x", oci.RegistryAccess()) as connection:
            await sign_image(connection, pushed, AUTHOR)
    trust = TokenTrust(tmp_path / "registry.crt", "vantage", "test", "https://vantage.invalid/token")
    trust_author(station.directory)
    with Registry(tmp_path / "registry", tokens=trust) as registry:
        station.settings |= {
            "executor": "docker",
            "allow_unsandboxed": False,
            # It was signed under another port.
            "policy": {"images": [{"repository": "**", "keys": ["author.pub"], "signed_as": ["*/algorithms/x"]}]},
            "registries": [{"address": registry.address, "server_tokens": True}],
        }
        image = f"{registry.address}/algorithms/x@{pushed.digest}"
        async with station.running():
            session = await station.session()
            # What its server does not give, the node has not.
            station.server.script("GetPullToken", error(Reason.NOT_FOUND, "the server gives no tokens for this"))
            send(session, assign("f", "{}", image=image))
            refused = (await session.receive("refused")).refused.failure
            assert (refused.reason, "gives no tokens" in refused.message) == ("REGISTRY_UNAVAILABLE", True)
            token = tokens.issue(NODE, "vantage", "test", "algorithms/x")
            answer = registry_pb.GetPullTokenResponse(token=token)
            station.server.script("GetPullToken", answer, answer)  # for its signatures, and for the image
            send(session, assign("f", "{}", image=image))
            await session.receive("accepted")
            await session.receive("completed")  # that it holds no program is another matter
        # A command beside the node asks by itself.
        station.server.script("GetPullToken", answer)
        async with ServerTokens.of(node_config.load(station.config_path)) as asking:
            assert await asking(registry.address, "algorithms/x") == token
        question = registry_pb.GetPullTokenRequest(registry=registry.address, repository="algorithms/x")
        assert station.server.calls["GetPullToken"] == [question] * 4
        with docker_client() as engine:
            engine.images.remove(f"{registry.address}/algorithms/x:{pushed.digest.replace(':', '-')}")
