"""A server that swaps, replays and alters results: the client refuses each attempt, with the reason."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.client.sealed.conftest import researcher
from tests.client.sealed.forger import CLARA, Forger
from vantage.api.admin.v1 import trust_service_pb2
from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client import AsyncClient, AsyncTaskHandle, Identity, Result
from vantage.common import dsse, sealing
from vantage.common.attestation import sign_result
from vantage.common.errors import Reason, TrustError
from vantage.common.orders import sign_order
from vantage.common.revocation import sign_revocation_list
from vantage.common.statements import Content, Order, ResultStatement
from vantage.testing.hostile import HostileServer
from vantage.testing.sealed_network import IMAGE, SealedNetwork
from vantage.testing.server import running_server

ASK: dict[str, Any] = {"image": IMAGE, "collaboration": "trial", "function": "summary"}

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def network(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SealedNetwork]:
    """One for all: what a server tells is changed on the way, and nothing at the server."""
    directory = tmp_path_factory.mktemp("network")
    async with running_server(directory / "server") as server, SealedNetwork.over(server, directory) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lying(network: SealedNetwork) -> AsyncIterator[HostileServer]:
    async with HostileServer.before(network.server.channel()) as made:
        yield made


@pytest.fixture
def hostile(lying: HostileServer) -> HostileServer:
    """Honest at first."""
    lying.behave()
    return lying


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(network: SealedNetwork, lying: HostileServer) -> AsyncIterator[AsyncClient]:
    async with researcher(lying, network.identity()) as made:
        yield made


@dataclass
class Answered:
    """Two ended tasks at clara and hilda, as the server tells them."""

    client: AsyncClient
    hostile: HostileServer
    network: SealedNetwork
    one: AsyncTaskHandle
    two: AsyncTaskHandle
    told: dict[str, task_pb2.Task]

    async def first(self, change: Callable[[task_pb2.Task], None], **how: Any) -> list[Result]:
        """The results of the first task when the server changes what it tells of it."""
        self.hostile.answers("GetTask", task_service_pb2.GetTaskResponse, lambda answer: change(answer.task))
        return await (await self.client.tasks.attach(self.one.name)).results(**how)

    async def refused(self, change: Callable[[task_pb2.Task], None], why: str) -> None:
        """The first organization's answer is refused with a word of the message, and the second's is not."""
        first, second = await self.first(change)
        assert first.failure is not None
        assert (first.failure.reason, first.value, first.verified) == ("RESULT_UNVERIFIED", None, False)
        assert why in first.failure.message
        with pytest.raises(TrustError):
            first.get()
        assert (second.value, second.verified) == ({"hilda": 1}, True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tasks(client: AsyncClient, network: SealedNetwork, lying: HostileServer) -> Answered:
    handles = []
    for number in (1, 2):
        task = await client.tasks.run(**ASK, organizations=["clara", "hilda"])
        for name, node in network.nodes.items():
            await node.succeed(await node.take(), {name: number})
        assert all(each.verified for each in await task.results(timeout=30))
        handles.append(task)
    told: dict[str, task_pb2.Task] = {}

    def note(answer: task_service_pb2.GetTaskResponse) -> None:
        told[answer.task.name] = answer.task

    lying.answers("GetTask", task_service_pb2.GetTaskResponse, note)
    for each in handles:
        await each.refresh()
    return Answered(client, lying, network, handles[0], handles[1], told)


@pytest.fixture
def answered(tasks: Answered, hostile: HostileServer) -> Answered:
    """Two ended tasks, and a server that is honest at first."""
    assert tasks.hostile is hostile
    return tasks


async def test_results_that_are_changed_are_refused(answered: Answered) -> None:
    def alter(task: task_pb2.Task) -> None:
        task.runs[0].result.inline = task.runs[0].result.inline[:-1] + b"x"

    await answered.refused(alter, "not those that the node has signed")

    def truncate(task: task_pb2.Task) -> None:
        task.runs[0].result.inline = b""

    await answered.refused(truncate, "not those that the node has signed")
    await answered.refused(lambda task: task.runs[0].ClearField("result"), "not those that the node has signed")


async def test_what_does_not_open_while_it_arrives_is_refused_for_what_it_is_and_leaves_no_file(
    answered: Answered, tmp_path: Path
) -> None:
    def alter(task: task_pb2.Task) -> None:
        task.runs[0].result.inline = task.runs[0].result.inline[:-1] + b"x"

    def seal_another(task: task_pb2.Task) -> None:
        recipients = [sealing.recipient_of(each) for each in answered.network.files().open().identities]
        task.runs[0].result.inline = sealing.seal(b'{"clara": 7}', recipients).content

    for change in (alter, seal_another):
        first, second = await answered.first(change, into=tmp_path)
        assert first.failure is not None
        assert (first.failure.reason, first.value) == ("RESULT_UNVERIFIED", None)
        assert "not those that the node has signed" in first.failure.message
        assert second.value == tmp_path / "hilda.json"
        assert os.listdir(tmp_path) == ["hilda.json"]  # noqa: PTH208


async def test_results_in_the_clear_are_refused(answered: Answered) -> None:
    def plain(task: task_pb2.Task) -> None:
        task.runs[0].result.CopyFrom(
            types_pb2.Payload(media_type="application/json", sealing=types_pb2.SEALING_NONE, inline=b"7", size_bytes=1)
        )

    await answered.refused(plain, "not those that the node has signed")

    def bare(task: task_pb2.Task) -> None:
        plain(task)
        task.runs[0].statement = b""

    await answered.refused(bare, "without the node's signature")


async def test_results_of_another_organization_are_refused(answered: Answered) -> None:
    def swap(task: task_pb2.Task) -> None:
        task.runs[0].result.CopyFrom(task.runs[1].result)
        task.runs[0].statement = task.runs[1].statement

    await answered.refused(swap, "which was not asked")


async def test_results_of_another_task_are_refused(answered: Answered) -> None:
    other = answered.told[answered.two.name]

    def replay(task: task_pb2.Task) -> None:
        task.runs[0].result.CopyFrom(other.runs[0].result)
        task.runs[0].statement = other.runs[0].statement

    await answered.refused(replay, "another order")

    def replay_whole(task: task_pb2.Task) -> None:
        name = task.name
        task.CopyFrom(other)
        task.name = name

    results = await answered.first(replay_whole)
    assert [each.failure and each.failure.reason for each in results] == ["RESULT_UNVERIFIED"] * 2
    assert all("is not a run of" in each.failure.message for each in results if each.failure is not None)


async def test_another_task_in_place_of_the_one_that_was_asked_for_is_refused(answered: Answered) -> None:
    other = answered.told[answered.two.name]
    with pytest.raises(TrustError, match="another task") as caught:
        await answered.first(lambda task: task.CopyFrom(other))
    assert caught.value.reason is Reason.RESULT_UNVERIFIED


async def test_one_answer_does_not_count_twice(answered: Answered) -> None:
    def double(task: task_pb2.Task) -> None:
        task.runs[0].name = task.runs[1].name

    with pytest.raises(TrustError) as caught:
        await answered.first(double)
    assert caught.value.reason is Reason.RESULT_UNVERIFIED


async def test_statements_that_are_left_out_or_altered_are_refused(answered: Answered) -> None:
    await answered.refused(lambda task: task.runs[0].ClearField("statement"), "without the node's signature")
    await answered.refused(lambda task: setattr(task.runs[0], "statement", b"{}"), "not a DSSE envelope")

    def alter(task: task_pb2.Task) -> None:
        task.runs[0].statement = task.runs[0].statement.replace(b'"keyid"', b'"kid"').replace(b"eyJ", b"eyK", 1)

    await answered.refused(alter, "not valid")


async def test_statements_of_a_forged_authority_or_of_a_node_that_was_not_asked_are_refused(answered: Answered) -> None:
    forger = Forger(answered.network)
    run = answered.told[answered.one.name].runs[0]
    order = dsse.digest_of(dsse.peek(answered.told[answered.one.name].spec.order))
    content = sealing.seal(b"7", [sealing.recipient_of(answered.network.files().identities()[0])]).content

    def statement(node: str, key: Any, chain: Any) -> bytes:
        made = ResultStatement(
            order=order,
            run=run.name,
            node=node,
            outcome="succeeded",
            result=Content(digest=dsse.digest_of(content), size=len(content), media_type="application/json"),
            finished=datetime.now(UTC),
        )
        return sign_result(made, key, chain)

    def forge(envelope: bytes) -> Callable[[task_pb2.Task], None]:
        def change(task: task_pb2.Task) -> None:
            task.runs[0].result.inline = content
            task.runs[0].statement = envelope

        return change

    await answered.refused(forge(statement(CLARA, forger.key, forger.chain)), "not trusted")
    hilda = answered.network.nodes["hilda"]
    await answered.refused(forge(statement(hilda.name, hilda.key, hilda.chain)), "was not asked")
    await answered.refused(forge(statement(CLARA, hilda.key, hilda.chain)), "signed by")
    rosa = answered.network.files().open()
    await answered.refused(forge(statement(rosa.name, rosa.key, rosa.chain)), "signed by")


async def test_states_and_failures_that_are_made_up_are_refused(answered: Answered) -> None:
    def fail(task: task_pb2.Task) -> None:
        run = task.runs[0]
        run.ClearField("result")
        run.ClearField("statement")
        run.state = task_pb2.RUN_STATE_FAILED
        run.failure.reason = "TOO_FEW_RECORDS"

    await answered.refused(fail, "without the node's signature")

    def relabel(task: task_pb2.Task) -> None:
        task.runs[0].state = task_pb2.RUN_STATE_FAILED

    await answered.refused(relabel, "the server calls the run FAILED")


async def test_altered_failures_are_refused(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    task = await client.tasks.run(**ASK, organizations=["clara"])
    clara = network.nodes["clara"]
    await clara.fail(await clara.take(), "TOO_FEW_RECORDS", "too few rows")
    (honest,) = await task.results(timeout=30)
    assert honest.verified

    async def told(change: Callable[[task_pb2.Run], None]) -> Result:
        hostile.answers("GetTask", task_service_pb2.GetTaskResponse, lambda answer: change(answer.task.runs[0]))
        (result,) = await (await client.tasks.attach(task.name)).results()
        return result

    result = await told(lambda run: setattr(run.failure, "reason", "DATASET_UNKNOWN"))
    assert result.failure is not None
    assert (result.failure.reason, result.verified) == ("RESULT_UNVERIFIED", False)
    assert "DATASET_UNKNOWN" in result.failure.message
    result = await told(lambda run: setattr(run.failure, "message", "give up"))
    assert result.failure is not None
    assert (result.failure.message, result.verified) == ("too few rows", True)

    def succeed(run: task_pb2.Run) -> None:
        run.state = task_pb2.RUN_STATE_SUCCEEDED
        run.ClearField("failure")
        run.result.inline = b"7"

    result = await told(succeed)
    assert result.failure is not None
    assert (result.failure.reason, result.value) == ("RESULT_UNVERIFIED", None)


async def test_only_an_own_order_counts(answered: Answered) -> None:
    network = answered.network
    told = answered.told[answered.one.name]
    key, chain = network.certified("organizations/dora/users/otto")
    order = Order.decode(dsse.peek(told.spec.order))
    others = sign_order(order.model_copy(update={"requester": "organizations/dora/users/otto"}), key, chain)
    forged = sign_order(order, key, chain)
    for envelope in (b"", b"{}", others, forged):

        def give(task: task_pb2.Task, given: bytes = envelope) -> None:
            task.spec.order = given

        results = await answered.first(give)
        assert [each.failure and each.failure.reason for each in results] == ["RESULT_UNVERIFIED"] * 2
        assert all("signed no order" in each.failure.message for each in results if each.failure is not None)

    def swap(task: task_pb2.Task) -> None:
        task.spec.order = answered.told[answered.two.name].spec.order

    results = await answered.first(swap)
    assert ["another order" in each.failure.message for each in results if each.failure is not None] == [True] * 2
    assert not any(each.ok for each in results)
    # Who says so gets the server's word, and it is called that.
    results = await answered.first(lambda task: setattr(task.spec, "order", b""), unverified=True)
    assert [(each.value, each.verified) for each in results] == [({"clara": 1}, False), ({"hilda": 1}, False)]


async def test_organizations_that_are_left_out_or_added_are_noticed(answered: Answered) -> None:
    def leave_out(task: task_pb2.Task) -> None:
        del task.runs[1]

    def add(task: task_pb2.Task) -> None:
        task.runs.append(task.runs[0])

    def rename(task: task_pb2.Task) -> None:
        task.runs[0].organization = "organizations/mallory"

    for change in (leave_out, add, rename):
        with pytest.raises(TrustError) as caught:
            await answered.first(change)
        assert caught.value.reason is Reason.RESULT_UNVERIFIED


async def test_what_arrives_as_an_event_is_verified_too(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    def strip(answer: task_service_pb2.RunTaskResponse) -> None:
        if answer.event.HasField("run_finished"):
            answer.event.run_finished.run.statement = b""

    hostile.answers("RunTask", task_service_pb2.RunTaskResponse, strip)
    task = await client.tasks.run(**ASK, organizations=["clara"])
    clara = network.nodes["clara"]
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(task.results(timeout=30))
        await clara.succeed(await clara.take(), 1)
    (result,) = waiting.result()
    assert result.failure is not None
    assert (result.failure.reason, result.value) == ("RESULT_UNVERIFIED", None)


async def test_revoked_nodes_are_believed_no_longer(answered: Answered) -> None:
    clara = answered.network.authorities["clara"]
    now = datetime.now(UTC)
    serial = answered.network.nodes["clara"].chain[0].serial_number
    listed = sign_revocation_list(clara.key, clara.certificate, {serial: now}, 1, now, timedelta(days=30))

    def offer(answer: trust_service_pb2.GetTrustBundleResponse) -> None:
        for each in answer.organizations:
            if each.organization == "organizations/clara":
                each.revocation_list = listed

    hostile = answered.hostile
    hostile.answers("GetTrustBundle", trust_service_pb2.GetTrustBundleResponse, offer)
    keyring = answered.network.files().open()
    identity = Identity(keyring, answered.network.trust(keyring, "elsewhere"))
    async with researcher(hostile, identity) as later:
        first, second = await (await later.tasks.attach(answered.one.name)).results()
        assert first.failure is not None
        assert "revoked" in first.failure.message
        assert second.verified
