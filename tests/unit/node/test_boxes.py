"""What is known of containers, in the journal's file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vantage.common.errors import Reason, VantageError, error
from vantage.node.boxes import Box, Boxes, StoredFile, Told
from vantage.node.capacity import Need
from vantage.node.door import StoredResult
from vantage.node.executor.base import Exit
from vantage.node.journal import Journal
from vantage.testing.station import assign

BOX = Box(container="c", image="sha256:i", token="t", began=1.5, need=Need(cpus=1, memory=2), egress=("host:1",))


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = await Journal.open(tmp_path / "journal.db")
    yield opened
    await opened.close()


async def taken(journal: Journal) -> str:
    message = assign()
    await journal.accept(message)
    return message.lease.lease_id


async def test_what_is_known_of_a_container_survives_the_process_whole(journal: Journal, tmp_path: Path) -> None:
    lease_id = await taken(journal)
    boxes = await Boxes.open(journal, tmp_path / "journal.db")
    await boxes.keep(lease_id, BOX)
    path = tmp_path / "run" / "result-1"
    stored = StoredFile.of(StoredResult("text/plain", path, 3, "sha256:d"))
    told = Told.of(error(Reason.RESULT_TOO_LARGE, "too large", max_bytes="1"))
    ended = Exit(3, out_of_memory=True, tail=("a", "b"))
    # At once: none takes back what another has said.
    await asyncio.gather(
        boxes.change(lease_id, stored=stored), boxes.change(lease_id, refused=told), boxes.change(lease_id, ended=ended)
    )
    known = (await Boxes.open(journal, tmp_path / "journal.db")).get(lease_id)
    assert known == BOX.model_copy(update={"stored": stored, "refused": told, "ended": ended})
    assert known.stored is not None
    assert known.stored.result(path.parent) == StoredResult("text/plain", path, 3, "sha256:d")
    assert known.refused is not None
    assert (known.refused.error().reason, known.refused.error().metadata) == (
        Reason.RESULT_TOO_LARGE,
        {"max_bytes": "1"},
    )
    assert known.files == {"result-1"}


async def test_what_has_an_end_or_is_not_understood_is_forgotten(journal: Journal, tmp_path: Path) -> None:
    lease_id, other = await taken(journal), await taken(journal)
    boxes = await Boxes.open(journal, tmp_path / "journal.db")
    for each in (lease_id, other, "of a run that has ended"):
        await boxes.keep(each, BOX)
    await journal.write(lambda db: db.execute("UPDATE box SET content = '{}' WHERE lease_id = ?", (other,)))
    again = await Boxes.open(journal, tmp_path / "journal.db")
    assert again.get(lease_id) == BOX
    assert again.get(other) is None
    again.forget(lease_id)
    await journal.write(lambda db: None)
    with sqlite3.connect(tmp_path / "journal.db") as database:
        assert database.execute("SELECT count(*) FROM box").fetchone() == (0,)
    database.close()


async def test_what_cannot_be_written_is_not_known(journal: Journal, tmp_path: Path) -> None:
    lease_id = await taken(journal)
    boxes = await Boxes.open(journal, tmp_path / "journal.db")
    await boxes.keep(lease_id, BOX)
    await journal.write(lambda db: db.execute("DROP TABLE box"))
    with pytest.raises(VantageError) as caught:
        await boxes.change(lease_id, ended=Exit(0))
    assert caught.value.reason is Reason.SCRATCH_UNAVAILABLE
    assert boxes.get(lease_id) == BOX
