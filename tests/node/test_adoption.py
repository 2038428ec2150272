"""A node that is killed and started again goes on with its containers: real processes, real engine, ``kill -9``."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Literal

import docker
import pytest

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import argument_files, cosign, pki, sealing
from vantage.common.dsse import digest_of
from vantage.common.sealing import SealedPayload
from vantage.node import admin
from vantage.node.executor.docker import LABEL_NODE, owner_of
from vantage.testing import images
from vantage.testing.engine import BASE_IMAGE, docker_client, leftovers, remove_leftovers
from vantage.testing.orders import Asker
from vantage.testing.postgres import Postgres
from vantage.testing.registry import Registry
from vantage.testing.scripted_server import ScriptedServer, ScriptedSession
from vantage.testing.station import Station, assign, send

pytestmark = pytest.mark.docker

AUTHOR = pki.create_key()
START = "from vantage.node.cli import node; node()"
DIE = """
import importlib, os, signal
module, name, method, when = {point!r}.split(" ")
owner = getattr(importlib.import_module("vantage.node." + module), name)
whole = getattr(owner, method)
async def dying(*args, **kwargs):
    if when == "after":
        await whole(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, method, dying)
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    with docker_client() as client:
        yield client


@pytest.fixture(scope="module")
def image(engine: docker.DockerClient, registry: Registry) -> Iterator[str]:
    with images.pushed(engine, Path(__file__).with_name("steady.py"), f"{registry.address}/algorithms/steady") as made:
        asyncio.run(images.sign(made, AUTHOR))
        yield made


async def docker_says(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec("docker", *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    return output.decode()


@contextmanager
def reading(container: Any) -> Iterator[Iterator[bytes]]:
    """What a container prints from now on, while no node reads it."""
    stream = container.attach(stream=True, logs=False)
    try:
        yield iter(stream)
    finally:
        stream.close()
        # The library keeps the file around the socket open.
        stream._response.raw.close()
        stream._response.close()


class Kept:
    """A station with the Docker executor, whose node is a process."""

    def __init__(self, station: Station, registry: Registry, engine: docker.DockerClient, image: str) -> None:
        self.station = station
        self.engine = engine
        self.image = image
        self.data = station.directory / "lung.csv"
        self.data.chmod(0o644)
        (station.directory / "author.pub").write_bytes(cosign.public_pem(AUTHOR.public_key()))
        rule = {"repository": f"{registry.address}/algorithms/*", "keys": ["author.pub"]}
        station.settings |= {
            "executor": "docker",
            "allow_unsandboxed": False,
            "policy": {"images": [rule], "allow_logs": True},
            "limits": {"memory": "256MiB"},
        }

    @property
    def label(self) -> str:
        return self.station.label

    def assign(self, function: str = "steady", arguments: str = "{}", **changes: Any) -> pb.Assign:
        return assign(function, arguments, datasets={"table": "lung"}, image=self.image, **changes)

    def go(self) -> None:
        """Let the algorithm go on; in place, since the container sees this very file."""
        with self.data.open("a") as file:
            file.write("go\n")

    def container(self) -> Any:
        (found,) = self.engine.containers.list(all=True, filters={"label": self.label})
        return found

    async def starts(self) -> int:
        """How many containers of the node were ever started."""
        filters = ["--filter", "event=start", "--filter", f"label={self.label}", "--format", "{{.ID}}"]
        return len(
            (await docker_says("events", "--since", "0", "--until", str(int(time.time()) + 1), *filters)).split()
        )

    def left(self) -> list[str]:
        return [*leftovers(self.engine, self.label), *map(str, self.station.runs)]

    @asynccontextmanager
    async def node(self, die: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
        """The node as a process; killed at the end.

        Args:
            die: ``module class method before|after``: where it kills itself.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            (DIE.format(point=die) if die else "") + START,
            "start",
            "--config",
            str(self.station.write()),
            stdout=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


@pytest.fixture
def kept(station: Station, registry: Registry, engine: docker.DockerClient, image: str) -> Iterator[Kept]:
    made = Kept(station, registry, engine, image)
    yield made
    remove_leftovers(engine, made.label)


def lines(*sessions: ScriptedSession) -> list[str]:
    return [line for session in sessions for each in session.received for line in each.log_lines.lines]


async def outcome(session: ScriptedSession) -> pb.Completed:
    """What a run that was started or gone on with says until its end."""
    await session.receive("accepted")
    await session.receive("started")
    return (await session.receive("completed")).completed


async def ended(session: ScriptedSession) -> pb.Completed:
    """How a run ends, whether it is said to have started or not."""
    while not (found := await session.receive("accepted", "started", "completed")).HasField("completed"):
        pass
    return found.completed


async def begun(kept: Kept, message: pb.Assign) -> ScriptedSession:
    """The session of a node whose run waits for the word."""
    session = await kept.station.session()
    send(session, message)
    await session.receive("accepted")
    await session.receive("started")
    while not any("began" in line for line in lines(session)):
        await session.receive("log_lines")
    return session


async def test_a_container_that_runs_is_gone_on_with(kept: Kept) -> None:
    message = kept.assign()
    async with kept.node() as process:
        first = await begun(kept, message)
        process.kill()
    container = kept.container()
    assert container.status == "running"
    async with kept.node():
        second = await kept.station.session()
        assert list(second.hello.leases) == [message.lease]
        await second.receive("accepted")
        await second.receive("started")
        kept.go()
        completed = (await second.receive("completed")).completed
        assert completed.lease == message.lease
        me = json.loads(completed.result.inline)["me"]
        assert lines(first, second) == [f"began {me}", f"went on {me}"]  # what was said is not said again
        assert kept.left() == []


@pytest.mark.postgresql
async def test_a_container_reaches_its_database_through_the_node_that_goes_on_with_it(kept: Kept) -> None:
    with Postgres() as postgres:
        (kept.station.directory / "password").write_text(postgres.password)
        registry = {"name": "registry", "format": "postgresql", "url": postgres.url(), "password_file": "password"}
        kept.station.settings["datasets"].append(registry | {"access": "connection"})
        message = kept.assign("reaching")
        message.spec.targets[0].datasets.add(parameter="db", dataset="registry")
        async with kept.node() as process:
            first = await begun(kept, message)
            while "reached" not in lines(first):
                await first.receive("log_lines")
            process.kill()
        async with kept.node():
            second = await kept.station.session()
            await second.receive("accepted")
            await second.receive("started")
            kept.go()
            completed = (await second.receive("completed")).completed
    assert completed.failure.message == ""
    assert json.loads(completed.result.inline) == {"answers": ["N", "N"], "password": True}
    assert kept.left() == []


async def test_an_algorithm_that_ends_while_no_node_is_there_waits_with_its_result(kept: Kept) -> None:
    message = kept.assign()
    async with kept.node() as process:
        first = await begun(kept, message)
        process.kill()
    with reading(kept.container()) as output:
        kept.go()
        assert b"went on" in await asyncio.to_thread(next, output)
    async with kept.node():
        second = await kept.station.session()
        completed = await outcome(second)
        assert not completed.HasField("failure"), completed.failure
        assert lines(first) == [f"began {json.loads(completed.result.inline)['me']}"]
        assert kept.left() == []


@pytest.mark.parametrize(
    "point",
    [
        "run_door RunDoor created before",
        "run_door RunDoor created after",
        "run_door RunDoor result before",
        "run_door RunDoor result after",
        "run_door RunDoor ended before",
        "run_door RunDoor ended after",
        "journal Journal finish before",
        "execution Execution tidy before",
    ],
)
async def test_wherever_it_dies_the_run_is_executed_once_and_answered(kept: Kept, point: str) -> None:
    kept.go()
    message = kept.assign()
    async with kept.node(die=point) as process:
        send(await kept.station.session(), message)
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    async with kept.node():
        session = await kept.station.session()
        assert list(session.hello.leases) == [message.lease]
        completed = await ended(session)
        assert completed.lease == message.lease
        assert not completed.HasField("failure"), completed.failure
        assert "me" in json.loads(completed.result.inline)
        assert kept.left() == []
        assert await kept.starts() == 1


async def test_a_lease_that_the_server_gave_away_meanwhile_is_stopped_and_nothing_is_said(kept: Kept) -> None:
    message = kept.assign()
    async with kept.node() as process:
        await begun(kept, message)
        process.kill()
    async with kept.node() as process:
        session = await kept.station.session(revoked=(message.lease,))
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
        assert not any(each.HasField("completed") for each in session.received)
    assert kept.left() == []


async def test_stopping_finishes_what_was_gone_on_with(kept: Kept) -> None:
    message = kept.assign()
    async with kept.node() as process:
        await begun(kept, message)
        process.kill()
    async with kept.node() as process:
        session = await kept.station.session()
        await session.receive("accepted")
        await session.receive("started")
        process.send_signal(signal.SIGTERM)
        kept.go()
        completed = await session.receive("completed")
        assert completed.completed.HasField("result")
        session.acknowledge(completed.sequence)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert kept.left() == []


async def test_a_container_that_is_not_the_one_that_was_made_is_removed_and_the_run_is_lost(kept: Kept) -> None:
    message = kept.assign()
    async with kept.node() as process:
        await begun(kept, message)
        process.kill()
    made = kept.container()
    impostor = kept.engine.containers.create(
        made.image.id, labels=made.labels, entrypoint=["sleep", "1000"], network_mode="none"
    )
    made.remove(force=True)
    impostor.start()
    async with kept.node():
        session = await kept.station.session()
        assert (await session.receive("completed")).completed.failure.reason == "NODE_LOST"
        assert kept.left() == []


async def test_what_was_killed_while_no_node_was_there_is_lost_and_not_the_authors_fault(kept: Kept) -> None:
    message = kept.assign()
    async with kept.node() as process:
        await begun(kept, message)
        process.kill()
    kept.container().kill()
    async with kept.node():
        session = await kept.station.session()
        assert (await outcome(session)).failure.reason == "NODE_LOST"
        assert kept.left() == []


async def test_what_the_admin_forbids_with_the_restart_is_stopped(kept: Kept) -> None:
    message = kept.assign()
    async with kept.node() as process:
        await begun(kept, message)
        process.kill()
    kept.station.settings["policy"] = {**kept.station.settings["policy"], "organizations": ["hilda"]}
    async with kept.node():
        session = await kept.station.session()
        assert (await ended(session)).failure.reason == "POLICY_REFUSED"
        assert kept.left() == []


async def test_the_time_that_a_run_may_take_counts_from_its_start(kept: Kept) -> None:
    kept.station.settings["limits"]["max_runtime"] = 3600
    message = kept.assign()
    async with kept.node() as process:
        await begun(kept, message)
        process.kill()
    kept.station.settings["limits"]["max_runtime"] = 1  # less than it has run already
    async with kept.node():
        session = await kept.station.session()
        assert (await ended(session)).failure.reason == "RUNTIME_EXCEEDED"
        assert kept.left() == []


async def test_leftovers_of_runs_that_nobody_knows_are_removed(kept: Kept) -> None:
    async with kept.node() as process:
        session = await kept.station.session()
        process.kill()
    directory = kept.station.directory / "data" / "runs" / "0123456789abcdef"
    (directory / "api").mkdir(parents=True)
    (directory / "api" / "api.sock").touch()
    (directory / "result").write_text("secret")
    owner = {LABEL_NODE: owner_of(kept.station.directory / "data")}
    kept.engine.containers.create(BASE_IMAGE, labels=owner, entrypoint=["sleep", "1000"], network_mode="none").start()
    assert len(kept.left()) == 2
    async with kept.node():
        session = await kept.station.session()
        assert not session.hello.leases
        assert kept.left() == []


async def test_stopping_may_leave_what_runs_to_the_next_start(kept: Kept) -> None:
    kept.station.settings["on_stop"] = "leave"
    message = kept.assign()
    async with kept.node() as process:
        await begun(kept, message)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    assert kept.container().status == "running"
    async with kept.node():
        session = await kept.station.session()
        kept.go()
        assert (await outcome(session)).HasField("result")
        assert kept.left() == []


async def test_a_result_that_waits_for_a_person_outlives_the_node(kept: Kept) -> None:
    kept.station.settings["policy"]["release"] = [{"columns": ["me", "padding"], "approval": "every_result"}]
    kept.go()
    message = kept.assign()
    async with kept.node() as process:
        first = await kept.station.session()
        send(first, message)
        while "looked at the result" not in (await first.receive("accepted", "started", "progress")).progress.message:
            pass
        process.kill()
    data = kept.station.directory / "data"
    async with kept.node():
        second = await kept.station.session()
        assert list(second.hello.leases) == [message.lease]
        while "looked at the result" not in (await second.receive("accepted", "started", "progress")).progress.message:
            pass
        (waiting,) = await asyncio.to_thread(admin.ask, data, "approvals.list")
        assert json.loads(Path(waiting["file"]).read_text()).keys() == {"me", "padding"}  # noqa: ASYNC240
        await asyncio.to_thread(admin.ask, data, "approvals.decide", id=waiting["id"], allow=True)
        completed = (await second.receive("completed")).completed
        assert json.loads(completed.result.inline).keys() == {"me", "padding"}
        assert completed.result.digest == waiting["digest"]
        assert await kept.starts() == 1


def told(sequence: int, **parts: Any) -> task_pb2.TaskEvent:
    return task_pb2.TaskEvent(sequence=sequence, **parts)


class Held(asyncio.Event):
    """Where a stream of the server stops; tells when it has come so far."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.reached.set()
        return await super().wait()


async def test_a_question_to_others_is_asked_once_and_its_answer_reaches_the_algorithm(
    kept: Kept, server: ScriptedServer
) -> None:
    task = task_pb2.Task(name="tasks/sub", state=task_pb2.TASK_STATE_ACTIVE)
    snapshot = told(1, snapshot=task_pb2.TaskSnapshot(task=task))
    held = Held()
    server.script("RunTask", [task_service_pb2.RunTaskResponse(event=snapshot), held])
    # Too large for a message, says the server; the node is killed while the algorithm reads it.
    payload = types_pb2.Payload(media_type="application/json", reference="payloads/of-dora", size_bytes=2)
    server.downloads["payloads/of-dora"] = b"42"
    reading = Held()
    server.script("DownloadPayload", reading)
    run = task_pb2.Run(
        name="tasks/sub/runs/dora",
        organization="organizations/dora",
        state=task_pb2.RUN_STATE_SUCCEEDED,
        result=payload,
    )
    task.runs.append(run)
    rest = [told(2, run_finished=task_pb2.RunFinished(run=run)), told(3, task_finished=task_pb2.TaskFinished())]
    message = kept.assign("asking")
    async with kept.node() as process:
        session = await begun(kept, message)
        await asyncio.wait_for(held.reached.wait(), 20)
        # What the server has told is known for good with the next commit: make one.
        refused = kept.assign("nothing")
        send(session, refused)
        await session.receive("refused")
        process.kill()
    for _ in range(2):
        server.script("WatchTask", [task_service_pb2.WatchTaskResponse(event=each) for each in (snapshot, *rest)])
        server.script("GetTask", task_service_pb2.GetTaskResponse(task=task))
    async with kept.node() as process:
        await kept.station.session()
        await asyncio.wait_for(reading.reached.wait(), 20)
        process.kill()
    async with kept.node():
        session = await kept.station.session()
        for _ in range(3):
            await session.receive("refused", "accepted", "started")
        completed = (await session.receive("completed")).completed
        assert not completed.HasField("failure"), completed.failure
        assert json.loads(completed.result.inline)["answer"] == "42"
        assert len(server.calls["RunTask"]) == 1
        for watched in server.calls["WatchTask"]:
            assert (watched.name, watched.after_sequence) == ("tasks/sub", 1)  # type: ignore[attr-defined]
        assert len(server.calls["DownloadPayload"]) == 2
        assert kept.left() == []


@pytest.mark.parametrize("point", ["staging Staging take after", "questions Questions keep before"])
async def test_a_question_with_files_goes_on_with_what_was_handed_over(
    kept: Kept, server: ScriptedServer, tmp_path: Path, point: str
) -> None:
    async with kept.node(die=point) as process:
        send(await kept.station.session(), kept.assign("sending"))
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    assert "RunTask" not in server.calls
    task = task_pb2.Task(name="tasks/sub", state=task_pb2.TASK_STATE_ACTIVE)
    payload = types_pb2.Payload(media_type="application/json", inline=b"42")
    run = task_pb2.Run(organization="organizations/dora", state=task_pb2.RUN_STATE_SUCCEEDED, result=payload)
    events = (
        told(1, snapshot=task_pb2.TaskSnapshot(task=task)),
        told(2, run_finished=task_pb2.RunFinished(run=run)),
        told(3, task_finished=task_pb2.TaskFinished()),
    )
    server.script("RunTask", [task_service_pb2.RunTaskResponse(event=each) for each in events])
    async with kept.node():
        completed = await outcome(await kept.station.session())
        assert not completed.HasField("failure"), completed.failure
        assert json.loads(completed.result.inline) == "42"
        (sent,) = server.uploads.values()  # once, whatever happened
        (file,) = argument_files.unpack(io.BytesIO(sent), tmp_path, 10).files
        assert (file.parameter, file.path.read_bytes()) == ("table", b"go")
        assert kept.left() == []
        assert await kept.starts() == 1


@pytest.mark.parametrize("point", ["payloads Payloads upload before", "payloads Payloads upload after"])
async def test_a_large_result_leaves_as_it_was_sealed_first(
    kept: Kept, server: ScriptedServer, tmp_path: Path, point: str
) -> None:
    asker = Asker(tmp_path / "asking", kept.station)
    kept.go()
    message = asker.ask(
        "steady",
        '{"size": 5000}',
        datasets={"table": "lung"},
        image=kept.image,
        order=lambda fields: fields.update(image=kept.image),
    )
    async with kept.node(die=point) as process:
        send(await kept.station.session(max_inline=1000), message)
        assert await asyncio.wait_for(process.wait(), 60) == -signal.SIGKILL
    async with kept.node():
        completed = await outcome(await kept.station.session(max_inline=1000))
        assert not completed.HasField("failure"), completed.failure
        (sealed,) = server.uploads.values()  # once, whatever happened
        assert digest_of(sealed) == completed.result.digest
        assert len(json.loads(sealing.unseal(SealedPayload(sealed), [asker.identity]))["padding"]) == 5000
        assert kept.left() == []
        assert await kept.starts() == 1
