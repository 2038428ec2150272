"""Every message of the task path, both ways: lost before it, lost after it, twice, late. The outcome is the same."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from vantage.api.admin.v1 import node_service_pb2, node_service_pb2_grpc
from vantage.api.identity.v1 import auth_service_pb2, auth_service_pb2_grpc
from vantage.api.task.v1 import task_pb2, task_service_pb2, task_service_pb2_grpc
from vantage.api.types.v1 import types_pb2
from vantage.client import AsyncClient, models
from vantage.common.rpc import bearer
from vantage.node import agent
from vantage.node.journal import Journal
from vantage.node.runner import Runner
from vantage.server.config import ServerConfig
from vantage.server.domain.runs import RunState
from vantage.server.domain.task_events import RunMoved
from vantage.server.domain.tasks import Task
from vantage.server.storage import event_store, task_queries
from vantage.server.storage.lifecycle import Changes
from vantage.testing.counted import Gate, Ledger, content
from vantage.testing.interposer import Action, Direction, Fault, Interposer, Place, can_harm, methods_of, places
from vantage.testing.peer_network import PeerNetwork
from vantage.testing.processes import RESEARCHER
from vantage.testing.server import PASSWORD
from vantage.testing.station import COLLABORATION, IMAGE, REPOSITORY

PATIENCE = 30.0
CHUNKS = 2_500_000
"""Bytes that travel in three messages."""
INLINE = 4_096
NODE = "organizations/clara/nodes/clara-1"
ABSENT = "organizations/clara/nodes/clara-2"


class World:
    """Server, two nodes and a researcher in this process; somebody stands before the nodes, somebody before her."""

    def __init__(
        self, network: PeerNetwork, client: AsyncClient, links: dict[str, Interposer], directory: Path
    ) -> None:
        self.network = network
        self.client = client
        self.links = links
        self.directory = directory
        self.ledger = Ledger(directory / "ledger")
        self.journals: list[Journal] = []
        self.runners: list[Runner] = []

    async def ask(self, function: str, to: str = "clara", **arguments: Any) -> tuple[str, Any]:
        """Ask one organization; gives the key of the question and the handle of its task."""
        key = uuid.uuid4().hex
        return key, await self.client.tasks.run(
            IMAGE,
            function,
            {"ledger": str(self.ledger.path), "key": key, **arguments},
            COLLABORATION,
            [f"organizations/{to}"],
        )

    def question(self, function: str, **arguments: Any) -> tuple[str, models.Question]:
        key = uuid.uuid4().hex
        given = {"ledger": str(self.ledger.path), "key": key, **arguments}
        return key, models.Question(
            image=IMAGE,
            function=function,
            collaboration=COLLABORATION,
            arguments=given,
            organizations=("organizations/clara",),
        )

    def next_task(self) -> asyncio.Future[str]:
        """Name of the task that is created next."""
        created: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def listen(changes: Changes) -> None:
            if changes.created and not created.done():
                created.set_result(changes.created[0][0])

        self.network.server.server.tasks._commits.listen(listen)
        return created

    async def task(self, name: str) -> Task:
        found = await self.network.server.server.database.read(
            lambda connection: task_queries.read_task(connection, name)
        )
        assert found is not None
        return found

    async def check(self, name: str, state: RunState, executions: int = 1, attempt: int = 1) -> None:
        """The invariants, for a task whose runs must have ended in a state."""
        task = await self.task(name)
        database = self.network.server.server.database
        events = [
            event
            async for event in _pages(
                lambda after: database.read(lambda connection: event_store.after(connection, task=name, sequence=after))
            )
        ]
        assert [event.sequence for event in events] == list(range(2, task.last_sequence + 1)), "gaps in the events"
        counted = self.ledger.executions()
        for run in task.runs:
            assert run.state is state, run
            assert run.attempt == attempt, "handed out again"
            ends = [each for each in events if isinstance(each.body, RunMoved) and each.body.ended]
            assert sum(each.body.run.name == run.name for each in ends) == 1, "not one end"
            assert (run.result is not None) == (state is RunState.SUCCEEDED)
            assert counted[run.name] == executions

    async def check_quiet(self) -> None:
        """Nothing is left: not in the journals, not on the disk."""
        async with asyncio.timeout(PATIENCE):
            for journal in self.journals:
                await journal.wait_settled()
            for runner in self.runners:
                await runner.idle()  # what was revoked is off the journal before it has ended
        for name in self.network.agents:
            runs = self.directory / "network" / name / "data" / "runs"
            assert not runs.exists() or not list(runs.iterdir())


async def _pages(read: Callable[[int], Awaitable[Any]]) -> AsyncIterator[Any]:
    after = 0
    while page := await read(after):
        for each in page:
            yield each
        after = page[-1].sequence


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def worlds(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, World]]:
    """One whose nodes have streams, one where they travel in unary calls."""
    async with AsyncExitStack() as stack:
        yield {
            transport: await stack.enter_async_context(_world(tmp_path_factory.mktemp("w"), transport))
            for transport in ("stream", "sync")
        }


@asynccontextmanager
async def _world(directory: Path, transport: str) -> AsyncIterator[World]:
    settings = {
        name: {
            "policy": {"peers": True, "pin_peer_authorities": True, "allow_logs": True},
            "slots": 10,
            "process": {"modules": {REPOSITORY: "vantage.testing.counted"}},
        }
        for name in ("clara", "hilda")
    }
    config = ServerConfig(
        stop_grace_seconds=1, trial=True, max_inline_payload_bytes=INLINE, heartbeat_seconds=1, lease_seconds=10
    )
    async with AsyncExitStack() as stack:
        links: dict[str, Interposer] = {}
        journals: list[Journal] = []

        async def before_the_nodes(address: str) -> str:
            links["node"] = await stack.enter_async_context(Interposer.to(address))
            return links["node"].address

        class Known(Journal):
            @classmethod
            async def open(cls, path: Path) -> Journal:
                journals.append(await Journal.open(path))
                return journals[-1]

        runners: list[Runner] = []

        def known_runner(*arguments: Any) -> Runner:
            runners.append(Runner(*arguments))
            return runners[-1]

        patch = pytest.MonkeyPatch()
        stack.callback(patch.undo)
        patch.setattr(agent, "Journal", Known)
        patch.setattr(agent, "Runner", known_runner)
        network = await stack.enter_async_context(
            PeerNetwork.running(
                directory / "network",
                list(settings),
                settings=settings,
                config=config,
                tls=False,
                way=before_the_nodes,
                transport=transport,
            )
        )
        links["client"] = await stack.enter_async_context(Interposer.to(network.server.address))
        client = await stack.enter_async_context(AsyncClient.connect(links["client"].address, tls=False))
        await client.auth.login(RESEARCHER, PASSWORD)
        await _register_absent(network)
        made = World(network, client, links, directory)
        made.journals, made.runners = journals, runners
        yield made


async def _register_absent(network: PeerNetwork) -> None:
    """Clara has another node, which never comes."""
    channel = network.server.channel()
    tokens = await auth_service_pb2_grpc.AuthServiceStub(channel).Login(
        auth_service_pb2.LoginRequest(username="root", password=PASSWORD)
    )
    await node_service_pb2_grpc.NodeServiceStub(channel).CreateNode(
        node_service_pb2.CreateNodeRequest(
            organization="organizations/clara", node_id="clara-2", collaborations=[COLLABORATION]
        ),
        metadata=(bearer(tokens.tokens.access_token),),
    )


@dataclass
class Case:
    """One fault in one message, and the world that it happens in."""

    world: World
    link: str
    place: Place
    action: Action
    fault: Fault | None = None

    def arm(self) -> Fault:
        """From now on it may happen."""
        self.fault = self.world.links[self.link].arm(self.place, self.action)
        return self.fault

    @property
    def news(self) -> bool:
        """Whether the message is one that may be lost, and comes when it is asked for."""
        return self.place.kind.rpartition(".")[2] in ("progress", "log_lines", "run_progress", "run_log")

    async def toggle_until_it_happened(self) -> None:
        """Let the node of clara go and come, as often as it takes."""
        assert self.fault is not None
        async with asyncio.timeout(PATIENCE):
            while not self.fault.happened.is_set():
                self.world.network.server.server.sessions.refresh([NODE])
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await self.fault.happened.wait()

    async def pass_gate(self, gate: Gate, fault: Fault) -> None:
        """Let a run that waits go on, once the message has come by, if that happens before its end."""
        await gate.entered()
        while self.news and not fault.happened.is_set():
            gate.prompt()  # again when nobody was there to be told
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await fault.happened.wait()
        if self.place.kind.endswith(("run_changed", "started")):
            await fault.wait()
        gate.open()


# What people do; each brings its messages by.


async def asks(case: Case) -> None:
    case.arm()
    key, handle = await case.world.ask("count")
    assert await handle.result(PATIENCE) == {"key": key}
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def is_acknowledged(case: Case) -> None:
    """Ask until an acknowledgement comes alone: one that finds another message on its way goes along with that."""
    fault = case.arm()
    async with asyncio.timeout(PATIENCE):
        while not fault.happened.is_set():
            key, handle = await case.world.ask("count")
            assert await handle.result(PATIENCE) == {"key": key}
            await case.world.check(handle.name, RunState.SUCCEEDED)


async def asks_and_waits(case: Case) -> None:
    async with Gate.at(case.world.directory) as gate:
        fault = case.arm()
        key, handle = await case.world.ask("hold", gate=str(gate.path))
        await case.pass_gate(gate, fault)
        assert await handle.result(PATIENCE) == {"key": key}
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def asks_many(case: Case) -> None:
    async with Gate.at(case.world.directory) as gate:
        fault = case.arm()
        key, good = case.world.question("hold", gate=str(gate.path))
        _key, bad = case.world.question("count")
        bad = replace(bad, organizations=("organizations/nobody",))
        answering = asyncio.create_task(_collect(case.world.client.tasks.run_many([good, bad])))
        await case.pass_gate(gate, fault)
        answers = {id(answer.question): answer for answer in await answering}
    assert len(answers) == 2
    assert answers[id(good)].results[0].get() == {"key": key}
    failure = answers[id(bad)].failure
    assert failure is not None
    assert failure.reason == "ORGANIZATION_NOT_MEMBER"
    await case.world.check(answers[id(good)].task, RunState.SUCCEEDED)


async def creates(case: Case) -> None:
    """A client in any language: makes a call again whose answer it did not get, with the same request id."""
    key, question = case.world.question("count")
    arguments = types_pb2.Payload(
        media_type="application/json", sealing=types_pb2.SEALING_NONE, inline=json.dumps(question.arguments).encode()
    )
    spec = task_pb2.TaskSpec(collaboration=COLLABORATION, image=IMAGE, function="count")
    spec.targets.add(organization="organizations/clara", arguments=arguments)
    request = task_service_pb2.CreateTaskRequest(request_id=str(uuid.uuid4()), spec=spec)
    case.arm()
    async with grpc.aio.insecure_channel(case.world.links["client"].address) as channel:
        stub = task_service_pb2_grpc.TaskServiceStub(channel)
        metadata = case.world.network.installation.metadata
        answer = None
        while answer is None:
            try:
                answer = await stub.CreateTask(request, metadata=metadata)
            except grpc.aio.AioRpcError as problem:
                if problem.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
    events = [event async for event in case.world.client.tasks.watch(answer.task.name)]
    assert isinstance(events[-1], models.TaskFinished | models.TaskSnapshot)
    await case.world.check(answer.task.name, RunState.SUCCEEDED)
    assert len(case.world.ledger.of(key)) == 1


async def watches(case: Case) -> None:
    async with Gate.at(case.world.directory) as gate:
        key, handle = await case.world.ask("hold", gate=str(gate.path))
        await gate.entered()
        fault = case.arm()
        begun = asyncio.Event()
        watching = asyncio.create_task(_collect(case.world.client.tasks.watch(handle.name, 1), begun))
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
        await case.pass_gate(gate, fault)
        async with asyncio.timeout(PATIENCE):
            events = await watching
        assert await handle.result(PATIENCE) == {"key": key}
    await case.world.check(handle.name, RunState.SUCCEEDED)
    kept = [event.sequence for event in events if event.sequence]
    assert kept == list(range(2, (await case.world.task(handle.name)).last_sequence + 1))


async def looks(case: Case) -> None:
    _key, handle = await case.world.ask("count")
    await handle.result(PATIENCE)
    case.arm()
    task = await case.world.client.tasks.get(handle.name)
    assert task.state is models.TaskState.SUCCEEDED
    async with aclosing(case.world.client.tasks.list()) as listed:  # type: ignore[type-var]  # it is a generator
        assert (await anext(aiter(listed))).name == handle.name
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def cancels(case: Case) -> None:
    async with Gate.at(case.world.directory) as gate:
        _key, handle = await case.world.ask("hold", gate=str(gate.path))
        await gate.entered()
        case.arm()
        await handle.cancel()
        (result,) = await handle.results(PATIENCE)
        assert result.failure is not None
        assert result.failure.reason == "TASK_CANCELLED"
        await gate.left()  # the algorithm was stopped
    await case.world.check(handle.name, RunState.CANCELLED)


async def asks_for_much(case: Case) -> None:
    case.arm()
    _key, handle = await case.world.ask("large", size=CHUNKS)
    (result,) = await handle.results(PATIENCE)
    assert result.get() == content(CHUNKS)
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def asks_with_much(case: Case) -> None:
    case.arm()
    key, handle = await case.world.ask("padded", padding="x" * CHUNKS)
    assert await handle.result(PATIENCE) == {"key": key, "padding": str(CHUNKS)}
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def reconnects(case: Case) -> None:
    fault = case.arm()
    if case.place.method == "Sync":  # a lost connection does not end such a session
        case.world.network.server.server.sessions.refresh([NODE])
    else:
        case.world.links["node"].cut()
    await fault.wait()
    key, handle = await case.world.ask("count")
    assert await handle.result(PATIENCE) == {"key": key}
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def is_sent_away(case: Case) -> None:
    case.arm()
    case.world.network.server.server.sessions.refresh([NODE])
    key, handle = await case.world.ask("count")
    assert await handle.result(PATIENCE) == {"key": key}
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def gives_signs_of_life(case: Case) -> None:
    async with Gate.at(case.world.directory) as gate:
        key, handle = await case.world.ask("hold", gate=str(gate.path))
        await gate.entered()
        fault = case.arm()
        await fault.wait()
        gate.open()
        assert await handle.result(PATIENCE) == {"key": key}
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def fails(case: Case) -> None:
    case.arm()
    _key, handle = await case.world.ask("fail")
    (result,) = await handle.results(PATIENCE)
    assert result.failure is not None
    assert result.failure.reason == "ALGORITHM_CRASHED"
    await case.world.check(handle.name, RunState.FAILED)


async def refuses(case: Case) -> None:
    case.arm()
    _key, handle = await case.world.ask("unheard-of")
    (result,) = await handle.results(PATIENCE)
    assert result.failure is not None
    assert result.failure.reason == "FUNCTION_UNKNOWN"
    await case.world.check(handle.name, RunState.REFUSED, executions=0)


async def asks_others(case: Case) -> None:
    await _ask_others(case, after=0)


async def asks_others_again(case: Case) -> None:
    """An algorithm that asks for what comes after an event: its node attaches by the task's name."""
    await _ask_others(case, after=1)


async def _ask_others(case: Case, after: int) -> None:
    async with Gate.at(case.world.directory) as gate:
        fault = case.arm()
        key, handle = await case.world.ask("ask", whom="hilda", node="", gate=str(gate.path), after=after)
        await case.pass_gate(gate, fault)
        assert await handle.result(PATIENCE) == {"answers": [{"key": f"{key}/below"}]}
    await case.world.check(handle.name, RunState.SUCCEEDED)
    (below,) = case.world.ledger.of(f"{key}/below")
    await case.world.check(below.partition("/runs/")[0], RunState.SUCCEEDED)


async def meets(case: Case) -> None:
    case.arm()
    key = uuid.uuid4().hex
    given = {"ledger": str(case.world.ledger.path), "key": key}
    targets = [
        models.Target("organizations/clara", arguments={**given, "peer": ""}),
        models.Target("organizations/hilda", arguments={**given, "peer": "clara"}),
    ]
    handle = await case.world.client.tasks.run(IMAGE, "meet", None, COLLABORATION, targets=targets)
    results = await handle.results(PATIENCE)
    assert [each.get() for each in results] == [{"said": "nothing"}, {"said": "hello"}]
    await case.world.check(handle.name, RunState.SUCCEEDED)


async def waits_in_vain(case: Case) -> None:
    """Ask a node that never comes, while another one of its organization comes and goes; then give it up."""
    world = case.world
    created = world.next_task()
    case.arm()
    key, question = world.question("count")
    question = replace(question, organizations=(), targets=(models.Target("organizations/clara", node=ABSENT),))
    if case.place.method == "RunTasks":
        answering = asyncio.create_task(_collect(world.client.tasks.run_many([question])))
        async with asyncio.timeout(PATIENCE):
            name = await created
    else:
        handle = await world.client.tasks.run(
            IMAGE, "count", question.arguments, COLLABORATION, targets=question.targets
        )
        name = handle.name
        follow = world.client.tasks.watch(name, 1) if case.place.method == "WatchTask" else handle.events()
        answering = asyncio.create_task(_collect(follow))
    await case.toggle_until_it_happened()
    await world.client.tasks.cancel(name)
    async with asyncio.timeout(PATIENCE):
        assert await answering
    await world.check(name, RunState.CANCELLED, executions=0, attempt=0)
    assert not world.ledger.of(key)


async def lets_others_wait_in_vain(case: Case) -> None:
    """The same, by an algorithm that asks."""
    async with Gate.at(case.world.directory) as gate:
        case.arm()
        after = 1 if case.place.method == "WatchTask" else 0
        given = {"whom": "clara", "node": ABSENT, "gate": str(gate.path), "after": after}
        _key, handle = await case.world.ask("ask", to="hilda", **given)
        await case.toggle_until_it_happened()
        await handle.cancel()
        (result,) = await handle.results(PATIENCE)
        assert result.failure is not None
    await case.world.check(handle.name, RunState.CANCELLED)


async def _collect(items: AsyncIterator[Any], begun: asyncio.Event | None = None) -> list[Any]:
    found = []
    async for item in items:
        found.append(item)
        if begun is not None:
            begun.set()
    return found


Scenario = Callable[[Case], Awaitable[None]]

EVENTS = ("snapshot", "run_changed", "run_finished", "task_finished", "run_progress", "run_log")
FROM_NODES: dict[str, Scenario] = {
    "hello": reconnects,
    "heartbeat": gives_signs_of_life,
    "accepted": asks,
    "refused": refuses,
    "started": asks_and_waits,
    "progress": asks_and_waits,
    "log_lines": asks_and_waits,
    "completed.result.inline": asks,
    "completed.result.reference": asks_for_much,
    "completed.failure": fails,
    "completed.cancelled": cancels,
    "relay_answer": meets,
}
TO_NODES: dict[str, Scenario] = {
    "welcome": reconnects,
    "heartbeat_reply": gives_signs_of_life,
    "assign": asks,
    "cancel_run": cancels,
    "goodbye": is_sent_away,
    "open_relay": meets,
    "": is_acknowledged,  # nothing but an acknowledgement
}
SCENARIOS: dict[tuple[str, str, Direction], dict[str, Scenario]] = {
    ("client", "RunTask", Direction.REQUEST): {"": asks},
    ("client", "RunTask", Direction.RESPONSE): {**dict.fromkeys(EVENTS, asks_and_waits), "run_waits": waits_in_vain},
    ("client", "RunTasks", Direction.REQUEST): {"": asks_many},
    ("client", "RunTasks", Direction.RESPONSE): {
        **{f"event.{kind}": asks_many for kind in EVENTS},
        "failure": asks_many,
        "event.run_waits": waits_in_vain,
    },
    ("client", "CreateTask", Direction.REQUEST): {"": creates},
    ("client", "CreateTask", Direction.RESPONSE): {"": creates},
    ("client", "WatchTask", Direction.REQUEST): {"": watches},
    ("client", "WatchTask", Direction.RESPONSE): {**dict.fromkeys(EVENTS, watches), "run_waits": waits_in_vain},
    ("client", "GetTask", Direction.REQUEST): {"": looks},
    ("client", "GetTask", Direction.RESPONSE): {"": looks},
    ("client", "ListTasks", Direction.REQUEST): {"": looks},
    ("client", "ListTasks", Direction.RESPONSE): {"": looks},
    ("client", "CancelTask", Direction.REQUEST): {"": cancels},
    ("client", "CancelTask", Direction.RESPONSE): {"": cancels},
    ("client", "UploadPayload", Direction.REQUEST): {"header": asks_with_much, "chunk": asks_with_much},
    ("client", "UploadPayload", Direction.RESPONSE): {"": asks_with_much},
    ("client", "GetUpload", Direction.REQUEST): {"": asks_with_much},
    ("client", "GetUpload", Direction.RESPONSE): {"": asks_with_much},
    ("client", "DownloadPayload", Direction.REQUEST): {"": asks_for_much},
    ("client", "DownloadPayload", Direction.RESPONSE): {"": asks_for_much},
    ("node", "Connect", Direction.REQUEST): FROM_NODES,
    ("node", "Connect", Direction.RESPONSE): TO_NODES,
    ("node", "Sync", Direction.REQUEST): {**FROM_NODES, "": asks},  # a call that waits
    ("node", "Sync", Direction.RESPONSE): TO_NODES,
    ("node", "RunTask", Direction.REQUEST): {"": asks_others},
    ("node", "RunTask", Direction.RESPONSE): {
        **dict.fromkeys(EVENTS, asks_others),
        "run_waits": lets_others_wait_in_vain,
    },
    ("node", "CreateTask", Direction.REQUEST): {"": asks_others_again},
    ("node", "CreateTask", Direction.RESPONSE): {"": asks_others_again},
    ("node", "WatchTask", Direction.REQUEST): {"": asks_others_again},
    ("node", "WatchTask", Direction.RESPONSE): {
        **dict.fromkeys(EVENTS, asks_others_again),
        "run_waits": lets_others_wait_in_vain,
    },
    ("node", "UploadPayload", Direction.REQUEST): {"header": asks_for_much, "chunk": asks_for_much},
    ("node", "UploadPayload", Direction.RESPONSE): {"": asks_for_much},
    ("node", "GetUpload", Direction.REQUEST): {"": asks_for_much},
    ("node", "GetUpload", Direction.RESPONSE): {"": asks_for_much},
    ("node", "DownloadPayload", Direction.REQUEST): {"": asks_with_much},
    ("node", "DownloadPayload", Direction.RESPONSE): {"": asks_with_much},
}
"""By link, method, direction and kind of message: what brings it by."""

ON_THE_PATH = [
    *(("client", method) for method in methods_of("TaskService")),
    *(("client", method) for method in methods_of("PayloadService")),
    *(("node", method) for method in methods_of("NodeSessionService")),
    *(("node", method) for method in methods_of("PayloadService")),
    *(
        ("node", method)
        for method in methods_of("TaskService")
        if method.name in ("RunTask", "CreateTask", "WatchTask")
    ),
]
"""Who calls which methods. What the protos say of them decides what the table must have."""

CASES = [
    (link, Place(method, direction, kind), action)
    for (link, method, direction), by_kind in SCENARIOS.items()
    for kind in by_kind
    for action in Action
    if can_harm(Place(method, direction, kind), action)
]


def test_every_message_of_the_path_has_its_faults() -> None:
    wanted = {(link, place) for link, method in ON_THE_PATH for place in places(method)}
    wanted.add(("node", Place("Connect", Direction.RESPONSE, "")))
    have = {(link, place) for link, place, _action in CASES}
    missing = sorted(f"{link}: {place}" for link, place in wanted - have)
    assert not missing, "add to SCENARIOS what brings these messages by"
    assert not have - wanted, "no such message"


@pytest.mark.parametrize(
    ("link", "place", "action"), CASES, ids=[f"{link} {place} {action.name}" for link, place, action in CASES]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_message_is_harmed(worlds: dict[str, World], link: str, place: Place, action: Action) -> None:
    world = worlds["sync" if place.method == "Sync" else "stream"]
    case = Case(world, link, place, action)
    try:
        await SCENARIOS[link, place.method, place.direction][place.kind](case)
        assert case.fault is not None
        await case.fault.wait()
        await world.check_quiet()
    finally:
        world.links[link].disarm()
