"""A question that is asked again because nobody knows whether it arrived."""

from __future__ import annotations

import uuid
from pathlib import Path

from vantage.client import AsyncClient
from vantage.testing.counted import Ledger
from vantage.testing.peer_network import PeerNetwork
from vantage.testing.processes import RESEARCHER
from vantage.testing.server import PASSWORD
from vantage.testing.station import COLLABORATION, IMAGE, REPOSITORY

PATIENCE = 30.0


async def test_a_question_with_large_arguments_is_the_same_when_it_is_asked_again(tmp_path: Path) -> None:
    """They are uploaded before it is asked: another upload would have made it another question."""
    ledger = Ledger(tmp_path / "ledger")
    arguments = {"ledger": str(ledger.path), "key": "large", "padding": "x" * 2_000_000}
    request_id = str(uuid.uuid4())
    settings = {"clara": {"process": {"modules": {REPOSITORY: "vantage.testing.counted"}}}}
    async with PeerNetwork.running(tmp_path / "network", ["clara"], settings=settings, tls=False) as network:
        names = set()
        for _ in range(2):
            # As after a crash of the program that asks: nothing is remembered but the request id.
            async with AsyncClient.connect(network.server.address, tls=False) as client:
                await client.auth.login(RESEARCHER, PASSWORD)
                handle = await client.tasks.run(
                    IMAGE, "padded", arguments, COLLABORATION, ["organizations/clara"], request_id=request_id
                )
                assert await handle.result(PATIENCE) == {"key": "large", "padding": "2000000"}
                names.add(handle.name)
        assert len(names) == 1
        assert len(ledger.of("large")) == 1
