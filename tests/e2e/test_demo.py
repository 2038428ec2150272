"""``scripts/demo`` as people run it: with it the README cannot rot."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import docker
import pytest

from vantage.testing.engine import docker_client

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]


def demo(directory: Path, *arguments: str) -> str:
    """Run it and return what it says; whatever it makes must go to ``directory``."""
    done = subprocess.run(
        [ROOT / "scripts/demo", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(directory), "COLUMNS": "120"},
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def images(engine: docker.DockerClient) -> set[str]:
    """Images of the examples, wherever they came from."""
    tags = (tag for image in engine.images.list() for tag in image.tags)
    return {tag for tag in tags if "/algorithms/summary:" in tag or "/algorithms/kaplan-meier:" in tag}


def test_the_demo_agrees_with_the_pooled_data_and_removes_everything(tmp_path: Path) -> None:
    with docker_client() as engine:
        before = images(engine)
        said = demo(tmp_path, "--plot", str(tmp_path / "curve.png"))
        assert "summary: federated and pooled agree to 1e-09" in said
        assert "survival curve: federated and pooled agree to 1e-09" in said
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
        assert [each.name for each in tmp_path.iterdir()] == ["curve.png"]
        assert images(engine) <= before
    # Every process of the demo has the directory in its command line.
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(tmp_path).encode() in each for each in commands)
