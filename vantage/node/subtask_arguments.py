"""Arguments of subtasks as they leave: sealed, and uploaded when a message would grow too large."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.task.v1 import task_pb2
from vantage.api.types.v1 import types_pb2
from vantage.common.media_types import JSON
from vantage.common.recipients import Recipients, shared
from vantage.common.statements import Content
from vantage.node.door import StoredResult
from vantage.node.payloads import Payloads
from vantage.node.sealed import Sealer
from vantage.node.staging import Staged, is_staged

_INLINE_TOTAL = 4 * 1024 * 1024
"""Bytes of arguments inside one message; what does not fit is uploaded."""
_INLINE_ONE = 512 * 1024

Leaves = Callable[[Iterable[task_pb2.Target]], Awaitable[None]]
"""Told of targets, with digest and size of their arguments as they will be sent, before the first byte leaves."""


class SubtaskArguments:
    """Puts arguments into the targets of a task; memory stays bounded whatever the size of those that are staged.

    Args:
        sealer: seals.
        payloads: uploads.
    """

    def __init__(self, sealer: Sealer, payloads: Payloads) -> None:
        self._sealer = sealer
        self._payloads = payloads

    async def seal(
        self,
        spec: task_pb2.TaskSpec,
        request: algorithm_pb.RunSubtaskRequest,
        staged: Staged,
        recipients: Mapping[int, Recipients],
        requester: str,
        leaves: Leaves,
    ) -> Mapping[int, Content]:
        """Put what a question gives to its targets into those of a task, sealed for an order of the requester.

        The same arguments of several targets are sealed and uploaded once, to all who get them.

        Args:
            spec: has the targets of the question, without arguments.
            request: the question.
            staged: what it names.
            recipients: whom to seal to, by the position of the target.
            requester: this node.
            leaves: see ``Leaves``.

        Returns:
            What an order says of the arguments, by the position of the target.

        Raises:
            VantageError: KEY_INVALID, no room, the server does not take it; that of ``leaves``.
        """
        alike: dict[StoredResult, list[int]] = {}
        for position, each in enumerate(request.targets):
            if each.HasField("arguments"):
                alike.setdefault(_given(each.arguments, staged), []).append(position)
        contents: dict[int, Content] = {}
        in_memory: list[tuple[StoredResult, list[task_pb2.Target]]] = []
        untold = dict(enumerate(spec.targets))
        for given, positions in alike.items():
            for group, whom in shared(positions, recipients):
                async with self._sealer.sealed_arguments(given, requester, whom) as sealed:
                    for position in group:
                        _describe(spec.targets[position], sealed, recipients[position])
                        contents[position] = Content(
                            digest=sealed.digest, size=sealed.size, media_type=sealed.media_type
                        )
                    targets = [spec.targets[position] for position in group]
                    if isinstance(sealed.content, bytes):
                        in_memory.append((sealed, targets))
                        continue
                    # At once, so that no two sealed files lie there.
                    await leaves([untold.pop(position) for position in group])
                    await self._send(sealed, targets, spec.ByteSize())
        if untold:
            await leaves(untold.values())
        for sealed, targets in in_memory:
            await self._send(sealed, targets, spec.ByteSize())
        return contents

    async def upload(self, spec: task_pb2.TaskSpec, staged: Staged, request_id: str) -> None:
        """Upload what the targets of an unsigned task name of staged arguments, each once, as it is.

        Args:
            spec: with the targets of the question.
            staged: what it names.
            request_id: of the task: asked again, it refers to the same uploads.

        Raises:
            VantageError: the server does not take it.
        """
        uploaded = {
            key: await self._payloads.upload(stored, f"subtask {request_id} {' '.join(key)}", sealed=False)
            for key, stored in staged.items()
        }
        for target in spec.targets:
            if is_staged(target.arguments):
                target.arguments.CopyFrom(uploaded[target.arguments.media_type, target.arguments.digest])

    async def _send(self, sealed: StoredResult, targets: list[task_pb2.Target], used: int) -> None:
        """Put sealed bytes into the message, or upload them when it would grow too large."""
        fits = sealed.size <= _INLINE_ONE and used + sealed.size * len(targets) <= _INLINE_TOTAL
        if fits and isinstance(sealed.content, bytes):
            for target in targets:
                target.arguments.inline = sealed.content
            return
        payload = await self._payloads.upload(sealed, f"subtask {sealed.digest}", sealed=True)
        for target in targets:
            target.arguments.CopyFrom(payload)


def _given(arguments: types_pb2.Payload, staged: Staged) -> StoredResult:
    if is_staged(arguments):
        return staged[arguments.media_type, arguments.digest]
    return StoredResult(arguments.media_type or JSON, arguments.inline, len(arguments.inline), "")


def _describe(target: task_pb2.Target, sealed: StoredResult, recipients: Recipients) -> None:
    """All that a target says of its arguments but where their bytes are."""
    target.arguments.CopyFrom(
        types_pb2.Payload(
            media_type=sealed.media_type, sealing=types_pb2.SEALING_AGE_V1, size_bytes=sealed.size, digest=sealed.digest
        )
    )
    target.key_versions.extend(
        task_pb2.KeyVersion(holder=holder, version=version) for holder, version in recipients.versions
    )
