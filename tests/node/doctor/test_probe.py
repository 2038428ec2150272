"""The probe finds the box closed, and with each protection switched off it finds exactly that one missing."""

from __future__ import annotations

import inspect
import io
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount, Ulimit

from vantage.common.errors import Reason, VantageError
from vantage.node.config import NodeConfig
from vantage.node.doctor import probe
from vantage.node.doctor.examination import examine
from vantage.node.doctor.findings import PROTECTIONS, read
from vantage.node.executor import sandbox
from vantage.node.executor.docker import DockerExecutor
from vantage.testing.engine import BASE_IMAGE, docker_client, leftovers

HOST = "unix:///var/run/docker.sock"
Settings = dict[str, Any]
Change = Callable[[Settings], None]


def config(directory: Path) -> NodeConfig:
    return NodeConfig.model_validate(
        {
            "server": {"address": "127.0.0.1:1"},
            "identity": {"organization": "clara", "node": "clara-1"},
            "data_dir": directory,
        }
    )


@pytest.fixture
async def executor(tmp_path: Path) -> AsyncIterator[DockerExecutor]:
    made = DockerExecutor(HOST, tmp_path / "doctor", slots=2)
    yield made
    await made.close()


def put(**changes: Any) -> Change:
    return lambda settings: settings.update(changes)


def temporary(options: str) -> Change:
    return put(tmpfs={"/tmp": options})


def writable(settings: Settings) -> None:
    for mount in settings["mounts"]:
        mount["ReadOnly"] = False


def engine_socket(settings: Settings) -> None:
    settings["mounts"].append(Mount("/var/run/docker.sock", "/var/run/docker.sock", type="bind", read_only=True))


def of_the_host(name: str, **changes: Any) -> Change:
    def change(settings: Settings) -> None:
        settings.update(changes)
        settings[name] = "host"

    return change


def secret(settings: Settings) -> None:
    settings["environment"]["PGPASSWORD"] = "secret"


SWITCHED_OFF: dict[str, tuple[Change, set[str], set[str]]] = {
    # What was changed: how, what must be noticed, what else may be.
    "network": (put(network_mode="bridge"), {"network.interfaces", "network.connect"}, {"network.names"}),
    "network of the host": (
        of_the_host("network_mode", dns=None, dns_search=None),
        {"network.interfaces", "network.connect", "isolation.namespaces", "isolation.host-name"},
        {"network.names", "isolation.other-runs", "isolation.engine"},
    ),
    "resolvers": (put(dns=None, dns_search=None), {"isolation.host-name"}, set()),
    "host name": (put(hostname="station-7"), {"isolation.host-name"}, set()),
    "namespace of IPC": (
        of_the_host("ipc_mode", shm_size=None),
        {"isolation.namespaces", "limits.shared-memory"},
        {"files.mounts", "files.root", "files.programs"},
    ),
    "namespace of processes": (of_the_host("pid_mode"), {"isolation.namespaces", "isolation.other-runs"}, set()),
    "namespace of control groups": (of_the_host("cgroupns"), {"isolation.namespaces"}, set()),
    "read-only root": (put(read_only=False), {"files.root"}, {"files.mounts"}),
    "read-only mounts": (writable, {"files.mounts"}, {"files.data", "files.door"}),
    "capabilities": (put(cap_drop=None), {"privileges.capabilities"}, set()),
    "new privileges": (
        lambda settings: settings["security_opt"].remove("no-new-privileges"),
        {"privileges.new"},
        set(),
    ),
    "filter of system calls": (
        put(security_opt=["no-new-privileges", "seccomp=unconfined"]),
        {"privileges.system-calls"},
        {"network.hypervisor"},  # where the machine is a virtual one
    ),
    "user": (put(user="0:0"), {"privileges.user"}, {"files.root", "files.kernel"}),
    "memory": (put(mem_limit=None, memswap_limit=None), {"limits.memory", "limits.swap"}, set()),
    "swap": (put(memswap_limit=-1), {"limits.swap"}, set()),
    "processes": (put(pids_limit=-1), {"limits.processes"}, set()),
    "processors": (put(nano_cpus=None), {"limits.processors"}, set()),
    "size of temporary files": (temporary("rw,noexec,mode=1777"), {"limits.scratch"}, set()),
    "programs in temporary files": (temporary(f"rw,exec,mode=1777,size={32 * 1024**2}"), {"files.programs"}, set()),
    "shared memory": (put(shm_size=128 * 1024**2), {"limits.shared-memory"}, set()),
    "open files": (
        put(ulimits=[Ulimit(name="nofile", soft=20_000, hard=20_000), Ulimit(name="core", soft=0, hard=0)]),
        {"limits.open-files"},
        set(),
    ),
    "core dumps": (
        put(ulimits=[Ulimit(name="nofile", soft=64, hard=64), Ulimit(name="core", soft=-1, hard=-1)]),
        {"limits.open-files"},
        set(),
    ),
    "socket of the engine": (engine_socket, {"isolation.engine", "files.mounts"}, set()),
    "devices": (put(devices=["/dev/kmsg:/dev/kmsg:r"]), {"isolation.devices"}, {"files.kernel"}),
    "environment": (secret, {"isolation.environment"}, set()),
    "everything": (
        put(
            cap_add=["SYS_ADMIN", "SYS_CHROOT", "MKNOD"],
            cap_drop=None,
            security_opt=["seccomp=unconfined"],
            user="0:0",
            read_only=False,
        ),
        {"privileges.capabilities", "privileges.mount", "privileges.user", "privileges.new", "files.root"},
        set(PROTECTIONS),
    ),
}


@pytest.mark.docker
async def test_the_box_holds(executor: DockerExecutor, tmp_path: Path) -> None:
    findings = await examine(executor, config(tmp_path), BASE_IMAGE)
    assert [each.check for each in findings] == list(PROTECTIONS)
    assert [each for each in findings if not each.held] == []
    assert not any(tmp_path.iterdir())  # noqa: ASYNC240
    with docker_client() as engine:
        assert leftovers(engine, f"org.vantage.node={executor.owner}") == []


@pytest.mark.slow
@pytest.mark.docker
@pytest.mark.parametrize("what", SWITCHED_OFF)
async def test_a_protection_that_is_switched_off_is_missed(
    executor: DockerExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    change, expected, besides = SWITCHED_OFF[what]
    genuine = sandbox.container_settings

    def altered(job: Any, *rest: Any) -> Settings:
        settings = genuine(job, *rest)
        if "PROBE" in job.environment:  # not its neighbour
            change(settings)
        return settings

    monkeypatch.setattr("vantage.node.executor.docker.container_settings", altered)
    findings = await examine(executor, config(tmp_path), BASE_IMAGE)
    missed = {each.check: each.seen for each in findings if not each.held}
    assert expected <= set(missed), missed
    assert set(missed) <= expected | besides, missed


@pytest.mark.docker
async def test_an_image_that_cannot_run_the_probe_is_said_to_be_that(executor: DockerExecutor, tmp_path: Path) -> None:
    with pytest.raises(VantageError) as caught:
        await examine(executor, config(tmp_path), "vantage/none:latest")
    assert caught.value.reason is Reason.IMAGE_NOT_FOUND
    with docker_client() as engine:
        empty = f"vantage-test/{uuid.uuid4()}"
        engine.api.import_image_from_data(_empty_archive(), repository=empty, tag="1")
        try:
            with pytest.raises(VantageError, match="python3"):
                await examine(executor, config(tmp_path), f"{empty}:1")
            assert leftovers(engine, f"org.vantage.node={executor.owner}") == []
        finally:
            engine.images.remove(f"{empty}:1", force=True)


def _empty_archive() -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    return content.getvalue()


def test_what_the_probe_does_not_speak_of_did_not_hold() -> None:
    line = probe.PREFIX + '{"check": "files.root", "held": true, "tried": "x", "seen": "y"}'
    findings = read(["noise", probe.PREFIX + "{", probe.PREFIX + '{"check": 1}', line, line.replace("true", "false")])
    assert [each.check for each in findings if each.held] == ["files.root"]
    assert len(findings) == len(PROTECTIONS)
    assert list(probe.CHECKS) == list(PROTECTIONS)


def test_the_probe_needs_nothing_but_the_standard_library() -> None:
    text = inspect.getsource(probe)
    assert "vantage." not in text.split('"""', 2)[2]
    assert len(text) < 100_000  # an argument of a program has at most 128 KiB
