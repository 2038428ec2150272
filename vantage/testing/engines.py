"""Other container engines than the one that tests share: started for a test, with their data in its directory."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import psutil
from docker.errors import ImageNotFound

from vantage.testing.engine import BASE_IMAGE, docker_client
from vantage.testing.program import Program

_SMALL_IMAGES = ("vantage/debian-python:3.11", "python:3.11-slim", BASE_IMAGE)
"""With python3, the smallest first."""


@contextmanager
def engine_place() -> Iterator[Path]:
    """A directory for an engine of its own, short since it holds sockets; removed with what the engine left running and
    mounted."""
    with tempfile.TemporaryDirectory(prefix="vantage-", ignore_cleanup_errors=True) as name:
        try:
            yield Path(name)
        finally:
            # Podman's monitors of containers end with a command that would mount its storage once more.
            for each in _processes(name):
                with suppress(psutil.NoSuchProcess):
                    each.kill()
            mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
            for path in reversed([path for path in mounted if path.startswith(f"{name}/")]):
                subprocess.run(["umount", "--lazy", path], check=False)


def _processes(directory: str) -> list[psutil.Process]:
    """Those that were told to work in a directory."""
    started = psutil.process_iter(["cmdline"])
    return [each for each in started if any(f"{directory}/" in word for word in each.info["cmdline"] or ())]


@contextmanager
def second_docker(directory: Path, **settings: Any) -> Iterator[str]:
    """A Docker engine of its own, with a bridge of its own; yields its socket. Needs root, and ``ip``.

    One without any bridge would take the default one away from the engine that tests share.

    Args:
        directory: from ``engine_place``.
        settings: as in ``daemon.json``, underscores for hyphens.
    """
    host = f"unix://{directory}/d.sock"
    wanted = {
        "data_root": f"{directory}/data",
        "exec_root": f"{directory}/exec",
        "pidfile": f"{directory}/pid",
        "hosts": [host],
        "iptables": False,
        **settings,
    }
    directory.chmod(0o711)  # with user namespaces, root in a container is somebody else here
    configuration = directory / "daemon.json"
    with _bridge() as wanted["bridge"]:
        configuration.write_text(json.dumps({name.replace("_", "-"): value for name, value in wanted.items()}))
        with Program(["dockerd", "--config-file", str(configuration)], directory / "log") as program:
            program.wait_for("API listen on")
            yield host


@contextmanager
def _bridge() -> Iterator[str]:
    """A name of its own: tests of two checkouts may run at a time, and one that was killed leaves its bridge behind."""
    name = f"vantage-{secrets.token_hex(3)}"
    _ip("link", "add", name, "type", "bridge")
    try:
        _ip("address", "add", "10.213.7.1/24", "dev", name)
        yield name
    finally:
        _ip("link", "delete", name)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def podman(directory: Path) -> Iterator[str]:
    """Podman's API, in a directory from ``engine_place``; yields its socket. Needs root, podman and runc."""
    host = f"unix://{directory}/p.sock"
    storage = ["--root", f"{directory}/root", "--runroot", f"{directory}/run"]
    engine = ["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--log-level", "info"]
    # What it starts leaves files where it was started.
    start = ["env", "--chdir", str(directory), "podman"]
    with Program([*start, *storage, *engine, "system", "service", "--time", "0", host], directory / "log") as program:
        program.wait_for("API service listening on")
        yield host


def lacks(*programs: str) -> bool:
    """Whether what starts these as root may be left out, since it cannot be done here; CI leaves nothing out."""
    possible = os.geteuid() == 0 and all(shutil.which(each) is not None for each in programs)
    return not possible and "CI" not in os.environ


def copy_image(host: str) -> str:
    """Bring an image with python3 from the shared engine to another one; returns its name there."""
    with docker_client() as shared:
        name = next(each for each in _SMALL_IMAGES if _has(shared, each))
        with closing(docker.DockerClient(base_url=host, version="1.41", timeout=300)) as other:
            source = subprocess.Popen(["docker", "save", name], stdout=subprocess.PIPE)
            assert source.stdout is not None  # noqa: S101  # it was asked for
            try:
                (loaded, *_rest) = other.images.load(source.stdout)
            finally:
                source.communicate()
    return str(loaded.id)


def _has(client: docker.DockerClient, name: str) -> bool:
    try:
        client.images.get(name)
    except ImageNotFound:
        return False
    return True
