"""nginx and HAProxy in front of a server, with the configurations that docs/server.md shows."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vantage.server.certificate import CERTIFICATE_FILE, KEY_FILE, create_certificate, fingerprint
from vantage.testing.ports import free_ports
from vantage.testing.program import Program

Kind = Literal["nginx", "haproxy"]

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "server.md"
_READY = {"nginx": "start worker processes", "haproxy": "Loading success"}


@dataclass(frozen=True)
class ReverseProxy:
    """A proxy that ends TLS.

    Attributes:
        address: ``host:port`` for nodes and clients.
        fingerprint: of its certificate.
    """

    address: str
    fingerprint: str


def documented(kind: Kind) -> str:
    """The configuration that the page for operators shows."""
    found = re.search(rf"```{kind}\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
    assert found is not None, f"docs/server.md shows no configuration of {kind}"  # noqa: S101
    return found[1]


@asynccontextmanager
async def reverse_proxy(
    kind: Kind, directory: Path, target: str, changes: Mapping[str, str] | None = None
) -> AsyncIterator[ReverseProxy]:
    """Start a proxy in front of a server.

    Args:
        kind: which one.
        directory: for its certificate, configuration and log; made when it is not there.
        target: ``host:port`` of the server, which speaks no TLS.
        changes: texts of the documented configuration and what stands in their place.
    """
    command, address = _prepare(kind, directory, target, changes or {})
    program = Program(command, directory / f"{kind}.log")
    program.start()
    try:
        await asyncio.to_thread(program.wait_for, _READY[kind])
        yield ReverseProxy(address, fingerprint(directory))
    finally:
        await asyncio.to_thread(program.stop)


def _prepare(kind: Kind, directory: Path, target: str, changes: Mapping[str, str]) -> tuple[list[str], str]:
    """Write what the program needs; returns its command line and its address."""
    directory.mkdir(parents=True, exist_ok=True)
    create_certificate(directory, ())
    certificate = (directory / CERTIFICATE_FILE).read_bytes()
    (directory / "tls.pem").write_bytes(certificate + (directory / KEY_FILE).read_bytes())
    address = f"127.0.0.1:{free_ports()[0]}"
    text = documented(kind)
    places = {"/etc/vantage": str(directory), "127.0.0.1:7600": target, "listen 443": f"listen {address}"}
    places |= {"bind :443": f"bind {address}", **changes}
    for old, new in places.items():
        text = text.replace(old, new)
    for new in changes.values():
        assert new in text, f"the configuration of {kind} has no place for {new!r}"  # noqa: S101
    file = directory / f"{kind}.conf"
    if kind == "nginx":
        # What the distribution's own nginx.conf would say; the rest is the page's.
        pid = f"pid {directory}/nginx.pid; daemon off; error_log stderr notice;"
        temporary = "".join(
            f"{each}_temp_path {directory}/{each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        text = pid + text.replace("http {", f"http {{ access_log off; {temporary}", 1)
        command = ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(file)]
    else:
        command = ["haproxy", "-W", "-db", "-f", str(file)]
    file.write_text(text)
    return command, address
