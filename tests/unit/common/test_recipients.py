"""Whom arguments are sealed to: the server is asked once for all who are missing, and believed by signature."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from vantage.common import sealing
from vantage.common.attestation import sign_keys
from vantage.common.errors import Reason, VantageError
from vantage.common.recipients import KeyDirectory, Recipients, shared
from vantage.common.statements import KeyBundle
from vantage.testing.signers import NOW, Signer, World

TRIAL = "collaborations/trial"


class Server:
    """Tells the lists that it has, and counts how often it is asked."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        self.asked: list[list[str]] = []
        self.lists: dict[str, bytes] = {}
        self.seen: dict[str, int] = {}
        self.directory = KeyDirectory(self.fetch, self.world.certify, self.world.clock, self.seen)

    async def fetch(self, _collaboration: str, organizations: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        self.asked.append(list(organizations))
        return list(self.lists.items())

    def publish(self, signer: Signer, version: int, days: int = 30) -> str:
        now = self.world.clock.now()
        recipient = sealing.recipient_of(sealing.create_identity())
        made = KeyBundle(
            holder=signer.name,
            version=version,
            recipients=(recipient,),
            created=now,
            expires=now + timedelta(days=days),
        )
        self.lists[signer.name] = sign_keys(made, signer.key, signer.chain)
        return recipient


@pytest.fixture
def server(tmp_path: Path) -> Server:
    return Server(tmp_path)


async def test_all_who_are_missing_are_asked_for_at_once_and_kept(server: Server) -> None:
    two = server.world.signer("organizations/clara/nodes/clara-2")
    dora = server.world.signer("organizations/dora/nodes/dora-1")
    keys = [server.publish(each, 1) for each in (server.world.node, two, dora)]
    wanted = [("organizations/clara", ""), ("organizations/dora", ""), ("organizations/clara", two.name)]
    found = await server.directory.of_all(TRIAL, wanted)
    assert [set(each.recipients) for each in found] == [set(keys[:2]), {keys[2]}, {keys[1]}]
    assert found[2].versions == ((two.name, 1),)
    assert await server.directory.of(TRIAL, "organizations/dora") == found[1]
    assert server.asked == [["organizations/clara", "organizations/dora"]]
    server.directory.forget()
    await server.directory.of(TRIAL, "organizations/dora")
    assert server.asked[-1] == ["organizations/dora"]
    assert server.seen == {server.world.node.name: 1, two.name: 1, dora.name: 1}


async def test_an_expired_list_is_never_used_again(server: Server) -> None:
    server.publish(server.world.node, 1, days=1)
    await server.directory.of(TRIAL, "organizations/clara")
    server.world.clock.advance(timedelta(days=2))
    assert server.world.clock.now() > NOW
    with pytest.raises(VantageError) as caught:
        await server.directory.of(TRIAL, "organizations/clara")
    assert caught.value.reason is Reason.KEYS_STALE
    server.lists.clear()
    with pytest.raises(VantageError) as caught:
        await server.directory.of(TRIAL, "organizations/clara")
    assert caught.value.reason is Reason.KEYS_INVALID


async def test_an_older_list_is_refused_also_by_another_program(server: Server) -> None:
    server.publish(server.world.node, 7)
    await server.directory.of(TRIAL, "organizations/clara")
    server.publish(server.world.node, 6)
    later = KeyDirectory(server.fetch, server.world.certify, server.world.clock, server.seen)
    with pytest.raises(VantageError, match="old list") as caught:
        await later.of(TRIAL, "organizations/clara")
    assert caught.value.reason is Reason.KEYS_STALE


async def test_lists_of_others_are_left_alone(server: Server) -> None:
    server.publish(server.world.stranger, 1)
    server.publish(server.world.node, 1)
    found = await server.directory.of(TRIAL, "organizations/clara")
    assert [holder for holder, _version in found.versions] == [server.world.node.name]


def test_who_gets_the_same_shares_it_up_to_the_limit_of_a_seal() -> None:
    whom = {each: Recipients((f"key-{each}", f"other-{each}", "common"), ()) for each in range(40)}
    groups = list(shared(whom, whom))
    assert [position for group, _keys in groups for position in group] == list(range(40))
    assert [len(keys) for _group, keys in groups] == [63, 19]
    for group, keys in groups:
        assert set(keys) == {each for position in group for each in whom[position].recipients}
