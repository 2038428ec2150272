from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from vantage.common import orders as common_orders
from vantage.common.clock import ManualClock
from vantage.common.errors import Reason, VantageError
from vantage.common.orders import VerifiedOrder
from vantage.common.statements import Parent
from vantage.node import orders
from vantage.node.journal import Journal
from vantage.node.orders import OrderBook
from vantage.testing.signers import NOW, order

ALICE, BOB = "organizations/dora/users/alice", "organizations/dora/users/bob"
NODE = "organizations/dora/nodes/dora-1"
BEFORE = """
CREATE TABLE taken_order (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, root TEXT NOT NULL, expires REAL NOT NULL, done INTEGER NOT NULL DEFAULT 0
) STRICT
"""


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    made = await Journal.open(tmp_path / "journal.db")
    yield made
    await made.close()


NOBODY: frozenset[str] = frozenset()


def root(requester: str, **changes: object) -> VerifiedOrder:
    made = order(requester, **changes)
    digest = common_orders.order_digest(made)
    return VerifiedOrder(made, digest, "organizations/dora", digest, requester, made.expires, (digest,), 0, NOBODY)


def below(above: VerifiedOrder, number: int, max_tasks: int) -> VerifiedOrder:
    made = order(
        NODE,
        id=f"0190d6a0-0000-7000-8000-{number:012d}",
        parent=Parent(order=above.digest, run="tasks/1/runs/1"),
        expires=NOW + timedelta(minutes=10),
    )
    digest = common_orders.order_digest(made)
    lineage = (above.digest, digest)
    return VerifiedOrder(
        made, digest, "organizations/dora", above.digest, ALICE, above.root_expires, lineage, max_tasks, NOBODY
    )


async def test_nobody_uses_up_the_ids_of_another(journal: Journal, tmp_path: Path) -> None:
    book = await OrderBook.open(journal, tmp_path / "journal.db", ManualClock(NOW))
    await book.take(root(BOB), "tasks/1/runs/1")
    await book.take(root(ALICE), "tasks/2/runs/1")
    with pytest.raises(VantageError) as caught:
        await book.take(root(ALICE), "tasks/3/runs/1")
    assert caught.value.reason is Reason.ORDER_REPLAYED


async def test_subtasks_count_for_as_long_as_the_order_at_the_top(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orders, "_MANY", 0)
    clock = ManualClock(NOW)
    above = root(ALICE, expires=NOW + timedelta(days=30))
    book = await OrderBook.open(journal, tmp_path / "journal.db", clock)
    for number in (1, 2):
        await book.take(below(above, number, max_tasks=2), f"tasks/{number}/runs/1")
    clock.advance(timedelta(days=20))
    for number in range(2):
        # Whatever is old is forgotten with each order that is taken.
        await book.take(root(BOB, id=f"0190d6a0-0000-7000-8000-{100 + number:012d}"), "tasks/8/runs/1")
        with pytest.raises(VantageError) as caught:
            await book.take(below(above, 3, max_tasks=2), "tasks/9/runs/1")
        assert caught.value.reason is Reason.ORDER_EXCEEDS_PARENT
        book = await OrderBook.open(journal, tmp_path / "journal.db", clock)


async def test_an_order_is_begun_a_few_times_at_most_whoever_asks_for_it(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    # The table of an earlier release does not count yet.
    await journal.write(lambda database: database.execute(BEFORE))
    book = await OrderBook.open(journal, path, ManualClock(NOW))
    for _ in range(6):
        await book.take(root(ALICE), "tasks/1/runs/1")
    book = await OrderBook.open(journal, path, ManualClock(NOW))
    for _ in range(4):
        await book.take(root(ALICE), "tasks/1/runs/1")
    with pytest.raises(VantageError, match="begun 10 times") as caught:
        await book.take(root(ALICE), "tasks/1/runs/1")
    assert caught.value.reason is Reason.ORDER_REPLAYED
    assert not book.is_answered(root(ALICE).order)


async def test_an_answer_is_noted_for_good_before_it_leaves(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    book = await OrderBook.open(journal, path, ManualClock(NOW))
    await book.take(root(ALICE), "tasks/1/runs/1")
    assert book.answered(root(ALICE).order, "a")
    await book.settle()
    book = await OrderBook.open(journal, path, ManualClock(NOW))
    assert book.is_answered(root(ALICE).order)
    assert book.answered(root(ALICE).order, "a")  # the attempt itself, in another process
    assert not book.answered(root(ALICE).order, "b")
