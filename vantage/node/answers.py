"""What those answer whom an algorithm has asked: verified, opened, and handed on, inside an event or into a file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import BinaryIO

from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common import dsse
from vantage.common.attestation import SignedResult, verify_bytes, verify_statement
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, VantageError, error
from vantage.common.statements import Order
from vantage.node.payloads import Payloads
from vantage.node.sealed import Sealer

_HANDED_ON = 3 * 1024 * 1024
"""Bytes of a result, as it travels, that are handed to the algorithm inside a message."""
_HANDED_ON_TOGETHER = 8 * 1024 * 1024
"""Of all results inside one message, which holds 16 MiB."""
_OUTCOMES = {
    task_pb2.RUN_STATE_SUCCEEDED: "succeeded",
    task_pb2.RUN_STATE_FAILED: "failed",
    task_pb2.RUN_STATE_REFUSED: "refused",
}
"""States that a node has to sign."""


class Answers:
    """Reads what is answered to the algorithms of this node.

    Nothing else than the answers to a subtask opens with its key. With a key of the node, a server could hand what was
    sealed to the node for somebody else to an organization in league with it, to be signed as its answer.

    Args:
        certify: whom the node's owner trusts.
        sealer: opens.
        payloads: what is too large for a message.
        max_bytes: of one result, as it travels.
    """

    def __init__(self, certify: Certify, sealer: Sealer, payloads: Payloads, max_bytes: int) -> None:
        self._certify = certify
        self._sealer = sealer
        self._payloads = payloads
        self._max_bytes = max_bytes

    async def handed_on(
        self, event: task_pb2.TaskEvent, spec: task_pb2.TaskSpec, answer_key: str
    ) -> task_pb2.TaskEvent:
        """An event for the algorithm: results of ended runs verified and opened, or said to be not believed.

        Results that are too large for a message refer to their run: see ``open_to``. Without a signed order there is
        nothing to verify and to open, and all that is referred to stays so.

        Raises:
            TrustError: RESULT_UNVERIFIED, the server does not tell of one run for each target.
        """
        answer = task_pb2.TaskEvent()
        answer.CopyFrom(event)
        match event.WhichOneof("event"):
            case "run_finished":
                copied: Sequence[task_pb2.Run] = [answer.run_finished.run]
            case "run_changed":
                copied = [answer.run_changed.run]
            case "snapshot":
                copied = answer.snapshot.task.runs
                if spec.order:
                    _check_runs(copied, spec)
            case _:
                return event
        room = _HANDED_ON_TOGETHER
        for copy in copied:
            if not spec.order:
                if copy.result.WhichOneof("content") == "reference":
                    copy.result.reference = copy.name
                continue
            run = task_pb2.Run()
            run.CopyFrom(copy)
            # What nobody has verified does not reach the algorithm, whatever the server calls it.
            copy.ClearField("result")
            copy.ClearField("statement")
            if run.state in _OUTCOMES:
                await self._open(run, copy, spec, answer_key, room)
            room -= len(copy.result.inline)
        return answer

    async def open_to(self, run: task_pb2.Run, spec: task_pb2.TaskSpec, answer_key: str, file: BinaryIO) -> None:
        """Write the result of a run into a file, verified and opened; memory stays bounded.

        Args:
            run: as the server tells it.
            spec: the subtask as it was sent.
            answer_key: secret age key that opens the answers to it.
            file: empty; what is in it counts when this returns.

        Raises:
            NotFoundError: NOT_FOUND, it has no result.
            TrustError: RESULT_UNVERIFIED.
            RefusedError: SEAL_INVALID.
            VantageError: as ``Payloads.open_to``.
            OSError: of the file.
        """
        signed = self._verified(run, spec) if spec.order and run.state in _OUTCOMES else None
        if run.state != task_pb2.RUN_STATE_SUCCEEDED or not run.HasField("result"):
            raise error(Reason.NOT_FOUND, f"{run.name} has no result")
        if signed is None:
            await self._payloads.open_to(run.result, file, self._max_bytes)
            return
        payload = types_pb2.Payload()
        payload.CopyFrom(run.result)
        assert signed.statement.result is not None  # noqa: S101  # verify_statement: a success has one
        # What the server tells of it proves nothing.
        payload.digest, payload.size_bytes = signed.statement.result.digest, signed.statement.result.size
        try:
            await self._payloads.open_to(payload, file, self._max_bytes, (answer_key,))
        except VantageError as problem:
            if problem.reason is Reason.PAYLOAD_DIGEST_MISMATCH:
                verify_bytes(signed, None)  # says so in its own words
            raise

    async def _open(
        self, run: task_pb2.Run, copy: task_pb2.Run, spec: task_pb2.TaskSpec, answer_key: str, room: int
    ) -> None:
        try:
            signed = self._verified(run, spec)
            statement = signed.statement
            if statement.failure is not None:
                copy.failure.reason, copy.failure.message = statement.failure.reason, statement.failure.message
            limit = min(_HANDED_ON, room)
            if statement.result is not None and statement.result.size > limit:
                # The bytes are verified when they are read; until then the server must at least claim to have them.
                verify_bytes(signed, run.result.digest)
                copy.result.CopyFrom(
                    types_pb2.Payload(
                        media_type=statement.result.media_type,
                        sealing=types_pb2.SEALING_AGE_V1,
                        reference=run.name,
                        size_bytes=statement.result.size,
                        digest=statement.result.digest,
                    )
                )
                return
            content = await self._payloads.read(run.result, limit) if run.HasField("result") else None
            verify_bytes(signed, None if content is None else f"sha256:{hashlib.sha256(content).hexdigest()}")
            if content is None or statement.result is None:
                return
            opened = await self._sealer.open(content, (answer_key,))
            copy.result.CopyFrom(
                types_pb2.Payload(
                    media_type=statement.result.media_type,
                    sealing=types_pb2.SEALING_NONE,
                    inline=opened,
                    size_bytes=len(opened),
                )
            )
        except VantageError as problem:
            copy.state = task_pb2.RUN_STATE_FAILED
            copy.failure.reason, copy.failure.message = problem.reason.name, problem.message

    def _verified(self, run: task_pb2.Run, spec: task_pb2.TaskSpec) -> SignedResult:
        """What the node of a run has signed about its end; verified but for the bytes of the result."""
        target = next((each for each in spec.targets if each.organization == run.organization), None)
        if target is None:
            raise error(Reason.RESULT_UNVERIFIED, f"{run.organization} was not asked")
        payload = dsse.peek(spec.order)
        signed = verify_statement(
            run.statement,
            self._certify,
            order=dsse.digest_of(payload),
            asked=Order.decode(payload).created,
            run=run.name,
            organization=target.organization,
            node=target.node,
        )
        outcome = signed.statement.outcome
        if outcome != _OUTCOMES[run.state]:
            raise error(
                Reason.RESULT_UNVERIFIED,
                f"the result is not to be trusted: the server calls the run {_OUTCOMES[run.state].upper()}, its "
                f"node {outcome.upper()}",
            )
        return signed


def refers(event: task_pb2.TaskEvent) -> bool:
    """Whether an event for the algorithm leaves a result out that it may read."""
    runs: Sequence[task_pb2.Run] = (event.run_finished.run, event.run_changed.run, *event.snapshot.task.runs)
    return any(run.result.WhichOneof("content") == "reference" for run in runs)


def _check_runs(runs: Sequence[task_pb2.Run], spec: task_pb2.TaskSpec) -> None:
    asked = [each.organization for each in spec.targets]
    if [each.organization for each in runs] != asked or len({each.name for each in runs}) != len(asked):
        raise error(
            Reason.RESULT_UNVERIFIED,
            "the server does not tell of one run for each organization that the subtask asks",
        )
