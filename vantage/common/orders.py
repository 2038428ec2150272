"""Orders: a node runs only what somebody whom its owner trusts has signed, and exactly that.

``verify_order`` is the one place that builds a ``VerifiedOrder``. A running algorithm asks others in the name of the
order
that it runs under: its node signs such an order, names the one above it, and may only narrow what that one delegates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import dsse, names
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, VantageError, error
from vantage.common.statements import Delegation, Order, OrderTarget

LEEWAY = timedelta(minutes=2)
"""How far the clocks of requester and node may differ."""
MAX_LIFETIME = timedelta(days=31)
MAX_DEPTH = 4


@dataclass(frozen=True)
class VerifiedOrder:
    """An order whose every check passed; only ``verify_order`` builds it.

    Attributes:
        order: what was signed.
        digest: of the signed bytes.
        organization: of the signer.
        root: digest of the order at the top: this one's own, for a task of a user.
        root_requester: who signed that one.
        root_expires: until when that one is valid: orders below it may come until then.
        lineage: digests from the root to this order.
        max_tasks: how many orders below the root there may be, all together; 0 for a root.
        members: organizations that the order at the top asks, or lets be asked: nobody else has a part in its job.
    """

    order: Order
    digest: str
    organization: str
    root: str
    root_requester: str
    root_expires: datetime
    lineage: tuple[str, ...]
    max_tasks: int
    members: frozenset[str]

    @property
    def depth(self) -> int:
        """0 for a task of a user."""
        return len(self.lineage) - 1


def sign_order(order: Order, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> bytes:
    """The envelope of an order, signed by its requester."""
    return dsse.sign(Order.payload_type(), order.encode(), key, chain)


def order_digest(order: Order) -> str:
    """Digest by which others refer to an order that was just made."""
    return dsse.digest_of(order.encode())


def verify_order(envelope: bytes, parents: Sequence[bytes], certify: Certify, at: datetime) -> VerifiedOrder:
    """Verify an order and those above it.

    The checks, for each order from the root down: (1) type, form, signature and a chain to a trusted authority that is
    valid now and not revoked, (2) the schema, with no unknown field, (3) the signer is the requester, (4) the times:
    begun, not expired, not valid for longer than an order may be. Then for the root: (5) a user has signed it, and it
    has no parent. And for each below it: (6) it names the one above by digest, (7) a node has signed it that the one
    above asks, (8) it stays within what that one delegates: collaboration, study, image, organizations, functions,
    datasets, depth, expiry, time of a run, and what it delegates itself.

    That the order was not taken before, and that it says what is about to be run, is for the caller: see ``OrderBook``
    and ``compare`` at the node.

    Args:
        envelope: the order.
        parents: envelopes of the orders above it, root first.
        certify: see ``dsse.Certify``.
        at: now.

    Raises:
        RefusedError: ORDER_INVALID, ORDER_EXPIRED, ORDER_EXCEEDS_PARENT.
        PermissionDeniedError: whatever ``certify`` raises.
    """
    if len(parents) > MAX_DEPTH:
        raise _invalid(f"more than {MAX_DEPTH} orders stand above it")
    lineage: list[tuple[Order, dsse.Signed]] = []
    for each in (*parents, envelope):
        # (1), (2)
        signed = dsse.verify(each, Order.payload_type(), certify, at)
        order = Order.decode(signed.payload)
        # (3)
        if order.requester != signed.signer.name:
            raise _invalid(f"it speaks for {order.requester!r} and is signed by {signed.signer.name!r}")
        # (4)
        _check_times(order, at)
        if not lineage:
            # (5)
            if order.parent is not None or not names.is_valid(order.requester, "organizations/users"):
                raise _invalid("the order at the top must be signed by a user and have no parent")
        else:
            above, above_signed = lineage[-1]
            # (6)
            if order.parent is None or order.parent.order != above_signed.digest:
                raise _invalid("it does not name the order above it")
            check_narrower(order, above, signed.signer.organization)
        lineage.append((order, signed))
    order, signed = lineage[-1]
    root, root_signed = lineage[0]
    delegated = root.delegation.organizations if root.delegation is not None else ()
    return VerifiedOrder(
        order,
        signed.digest,
        signed.signer.organization,
        root_signed.digest,
        root.requester,
        root.expires,
        tuple(each.digest for _order, each in lineage),
        root.delegation.max_tasks if root.delegation is not None and len(lineage) > 1 else 0,
        frozenset((*(each.organization for each in root.targets), *delegated)),
    )


def narrow(above: Delegation | None) -> Delegation | None:
    """The widest that an order may delegate below one that delegates ``above``; None when nothing is left."""
    if above is None or above.max_depth <= 1:
        return None
    return above.model_copy(update={"max_depth": above.max_depth - 1})


def check_narrower(order: Order, above: Order, organization: str) -> None:
    """See that an order stays within the one above it: checks (7) and (8) of ``verify_order``.

    Raises:
        RefusedError: ORDER_EXCEEDS_PARENT.
    """
    # (7)
    if not names.is_valid(order.requester, "organizations/nodes"):
        raise _exceeds("it is not signed by a node")
    if not any(
        target.organization == organization and target.node in ("", order.requester) for target in above.targets
    ):
        raise _exceeds(f"{order.requester} is not asked by the order above it")
    # (8)
    granted = above.delegation
    if granted is None:
        raise _exceeds("the order above it allows no subtasks")
    if (order.collaboration, order.study, order.image) != (above.collaboration, above.study, above.image):
        raise _exceeds("collaboration, study and image must be those of the order above it")
    if granted.functions is not None and order.function not in granted.functions:
        raise _exceeds(f"the function {order.function!r} is not delegated")
    for target in order.targets:
        _check_target(target, granted)
    if order.expires > above.expires:
        raise _exceeds("it expires later than the order above it")
    if above.max_runtime is not None and (order.max_runtime is None or order.max_runtime > above.max_runtime):
        raise _exceeds("its runs may take longer than those of the order above it")
    if order.delegation is not None:
        _check_delegation(order.delegation, granted)


def _check_times(order: Order, at: datetime) -> None:
    if order.expires <= order.created or order.expires - order.created > MAX_LIFETIME:
        raise _invalid(f"it must be valid for at most {MAX_LIFETIME.days} days")
    if order.created > at + LEEWAY:
        ahead = (order.created - at).total_seconds()
        raise _expired(f"it was signed {ahead:.0f} s in the future: synchronise the clocks of requester and node")
    if order.expires <= at:
        raise _expired(f"it expired at {order.expires:%Y-%m-%d %H:%M:%S} UTC: send the task again")


def _check_target(target: OrderTarget, granted: Delegation) -> None:
    if target.organization not in granted.organizations:
        raise _exceeds(f"{target.organization} may not be asked")
    if target.node and not target.node.startswith(f"{target.organization}/nodes/"):
        raise _exceeds(f"{target.node} is not a node of {target.organization}")
    if granted.datasets is not None:
        for dataset in target.datasets.values():
            if dataset not in granted.datasets:
                raise _exceeds(f"the dataset {dataset!r} is not delegated")


def _check_delegation(given: Delegation, granted: Delegation) -> None:
    def within(mine: tuple[str, ...] | None, theirs: tuple[str, ...] | None) -> bool:
        return theirs is None or (mine is not None and set(mine) <= set(theirs))

    if (
        given.max_depth >= granted.max_depth
        or given.max_tasks > granted.max_tasks
        or not within(given.organizations, granted.organizations)
        or not within(given.functions, granted.functions)
        or not within(given.datasets, granted.datasets)
    ):
        raise _exceeds("it delegates more than it was given")


def _invalid(why: str) -> VantageError:
    return error(Reason.ORDER_INVALID, f"the order is not valid: {why}")


def _expired(why: str) -> VantageError:
    return error(Reason.ORDER_EXPIRED, f"the order is not valid now: {why}")


def _exceeds(why: str) -> VantageError:
    return error(Reason.ORDER_EXCEEDS_PARENT, f"the subtask exceeds what was delegated: {why}")
