"""The box around a run: every protection that a container engine is asked for, in one place. Pure.

What stands here is proved from inside by ``vantage node doctor``, and by a test that leaves out one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import DeviceRequest, LogConfig, Mount, Ulimit

from vantage.node.door import SOCKET_NAME, RunContext
from vantage.node.executor.base import Job, ProbeCode

SOCKET_DIRECTORY = "/run/vantage"
HOSTNAME = "algorithm"
"""Of every run: nothing of the host's."""
USER = "65534:65534"
SECCOMP = Path(__file__).with_name("seccomp.json")
"""Which system calls a run may make. Made from the list of containers/common (Apache-2.0), without what needs
privileges, namespaces, tracing, keys or io_uring, and with sockets of the kinds alone that a run uses: older engines'
own lists (20.10 was tried) let a container in a virtual machine talk to that machine's host (AF_VSOCK), past every
network namespace."""
MAX_OPEN_FILES = 16_384
SHM_BYTES = 64 * 1024 * 1024
_OOM_SCORE = 500
"""When the machine itself has no memory left, the kernel ends an algorithm rather than the node or the engine."""
_MAX_PROCESSES = 32_768
"""Of the container's user on the whole machine, which may have several runs; ``pids_limit`` is what bounds one. Named
since Podman would ask for more than it may give."""
_TEMPORARY = "rw,nosuid,nodev,noexec,mode=1777"
_GPU_VARIABLE = "NVIDIA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class ImageFacts:
    """What an image asks for that would widen the box.

    Attributes:
        volumes: paths that the engine would back with the host's disk, writable and without a quota.
        variables: names of the environment variables that it sets.
    """

    volumes: tuple[str, ...] = ()
    variables: frozenset[str] = frozenset()

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> ImageFacts:
        """From ``Config`` as the engine shows it."""
        variables = frozenset(str(each).partition("=")[0] for each in config.get("Env") or ())
        return cls(tuple(sorted(config.get("Volumes") or ())), variables)


def container_settings(
    job: Job, context: RunContext, directory: Path, facts: ImageFacts, gpus: Sequence[str], seccomp: str
) -> dict[str, Any]:
    """What an engine is asked for, as keyword arguments of ``containers.create``; labels are the executor's.

    Args:
        job: what runs, with its limits.
        context: what the run may see.
        directory: holds the socket of the local API.
        facts: of the image.
        gpus: identifiers of the graphics processors that this run has to itself.
        seccomp: ``SECCOMP`` as the engine wants it: its text, or its path.
    """
    limits = job.limits
    temporary = f"{_TEMPORARY},size={limits.scratch}"
    environment = {
        **job.environment,
        "VANTAGE_SOCKET": f"{SOCKET_DIRECTORY}/{SOCKET_NAME}",
        "VANTAGE_TOKEN": context.token,
    }
    if not gpus and _GPU_VARIABLE in facts.variables:
        # Where NVIDIA's runtime is the engine's default, an image would get every GPU by asking for it like this.
        environment[_GPU_VARIABLE] = "void"
    return {
        "entrypoint": list(job.code.command) if isinstance(job.code, ProbeCode) else None,
        "environment": environment,
        # Else the proxies in the configuration of this process's user, with their passwords, are added.
        "use_config_proxy": False,
        "hostname": HOSTNAME,
        "user": USER,
        "healthcheck": {"test": ["NONE"]},
        "network_mode": "none",
        # Else /etc/resolv.conf is the host's.
        "dns": ["127.0.0.1"],
        "dns_search": ["."],
        "ipc_mode": "private",
        "cgroupns": "private",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges", f"seccomp={seccomp}"],
        "init": True,
        "mem_limit": limits.memory,
        "memswap_limit": limits.memory,
        "nano_cpus": int(limits.cpus * 1_000_000_000),
        "pids_limit": limits.pids,
        "oom_score_adj": _OOM_SCORE,
        "ulimits": [
            Ulimit(name="nofile", soft=MAX_OPEN_FILES, hard=MAX_OPEN_FILES),
            Ulimit(name="core", soft=0, hard=0),
            Ulimit(name="nproc", soft=_MAX_PROCESSES, hard=_MAX_PROCESSES),
        ],
        "shm_size": min(SHM_BYTES, limits.memory),
        # Volumes that the image declares would be the host's disk.
        "tmpfs": dict.fromkeys(("/tmp", *facts.volumes), temporary),  # noqa: S108  # inside the container
        "mounts": mounts(context, directory),
        "device_requests": [DeviceRequest(device_ids=list(gpus), capabilities=[["gpu"]])] if gpus else None,
        # The engine keeps no log: 100 MB of it would lie on the node's disk. It is read as it is printed.
        "log_config": LogConfig(type="none"),
    }


def mounts(context: RunContext, directory: Path) -> list[Mount]:
    """What a container sees of the host: the socket of its run, and the datasets of its run."""
    return [
        _mount(SOCKET_DIRECTORY, directory),
        *(_mount(dataset.path, dataset.source) for dataset in context.datasets),
    ]


def _mount(target: str, source: Path) -> Mount:
    mount = Mount(target, str(source), type="bind", read_only=True, propagation="rprivate")
    # What is mounted below a directory would be writable: read-only is not recursive in older engines.
    mount["BindOptions"]["NonRecursive"] = True
    return mount
