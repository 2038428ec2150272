"""A server that swaps, makes up and ages keys: the client refuses each attempt, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.client.sealed.conftest import researcher
from tests.client.sealed.forger import CLARA, Forger
from vantage.api.admin.v1 import trust_service_pb2
from vantage.api.identity.v1 import key_service_pb2
from vantage.api.task.v1 import task_service_pb2
from vantage.client import AsyncClient, Identity
from vantage.common import pki
from vantage.common.errors import Reason, VantageError
from vantage.testing.hostile import HostileServer
from vantage.testing.sealed_network import IMAGE, SealedNetwork

ASK: dict[str, Any] = {"image": IMAGE, "collaboration": "trial", "function": "summary"}


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
    async with researcher(hostile, identity) as later:
        await refusal(later, Reason.KEYS_STALE, "old list")


async def test_a_server_that_calls_all_keys_old_is_asked_twice(
    client: AsyncClient, network: SealedNetwork, hostile: HostileServer
) -> None:
    def age(question: task_service_pb2.RunTaskRequest) -> None:
        question.spec.targets[0].key_versions[0].version += 1

    hostile.questions("RunTask", task_service_pb2.RunTaskRequest, age)
    await refusal(client, Reason.KEYS_STALE)
    assert hostile.calls["RunTask"] == 2
