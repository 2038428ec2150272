"""Hosts outside, through a real node's door: what is listed and declared is reached, everything else is refused."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest

from vantage.algorithm.ports import Ports
from vantage.algorithm.streams import PeerError
from vantage.api.algorithm.v1 import algorithm_service_pb2 as pb
from vantage.node.door import SOCKET_NAME
from vantage.server.certificate import CERTIFICATE_FILE, KEY_FILE, create_certificate
from vantage.testing import doors
from vantage.testing.station import REPOSITORY, Station, assign, send


class Host:
    """A host that speaks as much HTTP as is needed, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Host]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = b""
        if b"chunked" in head.lower():
            while chunk := int(await reader.readline(), 16):
                body += (await reader.readexactly(chunk + 2))[:-2]
        self.asked.append(head + body)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
        await writer.drain()
        writer.close()


@asynccontextmanager
async def a_run(
    station: Station, monkeypatch: pytest.MonkeyPatch, egress: list[dict[str, Any]], declared: list[str], **more: Any
) -> AsyncIterator[Ports]:
    """The SDK's ports in a run."""
    monkeypatch.setitem(doors.DECLARATION["functions"]["lend"], "egress", declared)
    station.settings |= {
        "process": {"modules": {REPOSITORY: "vantage.testing.doors"}},
        "policy": {"egress": egress},
        "limits": more,
    }
    async with station.running():
        session = await station.session()
        send(session, assign("lend", '{"name": "run"}'))
        door = await doors.lent("run").door
        async with door.served() as place:
            with TemporaryDirectory() as short:
                link = Path(short) / "run"
                link.symlink_to(place)
                ports = await asyncio.to_thread(Ports, f"unix:{link / SOCKET_NAME}", door.context.token)
                try:
                    yield ports
                finally:
                    await asyncio.to_thread(ports.close)
        doors.lent("run").back.set()
        await session.receive("accepted")
        await session.receive("started")
        await session.receive("completed")
    doors.forget()


async def refusal(ports: Ports, host: str, port: int) -> str:
    target = pb.DialTarget(host=pb.HostTarget(host=host, port=port))
    with pytest.raises(PeerError) as caught:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ports.dial(target), ports._loop))
    return caught.value.code.name


def noted(station: Station) -> list[tuple[str, str, str]]:
    lines = [json.loads(each) for each in (station.directory / "data" / "audit.log").read_text().splitlines()]
    return [(each["to"], each["decision"], each.get("reason", "")) for each in lines if each["event"] == "run.connect"]


async def test_a_listed_host_is_reached_through_the_proxy_and_a_port(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Host().running() as host:
        where = f"127.0.0.1:{host.port}"
        async with a_run(station, monkeypatch, [{"host": "127.0.0.1", "port": host.port}], [where]) as ports:
            proxy = await asyncio.to_thread(ports.proxy)
            async with httpx.AsyncClient(proxy=f"http://127.0.0.1:{proxy}", trust_env=False) as client:

                async def body() -> AsyncIterator[bytes]:
                    for part in (b"one ", b"two"):
                        yield part

                answer = await client.post(f"http://{where}/path?q=1", content=body())
                assert answer.status_code == 200
                assert len(answer.content) == 300_000
                refused = await client.get(f"http://127.0.0.1:{host.port + 1}/")
                assert refused.status_code == 403
                assert "does not declare" in refused.text
            target = pb.DialTarget(host=pb.HostTarget(host="127.0.0.1", port=host.port))
            port = await asyncio.to_thread(ports.open, target, where)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
            assert len(await reader.read()) > 300_000
            writer.close()
        assert host.asked[0].startswith(b"POST /path?q=1 HTTP/1.1\r\n")
        assert host.asked[0].endswith(b"one two")
    closed = [
        json.loads(each)
        for each in (station.directory / "data" / "audit.log").read_text().splitlines()
        if '"run.disconnect"' in each
    ]
    assert [(each["to"], each["bytes_received"] > 300_000) for each in closed] == [(where, True)] * 2
    assert ("127.0.0.1:" + str(host.port + 1), "refused", "EGRESS_REFUSED") in noted(station)


async def test_what_is_not_declared_not_listed_or_private_is_refused(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Host().running() as host:
        egress = [
            {"host": "localhost", "port": host.port},
            {"host": "127.0.0.1", "port": 1},
            {"host": "LOCALHOST.", "port": host.port + 1, "allow_private": True, "images": "elsewhere/**"},
            {"host": "no-such-host.invalid", "port": 80},
        ]
        declared = [
            f"localhost:{host.port}", "127.0.0.1:1", f"localhost:{host.port + 1}", "example.org:443",
            "no-such-host.invalid:80",
        ]  # fmt: skip
        async with a_run(station, monkeypatch, egress, declared, max_connections=1) as ports:
            # A name that leads into the node's own network, whatever it is called.
            assert await refusal(ports, "localhost", host.port) == "EGRESS_REFUSED"
            assert await refusal(ports, "127.0.0.1", host.port) == "EGRESS_REFUSED"
            assert await refusal(ports, "localhost", host.port + 1) == "EGRESS_REFUSED"
            assert await refusal(ports, "example.org", 443) == "EGRESS_REFUSED"
            assert await refusal(ports, "127.0.0.1", 2) == "EGRESS_REFUSED"
            assert await refusal(ports, "*.example.org", 443) == "EGRESS_REFUSED"
            assert await refusal(ports, "127.0.0.1", 1) == "HOST_UNREACHABLE"
            assert await refusal(ports, "no-such-host.invalid", 80) == "HOST_UNREACHABLE"
        assert host.asked == []
    assert [each[1] for each in noted(station)] == ["refused"] * 8


async def test_a_run_has_so_many_connections_at_a_time(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Host().running() as host:
        rule = {"host": "127.0.0.1", "port": host.port}
        where = f"127.0.0.1:{host.port}"
        async with a_run(station, monkeypatch, [rule], [where], max_connections=1) as ports:
            target = pb.DialTarget(host=pb.HostTarget(host="127.0.0.1", port=host.port))
            first = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(ports.dial(target), ports._loop))
            assert await refusal(ports, "127.0.0.1", host.port) == "TOO_MANY_CHANNELS"
            await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(first.close(), ports._loop))


async def test_only_tls_with_the_listed_server_name_passes(
    station: Station, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    create_certificate(tmp_path, ["api.example.org", "other.example.org"])
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / CERTIFICATE_FILE, tmp_path / KEY_FILE)
    trust = ssl.create_default_context(cafile=str(tmp_path / CERTIFICATE_FILE))
    async with Host().running(server) as host, Host().running(server) as other:
        egress = [
            {"host": "127.0.0.1", "port": host.port, "tls_server_name": "api.example.org"},
            {"host": "127.0.0.1", "port": other.port},
        ]
        where = f"127.0.0.1:{host.port}"
        async with a_run(station, monkeypatch, egress, [where, f"127.0.0.1:{other.port}"]) as ports:
            # Through the proxy, by CONNECT, which ends the TLS nowhere in between.
            proxy = f"http://127.0.0.1:{await asyncio.to_thread(ports.proxy)}"
            async with httpx.AsyncClient(proxy=proxy, trust_env=False, verify=trust) as client:
                answer = await client.get(f"https://127.0.0.1:{other.port}/")
                assert (answer.status_code, len(answer.content)) == (200, 300_000)
                with pytest.raises(httpx.ProxyError, match="403"):
                    await client.get(f"https://127.0.0.1:{other.port + 1}/")
            target = pb.DialTarget(host=pb.HostTarget(host="127.0.0.1", port=host.port))
            port = await asyncio.to_thread(ports.open, target, where)

            async def ask(name: str | None) -> bytes:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", port, ssl=trust if name else None, server_hostname=name
                )
                writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
                return await reader.read()

            assert len(await ask("api.example.org")) > 300_000
            for name in ("other.example.org", None):
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await ask(name)
        assert len(host.asked) == 1
