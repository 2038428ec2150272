"""The agent's sessions against a scripted server: resend, reconnect, restart, drain, being turned away."""

from __future__ import annotations

import asyncio
import json

import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.clock import SystemClock
from vantage.common.errors import Reason, VantageError, error
from vantage.node import config as node_config
from vantage.node.connection import Connection, FatalError
from vantage.node.identity import Identity
from vantage.testing import inprocess
from vantage.testing.scripted_server import ScriptedServer, ScriptedSession
from vantage.testing.station import COLLABORATION, NODE, Station, assign, send


@pytest.fixture(params=["stream", "sync"])
def station(station: Station, request: pytest.FixtureRequest) -> Station:
    station.settings["server"]["transport"] = request.param
    return station


async def outcome(session: ScriptedSession) -> pb.ConnectRequest:
    await session.receive("accepted")
    await session.receive("started")
    return await session.receive("completed")


async def test_what_was_not_acknowledged_is_sent_again_with_the_same_sequence(station: Station) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign())
        first = await outcome(session)
        sent = list(session.received)
        session.end()
        session = await station.session()
        assert list(session.hello.leases) == [lease]
        assert await outcome(session) == first
        assert session.received == sent
        session.acknowledge(first.sequence)
        session.end()
        session = await station.session()
        assert not session.hello.leases
        send(session, assign())  # only what is new is sent
        assert (await outcome(session)).sequence > first.sequence


async def test_an_acknowledgement_in_between_keeps_the_rest(station: Station) -> None:
    async with station.running():
        session = await station.session()
        send(session, assign())
        accepted = await session.receive("accepted")
        await session.receive("started")
        completed = await session.receive("completed")
        session.acknowledge(accepted.sequence)
        session.end()
        session = await station.session()
        await session.receive("started")
        assert await session.receive("completed") == completed


async def test_an_assignment_that_comes_twice_runs_once(station: Station) -> None:
    async with station.running():
        session = await station.session()
        message = assign("hold", '{"gate": "a"}')
        send(session, message)
        await inprocess.gates["a"].entered.wait()
        send(session, message)
        session.end()
        session = await station.session()
        send(session, message)
        inprocess.gates["a"].leave.set()
        completed = await outcome(session)
        send(session, message)  # after its end, before its acknowledgement
        other = assign()
        send(session, other)
        await session.receive("accepted")
        await session.receive("started")
        assert (await session.receive("completed")).completed.lease == other.lease
        assert json.loads(completed.completed.result.inline) == {"gate": "a"}
        assert inprocess.gates["a"].count == 1


async def test_a_cancel_that_comes_with_its_assignment_ends_the_run(station: Station, server: ScriptedServer) -> None:
    """In unary calls both are in one answer, and the node has done nothing yet when it is cancelled."""
    agent = station.agent()
    task = asyncio.create_task(agent.run())
    session = await server.accept()
    session.welcome(COLLABORATION)
    lease = send(session, assign("hold", '{"gate": "a"}'))
    session.send(pb.ConnectResponse(cancel_run=pb.CancelRun(lease=lease, reason="TASK_CANCELLED")))
    while not (message := await session.receive("accepted", "started", "completed")).HasField("completed"):
        pass  # over a stream it may have begun
    assert message.completed.cancelled.reason == "TASK_CANCELLED"
    session.acknowledge(message.sequence)
    agent.stop.ask()
    await asyncio.wait_for(task, 20)  # nothing is held any more


async def test_what_is_revoked_with_its_assignment_is_held_no_more(station: Station) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign("hold", '{"gate": "a"}'))
        session.send(pb.ConnectResponse(heartbeat_reply=pb.HeartbeatReply(revoked=[lease])))
        send(session, assign())
        while not (await session.receive("accepted", "started", "completed")).HasField("completed"):
            pass  # then what came before was dealt with
        session.end()
        assert lease not in (await station.session()).hello.leases


async def test_a_run_goes_on_while_the_server_is_away(station: Station, server: ScriptedServer) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign("hold", '{"gate": "a"}'))
        await inprocess.gates["a"].entered.wait()
        await server.stop()
        inprocess.gates["a"].leave.set()
        await server.start()
        session = await station.session()
        assert list(session.hello.leases) == [lease]
        assert (await outcome(session)).completed.HasField("result")
    assert any("not connected" in line for line in station.said)


async def test_an_outcome_survives_the_process(station: Station) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign())
        completed = await outcome(session)
        first_instance = session.hello.instance_id
    async with station.running():
        session = await station.session()
        assert session.hello.instance_id != first_instance
        assert list(session.hello.leases) == [lease]
        assert await session.receive("completed") == completed
        session.acknowledge(completed.sequence)
        send(session, assign())
        assert (await outcome(session)).sequence > completed.sequence


async def test_a_run_that_ran_when_the_process_died_is_reported_lost(station: Station) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign("hold", '{"gate": "a"}'))
        await inprocess.gates["a"].entered.wait()
        await session.receive("accepted")
        await session.receive("started")
    assert station.runs == []
    (station.directory / "data" / "runs" / "leftover").mkdir(parents=True)
    async with station.running():
        session = await station.session()
        completed = (await session.receive("completed")).completed
        assert completed.lease == lease
        assert completed.failure.reason == "NODE_LOST"
        assert station.runs == []
        assert inprocess.gates["a"].count == 1


async def test_a_run_that_waited_when_the_process_died_runs_afterwards(station: Station) -> None:
    station.settings["slots"] = 1
    async with station.running():
        session = await station.session()
        send(session, assign("hold", '{"gate": "a"}'))
        await inprocess.gates["a"].entered.wait()
        await session.receive("accepted")
        await session.receive("started")
        waiting = send(session, assign("hold", '{"gate": "b"}'))
        await session.receive("accepted")
    inprocess.gates["b"].leave.set()
    async with station.running():
        session = await station.session()
        lost = (await session.receive("completed")).completed
        assert lost.failure.reason == "NODE_LOST"
        completed = (await outcome(session)).completed
        assert completed.lease == waiting
        assert completed.HasField("result")


async def test_a_revoked_lease_is_stopped_and_nothing_is_said_about_it(station: Station) -> None:
    async with station.running():
        session = await station.session()
        lease = send(session, assign("hold", '{"gate": "a"}'))
        await inprocess.gates["a"].entered.wait()
        session.end()
        session = await station.session(revoked=(lease,))
        send(session, assign())
        assert (await outcome(session)).completed.lease != lease
        assert inprocess.gates["a"].left == "cancelled"
        session.end()
        assert lease not in (await station.server.accept()).hello.leases


async def test_heartbeats_go_on_while_runs_are_busy_and_name_their_leases(station: Station) -> None:
    async with station.running():
        session = await station.session(heartbeat=0.02)
        lease = send(session, assign("hold", '{"gate": "a"}'))
        await inprocess.gates["a"].entered.wait()
        await session.receive("accepted")
        await session.receive("started")
        while not (session.heartbeats and list(session.heartbeats[-1].leases) == [lease]):
            await session.receive("heartbeat")
        assert session.heartbeats[-1].free_slots == 1


async def test_a_server_that_is_silent_is_left_and_found_again(station: Station) -> None:
    async with station.running():
        session = await station.session(heartbeat=0.02, lease=0.1)
        session.answer_heartbeats = False
        again = await station.session()
        assert again.hello.instance_id == session.hello.instance_id
    assert any("half open" in line for line in station.said)


async def test_the_token_is_used_again_and_replaced_before_it_expires(station: Station, server: ScriptedServer) -> None:
    async with station.running():
        first = await station.session()
        first.end()
        second = await station.session()
        assert second.token == first.token
        assert len(server.calls["ExchangeAssertion"]) == 1
    server.token_seconds = 0
    async with station.running():
        first = await station.session()
        first.end()
        second = await station.session()
        assert second.token != first.token


async def test_a_token_that_is_refused_is_replaced_once(station: Station, server: ScriptedServer) -> None:
    server.script("Connect", error(Reason.TOKEN_INVALID, "revoked"))
    async with station.running():
        await station.session()
        assert len(server.calls["ExchangeAssertion"]) == 2


async def test_calls_at_once_open_one_channel(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    config = node_config.load(station.write())
    connection = Connection(config.server, Identity.load(config.identity, SystemClock()), SystemClock())
    both = asyncio.Barrier(2)

    async def looked_up() -> None:
        await both.wait()

    monkeypatch.setattr(connection, "trust", looked_up)
    async with asyncio.timeout(20):
        first, second = await asyncio.gather(connection.channel(), connection.channel())
    assert first is second
    await connection.close()


@pytest.mark.parametrize(
    ("method", "problems", "text"),
    [
        ("ExchangeAssertion", [error(Reason.PRINCIPAL_UNKNOWN, "create the node first")], "create the node first"),
        ("ExchangeAssertion", [error(Reason.CERTIFICATE_UNTRUSTED, "wrong authority")], "wrong authority"),
        ("ExchangeAssertion", [error(Reason.ASSERTION_INVALID, "wrong audience")], "wrong audience"),
        ("Connect", [error(Reason.PERMISSION_DENIED, "not a node")], "not a node"),
        ("Connect", [error(Reason.TOKEN_INVALID, "first"), error(Reason.TOKEN_INVALID, "second")], "second"),
    ],
)
async def test_a_node_that_is_not_admitted_says_why_and_ends(
    station: Station, server: ScriptedServer, method: str, problems: list[VantageError], text: str
) -> None:
    server.script(method, *problems)
    with pytest.raises(FatalError):
        await asyncio.wait_for(station.agent().run(), 20)
    assert text in station.said[-1]
    assert "does not admit" in station.said[-1]


async def test_a_server_that_does_not_know_the_session_is_told(station: Station, server: ScriptedServer) -> None:
    server.script("Connect", error(Reason.UNIMPLEMENTED, "no such service"))
    if station.settings["server"]["transport"] == "sync":
        async with station.running():
            await station.session()
        assert "update it" in station.said[0]
    else:
        with pytest.raises(FatalError, match="no such service"):
            await asyncio.wait_for(station.agent().run(), 20)


async def test_a_node_that_is_not_admitted_any_more_says_why_and_ends(station: Station, server: ScriptedServer) -> None:
    server.token_seconds = 0  # each heartbeat needs a new one
    agent = station.agent()
    task = asyncio.create_task(agent.run())
    session = await station.server.accept()
    server.script("ExchangeAssertion", *[error(Reason.PRINCIPAL_UNKNOWN, "the node was deleted")] * 2)
    session.welcome(COLLABORATION)
    with pytest.raises(FatalError):
        await asyncio.wait_for(task, 20)
    server._scripts["ExchangeAssertion"].clear()  # one more, if it was the first to ask
    assert station.said[-1] == "the server does not admit this node: the node was deleted [PRINCIPAL_UNKNOWN]"


async def test_a_fenced_node_ends_and_a_stopping_server_is_waited_for(station: Station) -> None:
    agent = station.agent()
    task = asyncio.create_task(agent.run())
    session = await station.session()
    session.send(pb.ConnectResponse(goodbye=pb.Goodbye(reason="SERVER_STOPPING", message="back soon")))
    session = await station.session()
    session.send(pb.ConnectResponse(goodbye=pb.Goodbye(reason="SESSION_FENCED", message="a newer session took over")))
    with pytest.raises(FatalError, match="newer session"):
        await asyncio.wait_for(task, 20)


async def test_problems_that_pass_are_waited_for(station: Station, server: ScriptedServer) -> None:
    server.script("GetServerInfo", error(Reason.UNAVAILABLE, "starting"))
    server.script("ExchangeAssertion", error(Reason.CLOCK_SKEWED, "clock is 90 s behind"))
    server.script("Connect", error(Reason.INTERNAL, "fault"), error(Reason.DATABASE_UNAVAILABLE, "locked"))
    async with station.running():
        await station.session()


async def test_stopping_finishes_what_runs_and_takes_no_more(station: Station) -> None:
    agent = station.agent()
    task = asyncio.create_task(agent.run())
    session = await station.session()
    send(session, assign("hold", '{"gate": "a"}'))
    await inprocess.gates["a"].entered.wait()
    agent.stop.ask()
    await station.heard("stopping")
    left_alone = send(session, assign())
    inprocess.gates["a"].leave.set()
    completed = await outcome(session)
    assert completed.completed.HasField("result")
    assert all(left_alone not in each.leases for each in session.heartbeats)
    assert not task.done()  # the server has not acknowledged yet
    session.acknowledge(completed.sequence)
    await asyncio.wait_for(task, 20)
    await session.wait_ended()
    assert [each.WhichOneof("message") for each in session.received] == ["accepted", "started", "completed"]


async def test_what_has_not_begun_is_left_to_the_next_start_and_subtasks_are_taken(station: Station) -> None:
    station.settings["slots"] = 1
    agent = station.agent()
    task = asyncio.create_task(agent.run())
    session = await station.session()
    running = send(session, assign("hold", '{"gate": "a"}'))
    await inprocess.gates["a"].entered.wait()
    waits = send(session, assign())
    for _ in range(3):
        await session.receive("accepted", "started")
    agent.stop.ask()
    assert (await session.receive("heartbeat")).heartbeat.stopping  # at once, so that nothing more is assigned
    await station.heard("1 runs that have not begun")
    asked = assign()
    asked.spec.parent_run = running.run  # what runs may wait for it
    send(session, asked)
    await session.receive("accepted")
    inprocess.gates["a"].leave.set()
    for lease in (running, asked.lease):
        message = await session.receive("completed", "started")
        if message.HasField("started"):
            message = await session.receive("completed")
        assert message.completed.lease == lease
        session.acknowledge(message.sequence)
    await asyncio.wait_for(task, 20)
    async with station.running():
        session = await station.session()
        assert (list(session.hello.leases), session.hello.stopping) == ([waits], False)
        assert (await outcome(session)).completed.lease == waits


async def test_stopping_twice_cancels_what_runs(station: Station) -> None:
    agent = station.agent()
    task = asyncio.create_task(agent.run())
    session = await station.session()
    send(session, assign("hold", '{"gate": "a"}'))
    await inprocess.gates["a"].entered.wait()
    agent.stop.ask()
    agent.stop.ask()
    completed = await outcome(session)
    assert completed.completed.cancelled.reason == "NODE_STOPPING"
    session.acknowledge(completed.sequence)
    await asyncio.wait_for(task, 20)
    assert inprocess.gates["a"].left == "cancelled"


async def test_a_second_process_with_the_same_data_directory_is_turned_away(station: Station) -> None:
    async with station.running():
        await station.session()
        with pytest.raises(VantageError, match="another node"):
            await station.agent().run()


async def test_the_ready_file_is_written_when_the_node_is_connected(station: Station) -> None:
    ready = station.directory / "ready"
    agent = station.agent()
    task = asyncio.create_task(agent.run(ready))
    session = await station.server.accept()
    assert not ready.exists()
    session.welcome("collaborations/trial")
    await agent.connected.wait()
    assert ready.exists()
    assert f"ready: {NODE}" in station.said[-1]
    agent.stop.ask()
    await asyncio.wait_for(task, 20)
