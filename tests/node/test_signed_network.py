"""Signed and sealed from end to end: a real server, real nodes, the client, and a task that asks in its name."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client import AsyncClient
from vantage.common.errors import NotFoundError, Reason, RefusedError
from vantage.node import admin, answers
from vantage.node.door import RunCallbacks
from vantage.node.secrecy import SEEN_FILE
from vantage.testing.peer_network import PATIENCE, PeerNetwork
from vantage.testing.processes import HOME, RESEARCHER
from vantage.testing.server import PASSWORD
from vantage.testing.station import COLLABORATION, IMAGE

SIGNED: dict[str, Any] = {"policy": {"allow_unsigned": False}, "trust": {"first_use": True}, "slots": 10}
MARK = "marker-of-a-secret-question"


@pytest.fixture
def release() -> list[dict[str, Any]]:
    """What must hold before something leaves hilda's node."""
    return []


@pytest_asyncio.fixture
async def network(tmp_path: Path, release: list[dict[str, Any]]) -> AsyncIterator[PeerNetwork]:
    ruled = {**SIGNED, "policy": {**SIGNED["policy"], "release": release}}
    settings = {"clara": SIGNED, "hilda": ruled}
    async with PeerNetwork.running(tmp_path / "network", tuple(settings), settings=settings) as running:
        yield running


@pytest_asyncio.fixture
async def client(network: PeerNetwork, tmp_path: Path) -> AsyncIterator[AsyncClient]:
    async with network.signing_client(tmp_path) as made:
        yield made


async def subtask(door: RunCallbacks, *organizations: str, key: str) -> list[task_pb2.Run]:
    request = algorithm_pb.RunSubtaskRequest(request_id=str(uuid.uuid4()), function="lend")
    for each in organizations:
        arguments = types_pb2.Payload(
            media_type="application/json", inline=json.dumps({"name": f"{key}{each}"}).encode()
        )
        request.targets.add(organization=f"organizations/{each}", arguments=arguments)
    runs = []
    async with aclosing(door.subtask(request)) as events:
        async for event in events:
            if event.HasField("run_finished"):
                runs.append(event.run_finished.run)
    return runs


async def test_a_signed_task_asks_others_and_the_server_sees_nothing(
    network: PeerNetwork, client: AsyncClient, tmp_path: Path
) -> None:
    handle = await client.tasks.run(
        image=IMAGE,
        function="lend",
        arguments={"name": f"{MARK}clara"},
        collaboration=COLLABORATION,
        organizations=["clara"],
    )
    async with asyncio.timeout(PATIENCE):
        door = await network.door("clara", MARK)
        asking = asyncio.create_task(subtask(door, "clara", "hilda", key=f"{MARK}-below-"))
        for each in ("clara", "hilda"):
            await network.door(each, f"{MARK}-below-")
            network.end(each, f"{MARK}-below-")
        runs = await asking
        answers = {run.organization: json.loads(run.result.inline) for run in runs}
        assert answers == {
            "organizations/clara": {"name": f"{MARK}-below-clara"},
            "organizations/hilda": {"name": f"{MARK}-below-hilda"},
        }
        network.end("clara", MARK)
        (result,) = await handle.results()
    assert result.value == {"name": f"{MARK}clara"}
    assert result.verified
    # What clara's node has seen of hilda's keys outlives its process.
    (seen,) = (tmp_path / "network" / "clara").rglob(SEEN_FILE)
    assert "organizations/hilda/nodes/hilda-1" in json.loads(seen.read_text())
    for path in (tmp_path / "network" / "server").rglob("*"):
        if path.is_file():
            assert MARK.encode() not in path.read_bytes(), path


async def read(door: RunCallbacks, run: str) -> bytes:
    async with aclosing(door.subtask_result(run)) as blocks:
        return b"".join([block async for block in blocks])


async def test_a_large_answer_is_read_by_the_run_that_asked_and_one_at_a_time(
    network: PeerNetwork, client: AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "_HANDED_ON", 1)
    doors = []
    for key in ("asking-", "other-"):
        await client.tasks.run(
            image=IMAGE,
            function="lend",
            arguments={"name": f"{key}clara"},
            collaboration=COLLABORATION,
            organizations=["clara"],
        )
        doors.append(await network.door("clara", key))
    door, other = doors
    async with asyncio.timeout(PATIENCE):
        asking = asyncio.create_task(subtask(door, "clara", "hilda", key=f"{MARK}-below-"))
        for each in ("clara", "hilda"):
            await network.door(each, f"{MARK}-below-")
            network.end(each, f"{MARK}-below-")
        runs = {run.organization.rpartition("/")[2]: run.result.reference for run in await asking}
        expected = {each: json.dumps({"name": f"{MARK}-below-{each}"}, separators=(",", ":")).encode() for each in runs}
        for each, run in runs.items():
            assert [await read(door, run) for _ in range(2)] == [expected[each]] * 2  # again, from the beginning
            with pytest.raises(NotFoundError, match="has created no subtask"):
                await read(other, run)
        async with aclosing(door.subtask_result(runs["clara"])) as blocks:
            assert await anext(blocks) == expected["clara"]
            second = asyncio.create_task(read(door, runs["hilda"]))
            assert not (await asyncio.wait({second}, timeout=0.5))[0]
            assert not [each for each in (tmp_path / "network" / "clara").rglob("runs/**/*") if each.is_file()]
        assert await second == expected["hilda"]


async def test_an_unsigned_task_is_refused(network: PeerNetwork, client: AsyncClient) -> None:
    address, mark = network.server.address, network.server.fingerprint
    async with AsyncClient.connect(address, fingerprint=mark) as plain:
        await plain.auth.login(RESEARCHER, PASSWORD)
        handle = await plain.tasks.run(
            image=IMAGE, function="lend", arguments={"name": "x"}, collaboration=COLLABORATION, organizations=["hilda"]
        )
        (result,) = await handle.results(PATIENCE)
    assert result.failure is not None
    assert result.failure.reason == "ORDER_MISSING"


async def test_a_task_that_delegates_nothing_cannot_ask_others(network: PeerNetwork, client: AsyncClient) -> None:
    handle = await client.tasks.run(
        image=IMAGE,
        function="lend",
        arguments={"name": "aloneclara"},
        collaboration=COLLABORATION,
        organizations=["clara"],
        delegate=False,
    )
    async with asyncio.timeout(PATIENCE):
        door = await network.door("clara", "alone")
        with pytest.raises(RefusedError) as caught:
            await subtask(door, "hilda", key="never-")
        assert caught.value.reason is Reason.ORDER_EXCEEDS_PARENT
        network.end("clara", "alone")
        await handle.results()


@pytest.mark.parametrize("release", [[{"columns": ["name"], "approval": "every_result"}]])
async def test_a_person_sees_the_open_result_and_the_researcher_a_sealed_one(
    network: PeerNetwork, client: AsyncClient, tmp_path: Path
) -> None:
    handle = await client.tasks.run(
        image=IMAGE,
        function="lend",
        arguments={"name": f"{MARK}hilda"},
        collaboration=COLLABORATION,
        organizations=["hilda"],
    )
    async with asyncio.timeout(PATIENCE):
        await network.door("hilda", MARK)
        network.end("hilda", MARK)
        async for event in handle.events():
            if "looked at the result" in str(event):
                break
        data = next((tmp_path / "network" / "hilda").rglob(admin.SOCKET_NAME)).parent
        (waiting,) = await asyncio.to_thread(admin.ask, data, "approvals.list")
        assert waiting["requester"] == f"{HOME}/users/{RESEARCHER}"
        shown = await asyncio.to_thread(admin.ask, data, "approvals.show", id=waiting["id"])
        assert MARK in shown["preview"]
        await asyncio.to_thread(admin.ask, data, "approvals.decide", id=waiting["id"], allow=True)
        (result,) = await handle.results()
    assert result.value == {"name": f"{MARK}hilda"}
    assert result.verified
    for path in (tmp_path / "network" / "server").rglob("*"):
        if path.is_file():
            assert MARK.encode() not in path.read_bytes(), path
