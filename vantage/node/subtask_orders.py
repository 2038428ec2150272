"""Subtasks under a signed order: signed by this node, sealed to those who are asked, opened here."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Sequence
from datetime import timedelta

import grpc

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.identity.v1 import key_service_pb2 as key_pb
from vantage.api.identity.v1 import key_service_pb2_grpc
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import dsse
from vantage.common.attestation import verify_result
from vantage.common.clock import Clock
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, VantageError, error
from vantage.common.orders import narrow, sign_order
from vantage.common.recipients import KeyDirectory
from vantage.common.rpc import error_from_rpc
from vantage.common.statements import Content, Order, OrderTarget, Parent
from vantage.node.connection import Connection
from vantage.node.door import RunContext, StoredResult
from vantage.node.orders import GivenOrder
from vantage.node.payloads import Payloads
from vantage.node.seal_keys import SealKeys
from vantage.node.sealed import Sealer

_JSON = "application/json"
_INLINE_TOTAL = 4 * 1024 * 1024
"""Bytes of arguments inside one message; what does not fit is uploaded."""
_INLINE_ONE = 512 * 1024
_HANDED_ON = 3 * 1024 * 1024
"""Bytes of a result that are handed to the algorithm inside a message."""
_TIMEOUT = 30.0
_ENDED_BY_NODE = (task_pb2.RUN_STATE_SUCCEEDED, task_pb2.RUN_STATE_FAILED, task_pb2.RUN_STATE_REFUSED)


class SubtaskOrders:
    """Makes and reads what travels between this node and those that its algorithms ask.

    Args:
        connection: the way to the server; knows who this node is.
        certify: whom the node's owner trusts.
        keys: this node's, to which answers are sealed.
        sealer: opens and seals.
        payloads: what is too large for a message.
        clock: the time.
    """

    def __init__(
        self,
        connection: Connection,
        certify: Certify,
        keys: SealKeys,
        sealer: Sealer,
        payloads: Payloads,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._certify = certify
        self._keys = keys
        self._sealer = sealer
        self._payloads = payloads
        self._clock = clock
        self._directory = KeyDirectory(self._fetch, certify, clock)

    def forget_keys(self) -> None:
        """The server said that keys have changed: fetch them at the next use."""
        self._directory.forget()

    async def spec(
        self, context: RunContext, given: GivenOrder, request: algorithm_pb.RunSubtaskRequest, left: timedelta
    ) -> task_pb2.TaskSpec:
        """A subtask as it is sent: arguments sealed, order signed.

        Args:
            context: the run that asks.
            given: the order that it obeys.
            request: what it asks.
            left: how long it may take.

        Raises:
            VantageError: no keys, an unknown target, or nobody may be asked.
        """
        above = given.verified.order
        if above.delegation is None:
            raise error(
                Reason.ORDER_EXCEEDS_PARENT, "the order of this task allows no subtasks: its researcher can allow them"
            )
        spec = task_pb2.TaskSpec(
            collaboration=context.collaboration,
            title=request.title,
            image=context.image,
            function=request.function,
            parent_run=context.run,
            study=above.study,
        )
        spec.timeout.FromTimedelta(left)
        targets = []
        for each in request.targets:
            target = spec.targets.add(organization=each.organization, node=each.node, datasets=each.datasets)
            signed = OrderTarget(
                organization=each.organization,
                node=each.node,
                arguments=await self._seal(target, each, spec.ByteSize(), context.collaboration),
                datasets={bound.parameter: bound.dataset for bound in each.datasets},
            )
            targets.append(signed)
        now = self._clock.now()
        order = Order(
            id=str(uuid.uuid4()),
            requester=self._connection.identity.name,
            collaboration=context.collaboration,
            study=above.study,
            image=context.image,
            function=request.function,
            targets=tuple(targets),
            recipients=self._keys.recipients[:1],
            max_runtime=above.max_runtime,
            created=now,
            # The server ends the task a moment later than this is made; never later than what is above.
            expires=min(now + left + timedelta(minutes=5), above.expires),
            delegation=narrow(above.delegation),
            parent=Parent(order=given.verified.digest, run=context.run),
        )
        identity = self._connection.identity
        spec.order = sign_order(order, identity.key, identity.chain)
        return spec

    async def opened(self, event: task_pb2.TaskEvent, spec: task_pb2.TaskSpec) -> task_pb2.TaskEvent:
        """An event for the algorithm: results of ended runs verified and opened, or said to be not believed."""
        kind = event.WhichOneof("event")
        if kind == "run_finished":
            runs: Sequence[task_pb2.Run] = [event.run_finished.run]
        elif kind == "snapshot":
            runs = event.snapshot.task.runs
        else:
            return event
        answer = task_pb2.TaskEvent()
        answer.CopyFrom(event)
        of = {each.organization: each for each in spec.targets}
        copied = [answer.run_finished.run] if kind == "run_finished" else answer.snapshot.task.runs
        for run, copy in zip(runs, copied, strict=True):
            if run.state in _ENDED_BY_NODE:
                await self._open(run, copy, of.get(run.organization), spec)
        return answer

    async def _open(
        self, run: task_pb2.Run, copy: task_pb2.Run, target: task_pb2.Target | None, spec: task_pb2.TaskSpec
    ) -> None:
        try:
            if target is None:
                raise error(Reason.RESULT_UNVERIFIED, f"{run.organization} was not asked")
            content = await self._payloads.read(run.result) if run.HasField("result") else None
            digest = None if content is None else f"sha256:{hashlib.sha256(content).hexdigest()}"
            verified = verify_result(
                run.statement,
                self._certify,
                order=dsse.digest_of(dsse.peek(spec.order)),
                run=run.name,
                organization=target.organization,
                node=target.node,
                digest=digest,
            )
            copy.ClearField("statement")
            if content is None:
                failure = verified.statement.failure
                if failure is not None:
                    copy.failure.reason, copy.failure.message = failure.reason, failure.message
                return
            opened = await self._sealer.open(content)
            if len(opened) > _HANDED_ON:
                raise error(
                    Reason.RESULT_TOO_LARGE,
                    f"the result has {len(opened)} bytes, a node hands {_HANDED_ON} on to its algorithm: let the "
                    "function return less",
                )
            copy.result.CopyFrom(
                types_pb2.Payload(
                    media_type=run.result.media_type,
                    sealing=types_pb2.SEALING_NONE,
                    inline=opened,
                    size_bytes=len(opened),
                )
            )
        except VantageError as problem:
            copy.ClearField("result")
            copy.ClearField("statement")
            copy.state = task_pb2.RUN_STATE_FAILED
            copy.failure.reason, copy.failure.message = problem.reason.name, problem.message

    async def _seal(
        self, target: task_pb2.Target, asked: task_pb2.Target, used: int, collaboration: str
    ) -> Content | None:
        if not asked.HasField("arguments"):
            return None
        found = await self._directory.of(collaboration, asked.organization, asked.node)
        sealed = await self._sealer.seal(asked.arguments.inline, found.recipients)
        media_type = asked.arguments.media_type or _JSON
        digest = f"sha256:{hashlib.sha256(sealed).hexdigest()}"
        stored = StoredResult(media_type, sealed, len(sealed), digest)
        if len(sealed) > _INLINE_ONE or used + len(sealed) > _INLINE_TOTAL:
            payload = await self._payloads.upload(stored, f"subtask {digest}", sealed=True)
        else:
            payload = types_pb2.Payload(
                media_type=media_type,
                sealing=types_pb2.SEALING_AGE_V1,
                inline=sealed,
                size_bytes=len(sealed),
                digest=digest,
            )
        target.arguments.CopyFrom(payload)
        target.key_versions.extend(
            task_pb2.KeyVersion(holder=holder, version=version) for holder, version in found.versions
        )
        return Content(digest=digest, size=len(sealed), media_type=media_type)

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
