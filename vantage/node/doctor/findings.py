"""What the probe found out, protection by protection."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from vantage.node.doctor.probe import CHECKS, PREFIX

PROTECTIONS: Mapping[str, str] = {
    "network.interfaces": "there is no network interface but the loopback",
    "network.connect": "nothing can be reached: cloud metadata, the host, the internet",
    "network.names": "no name can be resolved",
    "network.hypervisor": "the host of this virtual machine cannot be reached past the network",
    "files.root": "the image's files are read-only; only temporary files can be written",
    "files.kernel": "the kernel's own files are hidden or read-only",
    "files.mounts": "nothing of the host is mounted but what the run needs",
    "files.programs": "what was written cannot be run as a program",
    "files.data": "datasets can be read and not changed",
    "files.door": "the node's socket is there, and its directory cannot be changed",
    "privileges.user": "it is not root and cannot become it",
    "privileges.capabilities": "it has no capabilities, and can get none",
    "privileges.new": "setuid programs give no privileges",
    "privileges.mount": "it cannot mount, change root or make devices",
    "privileges.system-calls": "dangerous system calls are filtered",
    "isolation.namespaces": "it shares no namespace with the node",
    "isolation.other-runs": "processes, sockets and files of another run cannot be seen",
    "isolation.engine": "the container engine cannot be reached",
    "isolation.devices": "there are no devices of the host",
    "isolation.environment": "the environment holds nothing of the host",
    "isolation.host-name": "name and resolvers of the host are not told",
    "limits.processes": "the number of processes is bounded",
    "limits.memory": "memory is bounded",
    "limits.swap": "swap is bounded",
    "limits.scratch": "temporary files are bounded",
    "limits.shared-memory": "shared memory is bounded",
    "limits.processors": "processor time is bounded",
    "limits.open-files": "open files are bounded, and there are no core dumps",
}
"""Each protection that is examined, in order, and what it means."""


@dataclass(frozen=True)
class Finding:
    """One protection.

    Attributes:
        check: its name, a key of ``PROTECTIONS``.
        held: whether it held; what could not be tried did not hold.
        tried: what the probe did.
        seen: what came of it.
    """

    check: str
    held: bool
    tried: str
    seen: str


def read(lines: Iterable[str]) -> tuple[Finding, ...]:
    """Findings in what the probe printed, one per protection; of what it did not speak, that did not hold."""
    told: dict[str, Finding] = {}
    for line in lines:
        if line.startswith(PREFIX):
            try:
                document = json.loads(line.removeprefix(PREFIX))
                finding = Finding(
                    str(document["check"]), document["held"] is True, str(document["tried"]), str(document["seen"])
                )
            except (ValueError, KeyError, TypeError):
                continue
            told.setdefault(finding.check, finding)
    missing = "the probe ended before it came to this"
    return tuple(told.get(check, Finding(check, False, "nothing", missing)) for check in CHECKS)


def document_of(findings: Iterable[Finding]) -> list[dict[str, object]]:
    """For JSON."""
    return [{**asdict(each), "protection": PROTECTIONS[each.check]} for each in findings]
