from __future__ import annotations

from collections.abc import Iterable, MutableMapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from vantage.common import pki
from vantage.common.attestation import sign_keys
from vantage.common.errors import Reason, VantageError, error
from vantage.common.recipients import KeyDirectory
from vantage.common.sealing import create_identity, recipient_of
from vantage.common.statements import KeyBundle
from vantage.testing.signers import NOW, Signer, World

CLARA = "organizations/clara"
TRIAL = "collaborations/trial"


class Nodes:
    """Two nodes of clara, what the server tells of their keys, and which of them was revoked."""

    def __init__(self, directory: Path) -> None:
        self.world = World(directory)
        self.signers = [self.world.signer(f"{CLARA}/nodes/clara-{number}") for number in (1, 2)]
        self.keys = [recipient_of(create_identity()) for _ in self.signers]
        self.told = [self.bundle(number, 5) for number in (0, 1)]
        self.revoked: set[str] = set()
        self.fetched = 0

    def bundle(self, number: int, version: int) -> tuple[str, bytes]:
        signer: Signer = self.signers[number]
        made = KeyBundle(
            holder=signer.name,
            version=version,
            recipients=(self.keys[number],),
            created=NOW,
            expires=NOW + timedelta(days=30),
        )
        return signer.name, sign_keys(made, signer.key, signer.chain)

    def certify(self, chain: Sequence[bytes], at: datetime) -> pki.CertifiedName:
        found = self.world.certify(chain, at)
        if found.name in self.revoked:
            raise error(Reason.CERTIFICATE_REVOKED, f"{found.name} was revoked")
        return found

    async def fetch(self, collaboration: str, organizations: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        self.fetched += 1
        return self.told

    def directory(self, seen: MutableMapping[str, int] | None = None) -> KeyDirectory:
        return KeyDirectory(self.fetch, self.certify, self.world.clock, seen)


@pytest.fixture
def nodes(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path)


async def test_lists_are_fetched_once(nodes: Nodes) -> None:
    directory = nodes.directory()
    for _ in range(2):
        assert (await directory.of(TRIAL, CLARA)).recipients == tuple(nodes.keys)
        nodes.world.clock.advance(timedelta(minutes=5))
    assert nodes.fetched == 1


async def test_nothing_is_sealed_to_a_node_that_was_revoked_after_its_keys_were_fetched(nodes: Nodes) -> None:
    directory = nodes.directory()
    await directory.of(TRIAL, CLARA)
    nodes.revoked.add(nodes.signers[0].name)
    nodes.world.clock.advance(timedelta(minutes=5))
    assert (await directory.of(TRIAL, CLARA)).recipients == (nodes.keys[1],)
    with pytest.raises(VantageError) as caught:
        await directory.of(TRIAL, CLARA, nodes.signers[0].name)
    assert caught.value.reason is Reason.CERTIFICATE_REVOKED
    nodes.revoked.add(nodes.signers[1].name)
    nodes.world.clock.advance(timedelta(minutes=5))
    with pytest.raises(VantageError) as caught:
        await directory.of(TRIAL, CLARA)
    assert caught.value.reason is Reason.CERTIFICATE_REVOKED


async def test_one_node_that_is_not_believed_does_not_keep_the_others_from_being_asked(nodes: Nodes) -> None:
    nodes.revoked.add(nodes.signers[0].name)
    assert (await nodes.directory().of(TRIAL, CLARA)).recipients == (nodes.keys[1],)


async def test_an_older_list_is_refused(nodes: Nodes) -> None:
    seen: dict[str, int] = {}
    await nodes.directory(seen).of(TRIAL, CLARA)
    nodes.told[0] = nodes.bundle(0, 4)
    with pytest.raises(VantageError) as caught:
        await nodes.directory(seen).of(TRIAL, CLARA)
    assert caught.value.reason is Reason.KEYS_STALE
