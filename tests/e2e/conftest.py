"""The network that these tests share: starting it takes seconds, and one test must not harm the next."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import docker
import pytest

from vantage.common import cosign, pki
from vantage.testing import images
from vantage.testing.engine import docker_client
from vantage.testing.process_network import ProcessNetwork
from vantage.testing.registry import Registry

ROOT = Path(__file__).parents[2]
ORGANIZATIONS = ("beatrix", "clara", "hilda")
AUTHOR = pki.create_key()


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    with docker_client() as client:
        yield client


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[ProcessNetwork]:
    directory = tmp_path_factory.mktemp("network")
    (directory / "author.pub").write_bytes(cosign.public_pem(AUTHOR.public_key()))
    settings = {
        "policy": {
            "images": [{"repository": f"{registry.address}/algorithms/*", "keys": [str(directory / "author.pub")]}],
            "peers": True,
            "pin_peer_authorities": True,
            "allow_unsigned": True,  # bare stubs ask here; test_sealed has signed tasks
        },
        "limits": {"memory": "256MiB", "scratch": "16MiB", "grace": "2s"},
    }
    datasets = {name: ROOT / "examples/data" / f"{name}.csv" for name in ORGANIZATIONS}
    with ProcessNetwork(directory, datasets, settings) as running:
        yield running


def signed(
    engine: docker.DockerClient, registry: Registry, module: Path, name: str, beside: Sequence[Path] = ()
) -> Iterator[str]:
    with images.pushed(engine, module, f"{registry.address}/algorithms/{name}", beside) as image:
        asyncio.run(images.sign(image, AUTHOR))
        yield image


@pytest.fixture(scope="session")
def summary(engine: docker.DockerClient, registry: Registry) -> Iterator[str]:
    yield from signed(engine, registry, ROOT / "examples/summary/algorithm.py", "summary")


@pytest.fixture(scope="session")
def kaplan_meier(engine: docker.DockerClient, registry: Registry) -> Iterator[str]:
    yield from signed(engine, registry, ROOT / "examples/kaplan-meier/algorithm.py", "kaplan-meier")


@pytest.fixture(scope="session")
def ring_allreduce(engine: docker.DockerClient, registry: Registry) -> Iterator[str]:
    yield from signed(engine, registry, ROOT / "examples/ring-allreduce/algorithm.py", "ring-allreduce")


@pytest.fixture(scope="session")
def secure_sum(
    engine: docker.DockerClient, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    wheels = tmp_path_factory.mktemp("mpyc") / "wheels"
    # As its README says; the wheel is fetched here, the image is built without a network.
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, "mpyc==0.11"], check=True
    )
    example = ROOT / "examples/secure-sum"
    yield from signed(engine, registry, example / "algorithm.py", "secure-sum", [wheels, example / "program.py"])


@pytest.fixture(scope="session")
def unruly(engine: docker.DockerClient, registry: Registry) -> Iterator[str]:
    yield from signed(engine, registry, Path(__file__).parent / "unruly.py", "unruly")
