"""The Docker engine as tests see it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import docker
from docker.errors import DockerException, ImageNotFound

from vantage.common.errors import ConfigurationError, Reason

BASE_IMAGE = os.environ.get("VANTAGE_BASE_IMAGE", "vantage/algorithm-base:latest")
"""What test algorithms are built FROM; ``scripts/test`` and ``scripts/setup --engine`` build it."""


@contextmanager
def docker_client() -> Iterator[docker.DockerClient]:
    """A client of the engine at ``DOCKER_HOST`` or the default socket, closed at the end.

    Raises:
        ConfigurationError: no engine answers; the message says how to get one.
    """
    try:
        client = docker.from_env()
    except DockerException as error:
        raise ConfigurationError(
            Reason.CONFIGURATION_INVALID, f"no Docker engine answers ({error}): run scripts/setup --engine"
        ) from error
    try:
        client.ping()
        yield client
    finally:
        client.close()


def leftovers(client: docker.DockerClient, label: str) -> list[str]:
    """What carries ``label`` (``key`` or ``key=value``) and still exists, in any state: ``kind name`` each, sorted."""
    filters: dict[str, str | list[str] | bool] = {"label": label}
    found = [
        f"container {container.name}"
        for container in client.containers.list(all=True, filters=filters, ignore_removed=True)
    ]
    found += [f"network {network.name}" for network in client.networks.list(filters=filters)]
    found += [f"volume {volume.name}" for volume in client.volumes.list(filters=filters)]
    return sorted(found)


def remove_images(client: docker.DockerClient, registry: str) -> None:
    """Remove the images of a registry of a test, by their names; somebody else may tidy up at the same time."""
    for image in client.api.images():
        for name in image["RepoTags"] or ():
            if name.startswith(f"{registry}/"):
                with suppress(ImageNotFound):
                    client.images.remove(name, force=True)


def remove_leftovers(client: docker.DockerClient, label: str) -> None:
    """Remove whatever carries ``label``, running or not; for the end of a test that may have failed half way."""
    filters: dict[str, str | list[str] | bool] = {"label": label}
    for container in client.containers.list(all=True, filters=filters, ignore_removed=True):
        container.remove(force=True, v=True)
    for network in client.networks.list(filters=filters):
        network.remove()
    for volume in client.volumes.list(filters=filters):
        volume.remove(force=True)
