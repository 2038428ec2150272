"""Subtasks under a signed order: signed by this node, sealed to those who are asked."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterable, MutableMapping, Sequence
from datetime import timedelta

import grpc
from pydantic import ValidationError

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.identity.v1 import key_service_pb2 as key_pb
from vantage.api.identity.v1 import key_service_pb2_grpc
from vantage.api.task.v1 import task_pb2
from vantage.common.clock import Clock
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, error
from vantage.common.orders import check_narrower, narrow, sign_order
from vantage.common.recipients import KeyDirectory
from vantage.common.rpc import error_from_rpc
from vantage.common.sealing import recipient_of
from vantage.common.statements import Order, OrderTarget, Parent
from vantage.node.connection import Connection
from vantage.node.door import RunContext
from vantage.node.orders import GivenOrder
from vantage.node.payloads import Payloads
from vantage.node.sealed import Sealer
from vantage.node.staging import NOTHING, Staged
from vantage.node.subtask_arguments import Leaves, SubtaskArguments

_TIMEOUT = 30.0


class SubtaskOrders:
    """Makes what travels from this node to those that its algorithms ask.

    Args:
        connection: the way to the server; knows who this node is.
        certify: whom the node's owner trusts.
        sealer: seals.
        payloads: what is too large for a message.
        clock: the time.
        seen: see ``KeyDirectory``.

    Attributes:
        arguments: puts arguments into tasks.
    """

    def __init__(
        self,
        connection: Connection,
        certify: Certify,
        sealer: Sealer,
        payloads: Payloads,
        clock: Clock,
        seen: MutableMapping[str, int] | None = None,
    ) -> None:
        self._connection = connection
        self._certify = certify
        self._sealer = sealer
        self._payloads = payloads
        self.arguments = SubtaskArguments(sealer, payloads)
        self._clock = clock
        self._directory = KeyDirectory(self._fetch, certify, clock, seen)

    def forget_keys(self) -> None:
        """The server said that keys have changed: fetch them at the next use."""
        self._directory.forget()

    async def spec(
        self,
        context: RunContext,
        given: GivenOrder,
        request: algorithm_pb.RunSubtaskRequest,
        left: timedelta,
        leaves: Leaves,
        answer_key: str,
        staged: Staged = NOTHING,
    ) -> task_pb2.TaskSpec:
        """A subtask as it is sent: arguments sealed, order signed.

        Args:
            context: the run that asks.
            given: the order that it obeys.
            request: what it asks.
            left: how long it may take.
            leaves: see ``Leaves``.
            answer_key: secret age key that opens the answers; of this subtask alone.
            staged: arguments that it names.

        Raises:
            VantageError: no keys, an unknown target, or nobody may be asked; that of ``leaves``.
        """
        above = given.verified.order
        if above.delegation is None:
            raise error(
                Reason.ORDER_EXCEEDS_PARENT, "the order of this task allows no subtasks: its researcher can allow them"
            )
        try:
            draft = self._draft(context, given, request, left, recipient_of(answer_key))
        except ValidationError as problem:
            raise error(Reason.INVALID_ARGUMENT, "a name or a number of the subtask is too large") from problem
        # Before a byte is sealed to anybody: whom the order does not name learns nothing from this node's algorithm.
        check_narrower(draft, above, context.organization)
        spec = task_pb2.TaskSpec(
            collaboration=context.collaboration,
            title=request.title,
            image=context.image,
            function=request.function,
            parent_run=context.run,
            study=above.study,
        )
        spec.timeout.FromTimedelta(left)
        set_course(spec, request)
        for each in request.targets:
            spec.targets.add(organization=each.organization, node=each.node, datasets=each.datasets)
        given_to = [position for position, each in enumerate(request.targets) if each.HasField("arguments")]
        sealed_to = [(spec.targets[each].organization, spec.targets[each].node) for each in given_to]
        found = await self._directory.of_all(context.collaboration, sealed_to)
        identity = self._connection.identity
        contents = await self.arguments.seal(
            spec, request, staged, dict(zip(given_to, found, strict=True)), identity.name, leaves
        )
        targets = (
            drawn.model_copy(update={"arguments": contents.get(position)})
            for position, drawn in enumerate(draft.targets)
        )
        order = draft.model_copy(update={"requester": identity.name, "targets": tuple(targets)})
        spec.order = sign_order(order, identity.key, identity.chain)
        return spec

    def _draft(
        self,
        context: RunContext,
        given: GivenOrder,
        request: algorithm_pb.RunSubtaskRequest,
        left: timedelta,
        recipient: str,
    ) -> Order:
        """The order of a subtask, but for its arguments."""
        above, now = given.verified.order, self._clock.now()
        targets = (
            OrderTarget(
                organization=each.organization,
                node=each.node,
                datasets={bound.parameter: bound.dataset for bound in each.datasets},
            )
            for each in request.targets
        )
        return Order(
            id=str(uuid.uuid4()),
            requester=self._connection.identity.name,
            collaboration=context.collaboration,
            study=above.study,
            image=context.image,
            function=request.function,
            targets=tuple(targets),
            recipients=(recipient,),
            max_runtime=_shorter(request, above.max_runtime),
            created=now,
            # The server ends the task a moment later than this is made; never later than what is above.
            expires=min(now + left + timedelta(minutes=5), above.expires),
            delegation=narrow(above.delegation),
            parent=Parent(order=given.verified.digest, run=context.run),
        )

    async def _fetch(self, collaboration: str, organizations: Sequence[str]) -> Iterable[tuple[str, bytes]]:
        stub = key_service_pb2_grpc.KeyServiceStub(await self._connection.channel())
        found: list[tuple[str, bytes]] = []
        token = ""
        while True:
            request = key_pb.ListNodeKeysRequest(
                collaboration=collaboration, organizations=organizations, page_size=500, page_token=token
            )
            try:
                page = await stub.ListNodeKeys(request, metadata=await self._connection.metadata(), timeout=_TIMEOUT)
            except grpc.aio.AioRpcError as problem:
                raise error_from_rpc(problem) from problem
            found += [(each.holder, each.envelope) for each in page.keys]
            token = page.next_page_token
            if not token:
                return found


def set_course(spec: task_pb2.TaskSpec, request: algorithm_pb.RunSubtaskRequest) -> None:
    """How the subtask is to go on and when it is to end, as the algorithm asks; the server narrows that."""
    spec.quorum, spec.on_failure = request.quorum, request.on_failure
    spec.max_attempts, spec.detached = request.max_attempts, request.detached
    if request.HasField("max_runtime"):
        spec.max_runtime.CopyFrom(request.max_runtime)


def _shorter(request: algorithm_pb.RunSubtaskRequest, above: int | None) -> int | None:
    """Seconds that a run of the subtask may take: what the algorithm asks for, at most what the order above says."""
    if not request.HasField("max_runtime"):
        return above
    wanted = math.ceil(request.max_runtime.ToTimedelta().total_seconds())
    return wanted if above is None else min(wanted, above)
