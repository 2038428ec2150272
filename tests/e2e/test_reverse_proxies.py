"""nginx and HAProxy in front of the server: as docs/server.md shows them, and where nobody has thought of streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.api.node.v1 import node_session_service_pb2 as session_pb
from vantage.client import AsyncClient, RunProgress, TaskFinished
from vantage.common.errors import Reason
from vantage.common.rpc import ServerTrust, error_from_rpc, open_channel
from vantage.node import transport_choice
from vantage.node.connection import is_fatal
from vantage.testing import inprocess
from vantage.testing.outpost import Outpost
from vantage.testing.processes import PASSWORD, RESEARCHER
from vantage.testing.proxy import Proxy
from vantage.testing.reverse_proxies import Kind, reverse_proxy
from vantage.testing.station import COLLABORATION, IMAGE

pytestmark = pytest.mark.proxies

MIB = 1024 * 1024


@pytest.fixture
async def outpost(tmp_path: Path) -> AsyncIterator[Outpost]:
    async with Outpost.running(tmp_path) as running:
        yield running


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
async def test_node_and_client_work_through_a_proxy_that_ends_tls(outpost: Outpost, tmp_path: Path, kind: Kind) -> None:
    async with (
        reverse_proxy(kind, tmp_path / kind, outpost.server.address) as proxy,
        AsyncClient.connect(proxy.address, fingerprint=proxy.fingerprint) as client,
    ):
        await outpost.start_node({"address": proxy.address, "tls": True, "fingerprint": proxy.fingerprint})
        await client.auth.login(RESEARCHER, PASSWORD)
        ask: dict[str, Any] = {"image": IMAGE, "collaboration": COLLABORATION, "organizations": ["clara"]}
        talk = await client.tasks.run(**ask, function="talk", arguments={"lines": 3})
        events = [event async for event in talk.events()]
        assert isinstance(events[-1], TaskFinished)
        assert any(isinstance(event, RunProgress) and event.fraction == 1 for event in events)
        # Up by the node, down by the client, both as streams that are longer than the proxy's buffers.
        large = await client.tasks.run(**ask, function="large", arguments={"size": 12 * MIB})
        assert await large.result(timeout=60) == bytes(12 * MIB)
        shown = await client.nodes.get("clara/clara-1")
        assert (shown.online, shown.transport) == (True, "stream")


IMPATIENT = {
    "nginx": {"grpc_read_timeout 5m": "grpc_read_timeout 2s"},
    "haproxy": {"timeout server 5m": "timeout server 2s"},
}
"""Streams are cut when they are silent for two seconds; heartbeats come every ten. Unary calls must be answered within
that time, on a busy machine as well."""
BUFFERING = {"timeout client 5m": "timeout client 5m\n  timeout http-request 2s\n  option http-buffer-request"}
"""Requests are held back until they are complete, and refused when they are not within two seconds."""


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("nginx", IMPATIENT["nginx"]), ("haproxy", IMPATIENT["haproxy"]), ("haproxy", BUFFERING)],
    ids=["nginx that cuts", "haproxy that cuts", "haproxy that buffers"],
)
async def test_a_node_takes_unary_calls_where_a_proxy_lets_no_streams_live(
    outpost: Outpost, tmp_path: Path, kind: Kind, changes: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_choice, "BAD_STREAMS", 2)  # each takes the proxy's two seconds
    async with reverse_proxy(kind, tmp_path / kind, outpost.server.address, changes) as proxy:
        await outpost.start_node({"address": proxy.address, "tls": True, "fingerprint": proxy.fingerprint})
        async with asyncio.timeout(60):
            await outpost.heard("cuts or holds back streams")
            while (await outpost.node()).transport != session_pb.TRANSPORT_SYNC:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.05)
        asking = asyncio.create_task(outpost.ask("hold", gate="long"))
        await inprocess.gates["long"].entered.wait()
        changed = len(outpost.said)
        await asyncio.sleep(3)  # silence, as far as the session is concerned
        inprocess.gates["long"].leave.set()
        run = await asking
        assert json.loads(run.result.inline) == {"gate": "long"}, run
        large = await outpost.ask("large", size=3 * MIB)
        assert large.result.size_bytes == 3 * MIB, large
        assert outpost.said[changed:] == []


@pytest.mark.parametrize("status", [401, 403, 404, 500, 502])
async def test_what_a_proxy_answers_in_place_of_the_server_passes(tmp_path: Path, status: int) -> None:
    """A node that took it for the server's word would end, and not be started again."""
    changes = {"location / {": f"location / {{ return {status};"}
    async with (
        reverse_proxy("nginx", tmp_path, "127.0.0.1:9", changes) as proxy,
        open_channel(proxy.address, await ServerTrust.from_fingerprint(proxy.address, proxy.fingerprint)) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await auth_service_pb2_grpc.AuthServiceStub(channel).GetServerInfo(auth_service_pb2.GetServerInfoRequest())
        problem = error_from_rpc(caught.value)
        assert problem.reason is Reason.UNAVAILABLE
        assert str(status) in problem.message
        assert not is_fatal(problem)


async def test_a_proxy_that_shows_another_certificate_is_not_trusted(outpost: Outpost, tmp_path: Path) -> None:
    async with (
        reverse_proxy("haproxy", tmp_path / "right", outpost.server.address) as right,
        reverse_proxy("haproxy", tmp_path / "wrong", outpost.server.address) as wrong,
        Proxy.to(right.address) as way,
    ):
        await outpost.start_node({"address": way.address, "tls": True, "fingerprint": right.fingerprint})
        way.lead_to(wrong.address)
        way.cut()
        await outpost.heard(f"shows the certificate {wrong.fingerprint}")
        way.lead_to(right.address)
        assert json.loads((await outpost.ask("echo", value=7)).result.inline) == {"value": 7}
