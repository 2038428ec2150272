"""Images of algorithms for tests: built from a module, pushed to a registry, signed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import docker
from cryptography.hazmat.primitives.asymmetric import ec
from docker.errors import ImageNotFound

from vantage.common import oci
from vantage.common.image_signing import sign_image
from vantage.testing.engine import BASE_IMAGE

DOCKERFILE = f"""\
FROM {BASE_IMAGE}
COPY algorithm.py /app/
ENV VANTAGE_MODULE=algorithm
ARG DECLARATION
LABEL org.vantage.declaration="${{DECLARATION}}"
"""
"""For an algorithm that brings none."""


def declare(directory: Path) -> str:
    """Declaration of the module ``algorithm`` in a directory, as its author gets it from the SDK's tool."""
    done = subprocess.run(
        [sys.executable, "-m", "vantage.algorithm", "declare", "algorithm"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@contextmanager
def pushed(engine: docker.DockerClient, module: Path, repository: str, beside: Sequence[Path] = ()) -> Iterator[str]:
    """Build the image of an algorithm and push it; yields ``repository@digest``.

    The engine forgets the image at once, so that nodes have to pull it, and again at the end.

    Args:
        engine: builds and pushes.
        module: the algorithm; a Dockerfile beside it is used.
        repository: ``registry/path``.
        beside: further files and directories that the Dockerfile copies.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        shutil.copyfile(module, directory / "algorithm.py")
        for each in beside:
            if each.is_dir():
                shutil.copytree(each, directory / each.name)
            else:
                shutil.copyfile(each, directory / each.name)
        dockerfile = module.with_name("Dockerfile")
        (directory / "Dockerfile").write_text(dockerfile.read_text() if dockerfile.exists() else DOCKERFILE)
        # The label makes it an image of its own: what is removed below is nobody else's build of the same example.
        built, _log = engine.images.build(
            path=name,
            buildargs={"DECLARATION": declare(directory)},
            labels={"org.vantage.test": repository},
            rm=True,
        )
    image = str(built.id)
    try:
        built.tag(repository, tag="1")
        answers = engine.images.push(repository, tag="1", stream=True, decode=True)
        (digest,) = [each["aux"]["Digest"] for each in answers if "aux" in each]
        engine.images.remove(image, force=True)
        yield f"{repository}@{digest}"
    finally:
        with suppress(ImageNotFound):
            engine.images.remove(image, force=True)


async def sign(image: str, key: ec.EllipticCurvePrivateKey) -> None:
    """Sign a pushed image."""
    reference = oci.ImageReference.parse(image)
    async with oci.connect(reference.registry, reference.path, oci.RegistryAccess()) as registry:
        await sign_image(registry, reference, key)
