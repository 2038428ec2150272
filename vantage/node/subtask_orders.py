"""Subtasks under a signed order: signed by this node, sealed to those who are asked."""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from datetime import timedelta

import grpc
from pydantic import ValidationError

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.identity.v1 import key_service_pb2 as key_pb
from vantage.api.identity.v1 import key_service_pb2_grpc
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common.bound_arguments import line_of
from vantage.common.clock import Clock
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, error
from vantage.common.orders import check_narrower, narrow, sign_order
from vantage.common.recipients import KeyDirectory, Recipients
from vantage.common.rpc import error_from_rpc
from vantage.common.sealing import recipient_of
from vantage.common.statements import Content, Order, OrderTarget, Parent
from vantage.node.connection import Connection
from vantage.node.door import RunContext, StoredResult
from vantage.node.orders import GivenOrder
from vantage.node.payloads import Payloads
from vantage.node.sealed import Sealer

_JSON = "application/json"
_INLINE_TOTAL = 4 * 1024 * 1024
"""Bytes of arguments inside one message; what does not fit is uploaded."""
_INLINE_ONE = 512 * 1024
_TIMEOUT = 30.0
Leaves = Callable[[Iterable[task_pb2.Target]], Awaitable[None]]
"""Told of targets, with digest and size of their arguments as they will be sent, before the first byte leaves."""


class SubtaskOrders:
    """Makes what travels from this node to those that its algorithms ask.

    Args:
        connection: the way to the server; knows who this node is.
        certify: whom the node's owner trusts.
        sealer: seals.
        payloads: what is too large for a message.
        clock: the time.
        seen: see ``KeyDirectory``.
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
    ) -> task_pb2.TaskSpec:
        """A subtask as it is sent: arguments sealed, order signed.

        Args:
            context: the run that asks.
            given: the order that it obeys.
            request: what it asks.
            left: how long it may take.
            leaves: see ``Leaves``.
            answer_key: secret age key that opens the answers; of this subtask alone.

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
        sealed_to = [(each.organization, each.node) for each in request.targets if each.HasField("arguments")]
        found = iter(await self._directory.of_all(context.collaboration, sealed_to))
        targets = []
        contents = []
        for each, drawn in zip(request.targets, draft.targets, strict=True):
            target = spec.targets.add(organization=each.organization, node=each.node, datasets=each.datasets)
            content, sealed = b"", None
            if each.HasField("arguments"):
                content, sealed = await self._seal(target, each.arguments, next(found))
            contents.append(content)
            targets.append(drawn.model_copy(update={"arguments": sealed}))
        await leaves(spec.targets)
        for target, content in zip(spec.targets, contents, strict=True):
            if target.HasField("arguments"):
                await self._send(target.arguments, content, spec.ByteSize())
        identity = self._connection.identity
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

    async def _seal(
        self, target: task_pb2.Target, arguments: types_pb2.Payload, found: Recipients
    ) -> tuple[bytes, Content]:
        """Seal the arguments of a target; fills in all of them but the bytes, which are returned."""
        bound = line_of(self._connection.identity.name) + arguments.inline
        sealed = await self._sealer.seal(bound, found.recipients)
        media_type = arguments.media_type or _JSON
        digest = f"sha256:{hashlib.sha256(sealed).hexdigest()}"
        target.arguments.CopyFrom(
            types_pb2.Payload(
                media_type=media_type, sealing=types_pb2.SEALING_AGE_V1, size_bytes=len(sealed), digest=digest
            )
        )
        target.key_versions.extend(
            task_pb2.KeyVersion(holder=holder, version=version) for holder, version in found.versions
        )
        return sealed, Content(digest=digest, size=len(sealed), media_type=media_type)

    async def _send(self, payload: types_pb2.Payload, sealed: bytes, used: int) -> None:
        """Put sealed bytes into the message, or upload them when it would grow too large."""
        if len(sealed) <= _INLINE_ONE and used + len(sealed) <= _INLINE_TOTAL:
            payload.inline = sealed
            return
        stored = StoredResult(payload.media_type, sealed, payload.size_bytes, payload.digest)
        payload.CopyFrom(await self._payloads.upload(stored, f"subtask {payload.digest}", sealed=True))

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
