"""``scripts/demo`` as people run it: with it the README cannot rot."""

from __future__ import annotations

import io
import os
import re
import subprocess
from pathlib import Path

import docker
import pytest

from scripts.demolib.network import pushed_name, remove_images
from vantage.common.names import new_id
from vantage.testing.engine import docker_client
from vantage.testing.registry import Registry

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


def images(engine: docker.DockerClient, registry: str) -> set[str]:
    """Names of images of a registry: nobody else has the one of the demo, whatever else the engine is used for."""
    names = (name for image in engine.api.images() for key in ("RepoTags", "RepoDigests") for name in image[key] or ())
    return {name for name in names if name.startswith(f"{registry}/")}


def test_the_demo_agrees_with_the_pooled_data_and_removes_everything(tmp_path: Path) -> None:
    with docker_client() as engine:
        said = demo(tmp_path, "--plot", str(tmp_path / "curve.png"))
        assert "summary: federated and pooled agree to 1e-09" in said
        assert "survival curve: federated and pooled agree to 1e-09" in said
        assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
        assert [each.name for each in tmp_path.iterdir()] == ["curve.png"]
        pushed = re.findall(r"docker push (\S+?)/algorithms/", said)
        assert len(pushed) == 2
        assert images(engine, pushed[0]) == set()
    # Every process of the demo has the directory in its command line.
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(str(tmp_path).encode() in each for each in commands)


def test_the_same_image_of_somebody_else_stays() -> None:
    """Who builds the same example gets an image of the same id."""
    registry = f"demo-{new_id()}.test"
    with docker_client() as engine:
        text = f"FROM scratch\nLABEL test={registry}\n"
        built, _log = engine.images.build(fileobj=io.BytesIO(text.encode()), tag=f"{registry}/mine:1", rm=True)
        try:
            built.tag(f"{registry}/theirs", tag="1")
            assert len(images(engine, registry)) == 2
            remove_images([f"{registry}/mine"])
            assert images(engine, registry) == {f"{registry}/theirs:1"}
        finally:
            engine.images.remove(str(built.id), force=True)


def test_an_image_that_another_registry_has_too_is_named_in_the_one_it_was_pushed_to(tmp_path: Path) -> None:
    with docker_client() as engine, Registry(tmp_path / "gone") as gone, Registry(tmp_path / "ours") as ours:
        built, _log = engine.images.build(
            fileobj=io.BytesIO(f"FROM scratch\nLABEL test={new_id()}\n".encode()), rm=True
        )
        try:
            for registry in (gone, ours):
                built.tag(f"{registry.address}/mine", tag="1")
                engine.images.push(f"{registry.address}/mine", tag="1")
            for registry in (gone, ours):
                repository = f"{registry.address}/mine"
                assert re.fullmatch(rf"{re.escape(repository)}@sha256:[0-9a-f]{{64}}", pushed_name(repository))
        finally:
            engine.images.remove(str(built.id), force=True)
