"""A server that swaps keys, swaps, replays and alters results: the client refuses each attempt, with the reason."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from vantage.api.admin.v1 import trust_service_pb2
from vantage.api.identity.v1 import key_service_pb2
from vantage.api.task.v1 import task_pb2, task_service_pb2
from vantage.api.types.v1 import types_pb2
from vantage.client import AsyncClient, AsyncTaskHandle, Identity, Result
from vantage.client.connection import GrpcTransport, ServerAddress
from vantage.common import dsse, pki, sealing
from vantage.common.attestation import sign_keys, sign_result
from vantage.common.errors import Reason, TrustError, VantageError
from vantage.common.orders import sign_order
from vantage.common.revocation import sign_revocation_list
from vantage.common.statements import Content, KeyBundle, Order, ResultStatement
from vantage.testing.hostile import HostileServer
from vantage.testing.sealed_network import IMAGE, SealedNetwork
from vantage.testing.server import PASSWORD

ASK: dict[str, Any] = {"image": IMAGE, "collaboration": "trial", "function": "summary"}
CLARA = "organizations/clara/nodes/clara-1"


class Forger:
    """What somebody can make who has no key of any organization, and calls an authority clara's."""

    def __init__(self, network: SealedNetwork) -> None:
        self.authority = pki.CertificateAuthority.create(network.directory / "forged", "organizations/clara")
        self.key = pki.create_key()
        self.chain = (self.authority.issue(CLARA, self.key.public_key()),)
        self.identity = sealing.create_identity()

    def keys(self, version: int = 9) -> bytes:
        """A list of clara's keys with the forger's key in it."""
        now = datetime.now(UTC)
        made = KeyBundle(
            holder=CLARA,
            version=version,
            recipients=(sealing.recipient_of(self.identity),),
            created=now,
            expires=now + timedelta(days=30),
        )
        return sign_keys(made, self.key, self.chain)


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


@pytest_asyncio.fixture
async def answered(client: AsyncClient, network: SealedNetwork, hostile: HostileServer) -> Answered:
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

    hostile.answers("GetTask", task_service_pb2.GetTaskResponse, note)
    for each in handles:
        await each.refresh()
    hostile.behave()
    return Answered(client, hostile, network, handles[0], handles[1], told)


async def refusal(client: AsyncClient, reason: Reason, word: str | None = None) -> None:
    """A question is not asked, for a reason."""
    with pytest.raises(VantageError, match=word) as caught:
        await client.tasks.run(**ASK, arguments={"n": 1}, organizations=["clara"])
    assert caught.value.reason is reason


def lists(hostile: HostileServer, change: Callable[[key_service_pb2.ListNodeKeysResponse], None]) -> None:
    hostile.answers("ListNodeKeys", key_service_pb2.ListNodeKeysResponse, change)


async def test_keys_of_an_authority_that_is_not_pinned_are_refused_also_when_the_server_offers_it(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    forger = Forger(network)

    def offer(answer: trust_service_pb2.GetTrustBundleResponse) -> None:
        for each in answer.organizations:
            if each.organization == "organizations/clara":
                each.ca_certificates.append(pki.to_pem(forger.authority.certificate))

    hostile.answers("GetTrustBundle", trust_service_pb2.GetTrustBundleResponse, offer)
    lists(hostile, lambda answer: setattr(answer.keys[0], "envelope", forger.keys()))
    await refusal(client, Reason.CERTIFICATE_UNTRUSTED)
    assert not hostile.calls["RunTask"]


async def test_a_node_that_the_server_makes_up_gets_nothing(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    forger = Forger(network)

    def add(answer: key_service_pb2.ListNodeKeysResponse) -> None:
        answer.keys.add(holder=CLARA, version=9, envelope=forger.keys())

    lists(hostile, add)
    await refusal(client, Reason.CERTIFICATE_UNTRUSTED)


async def test_keys_of_another_holder_are_refused(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    other = network.nodes["hilda"].bundle()
    lists(hostile, lambda answer: setattr(answer.keys[0], "envelope", other))
    await refusal(client, Reason.KEYS_INVALID, "asked for")


async def test_keys_under_another_name_are_not_used(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    def rename(answer: key_service_pb2.ListNodeKeysResponse) -> None:
        answer.keys[0].holder = network.nodes["hilda"].name
        answer.keys[0].envelope = network.nodes["hilda"].bundle()

    lists(hostile, rename)
    await refusal(client, Reason.KEYS_INVALID, "no node")


async def test_altered_and_missing_keys_are_refused(client: AsyncClient, hostile: HostileServer) -> None:
    def alter(answer: key_service_pb2.ListNodeKeysResponse) -> None:
        answer.keys[0].envelope = (
            answer.keys[0].envelope.replace(b'"sig":"MEU', b'"sig":"MEQ').replace(b"eyJ", b"eyK", 1)
        )

    lists(hostile, alter)
    await refusal(client, Reason.ORDER_INVALID)
    lists(hostile, lambda answer: answer.ClearField("keys"))
    await refusal(client, Reason.KEYS_INVALID, "no node")
    assert not hostile.calls["RunTask"]


async def test_an_older_list_of_keys_is_refused(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    clara = network.nodes["clara"]
    old = clara.bundle()
    await clara.publish()
    task = await client.tasks.run(**ASK, organizations=["clara"])
    await clara.succeed(await clara.take(), 1)
    await task.results(timeout=30)
    lists(hostile, lambda answer: setattr(answer.keys[0], "envelope", old))
    await clara.publish()  # the client must fetch again, and gets the old one
    await refusal(client, Reason.KEYS_STALE, "old list")
    keyring = network.files().open()
    identity = Identity(keyring, network.trust(keyring), network.files().seen())
    async with AsyncClient(GrpcTransport(ServerAddress(hostile.address, tls=False)), identity=identity) as later:
        await later.auth.login("rosa", PASSWORD)
        await refusal(later, Reason.KEYS_STALE, "old list")


async def test_a_server_that_calls_all_keys_old_is_asked_twice(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    def age(question: task_service_pb2.RunTaskRequest) -> None:
        question.spec.targets[0].key_versions[0].version += 1

    hostile.questions("RunTask", task_service_pb2.RunTaskRequest, age)
    await refusal(client, Reason.KEYS_STALE)
    assert hostile.calls["RunTask"] == 2


async def test_results_that_are_changed_are_refused(answered: Answered) -> None:
    def alter(task: task_pb2.Task) -> None:
        task.runs[0].result.inline = task.runs[0].result.inline[:-1] + b"x"

    await answered.refused(alter, "not those that the node has signed")

    def truncate(task: task_pb2.Task) -> None:
        task.runs[0].result.inline = b""

    await answered.refused(truncate, "not those that the node has signed")
    await answered.refused(lambda task: task.runs[0].ClearField("result"), "not those that the node has signed")


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
    assert all("another order" in each.failure.message for each in results if each.failure is not None)
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
    identity = Identity(keyring, answered.network.trust(keyring), answered.network.files().seen())
    async with AsyncClient(GrpcTransport(ServerAddress(hostile.address, tls=False)), identity=identity) as later:
        await later.auth.login("rosa", PASSWORD)
        first, second = await (await later.tasks.attach(answered.one.name)).results()
        assert first.failure is not None
        assert "revoked" in first.failure.message
        assert second.verified
