"""The order of a question: what a user signs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vantage.api.task.v1 import task_pb2
from vantage.client.keyring import Keyring
from vantage.client.models import Delegate
from vantage.client.short_names import full
from vantage.common import dsse
from vantage.common.errors import Reason, error
from vantage.common.orders import MAX_DEPTH, sign_order
from vantage.common.statements import Content, Delegation, Order, OrderTarget

DEFAULT_TIMEOUT = timedelta(hours=1)
MARGIN = timedelta(minutes=5)
"""How much longer an order is valid than the task may take: the server's clock and the way there count, too."""


@dataclass(frozen=True)
class OwnOrder:
    """An order that this user has signed; ``sign`` and ``Codec.recognise`` build it.

    Attributes:
        order: what was signed.
        digest: by which results refer to it.
    """

    order: Order
    digest: str

    @classmethod
    def made_here(cls, envelope: bytes) -> OwnOrder:
        """Of an envelope that came from ``sign``, not from a server."""
        payload = dsse.peek(envelope)
        return cls(Order.decode(payload), dsse.digest_of(payload))


def sign(
    spec: task_pb2.TaskSpec,
    request_id: str,
    keyring: Keyring,
    delegation: Delegation | None,
    now: datetime,
) -> bytes:
    """Sign what a task asks; its targets carry their sealed arguments with digest and size.

    Returns:
        The envelope.
    """
    order = Order(
        id=request_id,
        requester=keyring.name,
        collaboration=spec.collaboration,
        study=spec.study,
        image=spec.image,
        function=spec.function,
        targets=tuple(_target(each) for each in spec.targets),
        recipients=keyring.recipients,
        max_runtime=spec.max_runtime.seconds if spec.HasField("max_runtime") else None,
        created=now,
        expires=now + spec.timeout.ToTimedelta() + MARGIN,
        delegation=delegation,
    )
    return sign_order(order, keyring.key, keyring.sent_chain)


def delegation_of(wanted: Delegate | bool, members: Sequence[str]) -> Delegation | None:
    """What the runs of a task may ask others.

    Args:
        wanted: by whom the user narrows it; True for the widest, False for nothing.
        members: organizations of the collaboration or study.

    Raises:
        InvalidArgumentError: it cannot be narrowed like that.
    """
    if wanted is False:
        return None
    chosen = Delegate() if wanted is True else wanted
    organizations = [full("organizations", each, field="delegate") for each in chosen.organizations] or list(members)
    if not 1 <= chosen.max_depth <= MAX_DEPTH:
        raise error(Reason.INVALID_ARGUMENT, f"subtasks nest 1 to {MAX_DEPTH} deep", field="delegate")
    if not 1 <= chosen.max_tasks <= 100_000:
        raise error(Reason.INVALID_ARGUMENT, "a task may have 1 to 100,000 subtasks", field="delegate")
    return Delegation(
        organizations=tuple(organizations),
        functions=_some(chosen.functions),
        datasets=_some(chosen.datasets),
        max_tasks=chosen.max_tasks,
        max_depth=chosen.max_depth,
    )


def same_question(order: Order, spec: task_pb2.TaskSpec) -> bool:
    """Whether an order asks what a task asks, as far as that can be told: sealed arguments are never the same twice."""
    wanted = [
        (each.organization, each.node, {bound.parameter: bound.dataset for bound in each.datasets})
        for each in spec.targets
    ]
    max_runtime = spec.max_runtime.seconds if spec.HasField("max_runtime") else None
    return (order.collaboration, order.study, order.image, order.function, order.max_runtime) == (
        spec.collaboration,
        spec.study,
        spec.image,
        spec.function,
        max_runtime,
    ) and [(each.organization, each.node, each.datasets) for each in order.targets] == wanted


def _target(target: task_pb2.Target) -> OrderTarget:
    arguments = target.arguments
    return OrderTarget(
        organization=target.organization,
        node=target.node,
        arguments=Content(digest=arguments.digest, size=arguments.size_bytes, media_type=arguments.media_type),
        datasets={each.parameter: each.dataset for each in target.datasets},
    )


def _some(texts: Iterable[str] | None) -> tuple[str, ...] | None:
    return None if texts is None else tuple(texts)
