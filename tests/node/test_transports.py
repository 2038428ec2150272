"""The agent changes to unary calls where streams do not live, says so, and goes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from vantage.api.admin.v1 import audit_service_pb2, audit_service_pb2_grpc
from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import Reason, error
from vantage.common.rpc import bearer
from vantage.node import session, transport_choice
from vantage.testing.outpost import NODE, Outpost
from vantage.testing.scripted_server import ScriptedServer
from vantage.testing.station import Station, assign, send


async def test_streams_that_are_cut_lead_to_unary_calls(station: Station) -> None:
    async with station.running():
        for _ in range(3):
            stream = await station.session()
            assert stream.hello.transport == pb.TRANSPORT_STREAM
            stream.end()
        sync = await station.session()
        assert sync.hello.transport == pb.TRANSPORT_SYNC
        lease = send(sync, assign())
        await sync.receive("accepted")
        await sync.receive("started")
        assert (await sync.receive("completed")).completed.lease == lease
    assert any("holds back streams: using unary calls" in line and "10 minutes" in line for line in station.said)


async def test_streams_that_stall_lead_to_unary_calls(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "WELCOME_TIMEOUT", 0.3)
    async with station.running():
        for _ in range(2):
            stalled = await station.server.accept()
            assert stalled.hello.transport == pb.TRANSPORT_STREAM
        assert (await station.session()).hello.transport == pb.TRANSPORT_SYNC


async def test_heartbeats_without_answer_lead_to_unary_calls(station: Station) -> None:
    async with station.running():
        for _ in range(2):
            half_open = await station.session(heartbeat=0.02, lease=0.1)
            half_open.answer_heartbeats = False
            assert half_open.hello.transport == pb.TRANSPORT_STREAM
        assert (await station.session()).hello.transport == pb.TRANSPORT_SYNC


async def test_a_server_that_dies_or_says_why_is_no_reason(station: Station, server: ScriptedServer) -> None:
    async with station.running():
        for _ in range(4):
            await station.session()
            await server.stop()
            await station.heard(
                "failed to connect"
            )  # the second attempt: the first was judged while the server was away
            station.said.clear()
            await server.start()
        for _ in range(4):
            (await station.session()).end(error(Reason.DATABASE_UNAVAILABLE, "locked"))
        for _ in range(4):
            stream = await station.session()
            stream.send(pb.ConnectResponse(goodbye=pb.Goodbye(reason="SERVER_STOPPING", message="back soon")))
        assert (await station.session()).hello.transport == pb.TRANSPORT_STREAM


async def test_a_stream_is_tried_again_between_two_heartbeats(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_choice, "RETRY_CAP", 0.0)
    async with station.running():
        for _ in range(3):
            (await station.session()).end()
        sync = await station.session(heartbeat=0.02)
        assert sync.hello.transport == pb.TRANSPORT_SYNC
        send(sync, assign())
        completed = None
        while completed is None:  # what runs goes on, and what was not acknowledged is said again
            stream = await station.session(heartbeat=0.02)
            if stream.hello.transport == pb.TRANSPORT_STREAM:
                assert len(stream.hello.leases) == 1
                await stream.receive("accepted")
                await stream.receive("started")
                completed = await stream.receive("completed")
                stream.acknowledge(completed.sequence)
                await sync.wait_ended()
    assert sync.heartbeats


async def test_unary_calls_that_fail_as_well_lead_back(station: Station, server: ScriptedServer) -> None:
    async with station.running():
        for _ in range(3):
            (await station.session()).end()
        server.script("Connect", error(Reason.UNAVAILABLE, "not now"))
        assert (await station.session()).hello.transport == pb.TRANSPORT_STREAM


async def test_the_audit_has_an_entry_of_a_session_and_not_of_its_calls(tmp_path: Path) -> None:
    async with Outpost.running(tmp_path) as outpost:
        await outpost.start_node({"address": outpost.server.address, "transport": "sync"})
        for number in range(3):
            await outpost.ask("echo", value=number)
        async with outpost.installation.channel() as channel:
            answer = await audit_service_pb2_grpc.AuditServiceStub(channel).ListAuditEntries(
                audit_service_pb2.ListAuditEntriesRequest(
                    filter=audit_service_pb2.AuditFilter(event="NodeSessionService.Sync")
                ),
                metadata=(bearer(outpost.installation.root_token),),
            )
    assert [entry.principal for entry in answer.entries] == [NODE]
