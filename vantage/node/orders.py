"""Orders at the node: signed by somebody whom the owner trusts, compared with what is about to run, taken once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2
from vantage.common import dsse
from vantage.common.clock import Clock
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, VantageError, error
from vantage.common.orders import VerifiedOrder, verify_order
from vantage.common.statements import Order, OrderTarget
from vantage.node.journal import Journal

_REMEMBER = timedelta(days=1)
"""How long after its end an order is remembered: a clock that is set back must not make it new."""
_MANY = 10_000
"""Beyond so many the book looks for entries that it may forget."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS taken_order (
  id TEXT PRIMARY KEY, run TEXT NOT NULL, root TEXT NOT NULL, expires REAL NOT NULL, done INTEGER NOT NULL DEFAULT 0,
  begun INTEGER NOT NULL DEFAULT 1, lease_id TEXT NOT NULL DEFAULT ''
) STRICT
"""
_MAX_BEGUN = 10
"""How often an order is begun, answered or not: the server decides about attempts, and is not trusted with it."""


@dataclass(frozen=True)
class GivenOrder:
    """A verified order with the envelopes that prove it, for subtasks in its name.

    Attributes:
        verified: what was verified.
        envelopes: from the root to the order itself.
    """

    verified: VerifiedOrder
    envelopes: tuple[bytes, ...]


@dataclass
class _Taken:
    run: str
    root: str
    expires: datetime
    done: bool
    begun: int = 1
    answered_by: str = ""


class OrderBook:
    """Which orders were taken, in the journal's database: an order is for one run, begun a few times at most, and
    answered once."""

    def __init__(self, journal: Journal, taken: dict[str, _Taken], clock: Clock) -> None:
        self._journal = journal
        self._taken = taken
        self._clock = clock

    @classmethod
    async def open(cls, journal: Journal, path: Path, clock: Clock) -> OrderBook:
        """Read what a former process took.

        Raises:
            ConfigurationError: the journal is not usable.
        """
        try:
            await journal.write(_prepare)
            return cls(journal, await asyncio.to_thread(_load, path), clock)
        except sqlite3.Error as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"the orders in the journal {path} cannot be read: {problem}"
            ) from problem

    async def take(self, verified: VerifiedOrder, run: str) -> None:
        """Note that a run is begun by an order; durable when it returns.

        The same run again is another attempt of it, as long as none was answered. Ids are the requester's own: nobody
        can use up another's.

        Raises:
            RefusedError: ORDER_REPLAYED; ORDER_EXCEEDS_PARENT when the order at the top allows no more.
            RunError: SCRATCH_UNAVAILABLE when it cannot be written down.
        """
        order = verified.order
        key = _key(order)
        known = self._taken.get(key)
        if known is not None and (known.done or known.run != run):
            raise error(
                Reason.ORDER_REPLAYED,
                "the order was taken before: whoever delivered it again is not the one who signed it; ask again with a "
                "new order",
                order=order.id,
            )
        if known is None and verified.max_tasks:
            begun = sum(each.root == verified.root for each in self._taken.values())
            if begun >= verified.max_tasks:
                raise error(
                    Reason.ORDER_EXCEEDS_PARENT,
                    f"the order at the top allows {verified.max_tasks} subtasks, and as many were taken here",
                )
        if known is not None and known.begun >= _MAX_BEGUN:
            raise error(
                Reason.ORDER_REPLAYED,
                f"the order was begun {_MAX_BEGUN} times here and never answered: ask again with a new order",
                order=order.id,
            )
        # As long as the one at the top, under which it counts.
        expires = verified.root_expires + _REMEMBER
        begun = known.begun + 1 if known is not None else 1
        self._taken[key] = _Taken(run, verified.root, expires, False, begun)
        values = (key, run, verified.root, expires.timestamp(), begun)
        try:
            await self._journal.write(
                lambda database: database.execute(
                    "INSERT OR REPLACE INTO taken_order (id, run, root, expires, begun) VALUES (?, ?, ?, ?, ?)", values
                )
            )
        except sqlite3.Error as problem:
            if known is None:
                del self._taken[key]
            raise error(
                Reason.SCRATCH_UNAVAILABLE, "the node cannot write its journal, its disk may be full: ask its admin"
            ) from problem
        if len(self._taken) > _MANY:
            self._forget_old()

    def answered(self, order: Order, lease_id: str) -> bool:
        """Note that the run of an order has its answer; False when another attempt of it had one already.

        The attempt that answered may say so again: its process may have died before the journal had its end. It is
        written with the commit that holds the answer, or one before; whoever lets bytes of the answer leave ahead of
        that commit waits for ``settle``.
        """
        key = _key(order)
        known = self._taken.get(key)
        if known is None:
            return True
        if known.done:
            return known.answered_by == lease_id
        known.done, known.answered_by = True, lease_id
        self._journal.later(
            lambda database: database.execute(
                "UPDATE taken_order SET done = 1, lease_id = ? WHERE id = ?", (lease_id, key)
            )
        )
        return True

    async def settle(self) -> None:
        """Wait until what was noted is durable.

        Raises:
            RunError: SCRATCH_UNAVAILABLE: it cannot be.
        """
        try:
            await self._journal.write(lambda database: None)
        except sqlite3.Error as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE, "the node cannot write its journal, its disk may be full: ask its admin"
            ) from problem

    def is_answered(self, order: Order) -> bool:
        """Whether the run of an order has its answer."""
        known = self._taken.get(_key(order))
        return known is not None and known.done

    def _forget_old(self) -> None:
        now = self._clock.now()
        for order_id in [each for each, known in self._taken.items() if known.expires < now]:
            del self._taken[order_id]
        self._journal.later(
            lambda database: database.execute("DELETE FROM taken_order WHERE expires < ?", (now.timestamp(),))
        )


class OrderGate:
    """Decides about the order of an assignment.

    Args:
        certify: whom the node's owner trusts.
        book: which orders were taken.
        required: whether an assignment without an order is refused.
        clock: the time.
    """

    def __init__(self, certify: Certify, book: OrderBook, clock: Clock, *, required: Callable[[], bool]) -> None:
        self._certify = certify
        self._book = book
        self._clock = clock
        self._required = required

    def verify(self, assign: pb.Assign) -> GivenOrder | None:
        """The order that an assignment carries; None when there is none and none is required.

        Raises:
            VantageError: ORDER_MISSING, or see ``verify_order`` and ``compare``.
        """
        spec = assign.spec
        if not spec.order:
            if self._required():
                raise error(
                    Reason.ORDER_MISSING,
                    "this node runs signed orders only: make a key with 'vantage key create', have it certified by "
                    "your organization, and ask again",
                )
            return None
        verified = verify_order(spec.order, tuple(spec.parent_orders), self._certify, self._clock.now())
        compare(verified, assign)
        return GivenOrder(verified, (*spec.parent_orders, spec.order))

    async def take(self, given: GivenOrder, assign: pb.Assign) -> None:
        """Take the order for this run: see ``OrderBook.take``."""
        await self._book.take(given.verified, assign.lease.run)

    def answered(self, given: GivenOrder, lease_id: str) -> bool:
        """The run has its answer: see ``OrderBook.answered``."""
        return self._book.answered(given.verified.order, lease_id)

    async def settle(self) -> None:
        """Wait until answers are noted for good: see ``OrderBook.settle``."""
        await self._book.settle()

    def is_answered(self, assign: pb.Assign) -> bool:
        """Whether the order of a run that a former process began has its answer; True when that cannot be told."""
        if not assign.spec.order:
            return False
        try:
            return self._book.is_answered(Order.decode(dsse.peek(assign.spec.order)))
        except VantageError:
            return True


def compare(verified: VerifiedOrder, assign: pb.Assign) -> OrderTarget:
    """Compare each signed field with what the server wants to be run; returns the order's target.

    Checks: (1) collaboration, study, image and function, (2) who asks, and of which organization, (3) the run that
    asks, for a subtask, (4) the organization is asked, at this node or any, (5) the same datasets, (6) the same
    arguments, as transported, (7) the run ends before the order does. The title is for people and not signed.

    Raises:
        RefusedError: ORDER_MISMATCH, with the field.
    """
    order, spec = verified.order, assign.spec
    # (1)
    _same("collaboration", order.collaboration, spec.collaboration)
    _same("study", order.study, spec.study)
    _same("image", order.image, spec.image)
    _same("function", order.function, spec.function)
    # (2)
    _same("requester", _principal(order), assign.creator)
    _same("organization of the requester", verified.organization, assign.creator_organization)
    # (3)
    _same("parent run", order.parent.run if order.parent is not None else "", spec.parent_run)
    # (4)
    if len(spec.targets) != 1:
        raise _mismatch("targets")
    wanted = spec.targets[0]
    target = next((each for each in order.targets if each.organization == wanted.organization), None)
    if target is None:
        raise _mismatch("targets")
    _same("node", target.node, wanted.node)
    # (5)
    _same("datasets", target.datasets, {each.parameter: each.dataset for each in wanted.datasets})
    # (6)
    _compare_arguments(target, wanted)
    # (7)
    if assign.deadline.ToDatetime(UTC) > order.expires + timedelta(seconds=1):
        raise _mismatch("expires")
    return target


def order_digest(spec: task_pb2.TaskSpec) -> str | None:
    """Digest of the order that a task carries, verified or not; None when there is none that could be referred to."""
    if not spec.order:
        return None
    try:
        return dsse.digest_of(dsse.peek(spec.order))
    except VantageError:
        return None


def order_time(spec: task_pb2.TaskSpec) -> datetime | None:
    """When the order that a task carries says that it was made; None when there is none that can be read."""
    try:
        return Order.decode(dsse.peek(spec.order)).created
    except VantageError:
        return None


def _key(order: Order) -> str:
    return f"{order.requester} {order.id}"


def _principal(order: Order) -> str:
    """The requester as the server calls them: users are known by their login names."""
    organization, slash, user = order.requester.partition("/users/")
    return f"users/{user}" if slash and organization else order.requester


def _compare_arguments(target: OrderTarget, wanted: task_pb2.Target) -> None:
    signed = target.arguments
    if (signed is not None) != wanted.HasField("arguments"):
        raise _mismatch("arguments")
    if signed is None:
        return
    payload = wanted.arguments
    _same("media type of the arguments", signed.media_type, payload.media_type)
    content = payload.WhichOneof("content")
    digest = dsse.digest_of(payload.inline) if content == "inline" else payload.digest
    size = len(payload.inline) if content == "inline" else payload.size_bytes
    _same("arguments", (signed.digest, signed.size), (digest, size))


def _same(field: str, signed: object, told: object) -> None:
    if signed != told:
        raise _mismatch(field)


def _mismatch(field: str) -> VantageError:
    return error(
        Reason.ORDER_MISMATCH,
        f"what the server wants to be run differs from what was signed: {field}: the server, or somebody in between, "
        "has changed it",
        field=field,
    )


def _prepare(database: sqlite3.Connection) -> None:
    database.execute(SCHEMA)
    columns = {row[1] for row in database.execute("PRAGMA table_info(taken_order)")}
    if "begun" not in columns:  # of an earlier release
        database.execute("ALTER TABLE taken_order ADD COLUMN begun INTEGER NOT NULL DEFAULT 1")
    if "lease_id" not in columns:
        database.execute("ALTER TABLE taken_order ADD COLUMN lease_id TEXT NOT NULL DEFAULT ''")


def _load(path: Path) -> dict[str, _Taken]:
    with sqlite3.connect(path) as database:
        rows = database.execute("SELECT id, run, root, expires, done, begun, lease_id FROM taken_order").fetchall()
    database.close()
    return {
        each[0]: _Taken(each[1], each[2], datetime.fromtimestamp(each[3], UTC), bool(each[4]), each[5], each[6])
        for each in rows
    }
