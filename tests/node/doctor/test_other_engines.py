"""The box in engines that are set up otherwise: what holds there, and what is known not to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vantage.node.config import NodeConfig
from vantage.node.doctor.examination import examine
from vantage.node.doctor.findings import Finding
from vantage.node.executor.docker import DockerExecutor
from vantage.testing.engines import copy_image, engine_place, lacks, podman, second_docker

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(300)]

PODMAN = {"files.root", "files.mounts", "isolation.namespaces", "isolation.host-name"}
"""What Podman 4 leaves open through its API (docs/node.md): /run and /var/tmp are temporary files without a bound of
their own, resolvers and host name are told, and control groups of version 1 are shared."""


@pytest.fixture
def place() -> Iterator[Path]:
    with engine_place() as directory:
        yield directory


async def findings(host: str, directory: Path) -> dict[str, Finding]:
    """What the doctor finds in an engine."""
    config = NodeConfig.model_validate(
        {
            "server": {"address": "127.0.0.1:1"},
            "identity": {"organization": "clara", "node": "clara-1"},
            "data_dir": directory,
        }
    )
    executor = DockerExecutor(host, directory / "doctor", slots=2)
    try:
        return {each.check: each for each in await examine(executor, config, copy_image(host)) if not each.held}
    finally:
        await executor.close()


@pytest.mark.skipif(lacks("dockerd", "ip"), reason="needs root, dockerd and ip")
async def test_the_box_holds_in_an_engine_with_user_namespaces(place: Path, tmp_path: Path) -> None:
    with second_docker(place, userns_remap="default") as host:
        assert await findings(host, tmp_path) == {}


@pytest.mark.skipif(lacks("podman", "runc"), reason="needs root, podman and runc")
async def test_in_podman_all_holds_but_what_is_known(place: Path, tmp_path: Path) -> None:
    with podman(place) as host:
        missed = await findings(host, tmp_path)
        assert set(missed) <= PODMAN, missed
