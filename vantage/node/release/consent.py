"""Asks people where the terms of a run demand it: before its first start, and before anything of it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from google.protobuf.json_format import MessageToDict

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.common import argument_files, dsse
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.common.names import new_id
from vantage.node.door import RunContext, StoredResult
from vantage.node.intake import Order
from vantage.node.release.approvals import Approvals, Item, Kind, attempt_of
from vantage.node.staging import Staged
from vantage.node.threads import to_its_end

Tell = Callable[[str], None]
"""Tells the researcher what the run waits for."""
_JSON = "application/json"
_SHOWN_BYTES = 256 * 1024
"""Of each of the staged JSON arguments: what is shown is held in memory."""


class Consent:
    """Puts questions to people.

    Args:
        node: name of this node, for the researcher.
        approvals: what waits, and what was decided.
        clock: the time.

    Attributes:
        waits: told of an attempt without a container whether it waits now: then another process may go on with it.
    """

    def __init__(self, node: str, approvals: Approvals, clock: Clock) -> None:
        self.waits: Callable[[str, bool], None] = lambda _attempt, _now: None
        self._node = node
        self._approvals = approvals
        self._clock = clock

    async def to_start(self, order: Order, tell: Tell) -> None:
        """Ask whether a function of an image may run here at all, unless somebody has said so before.

        Raises:
            RefusedError: APPROVAL_DENIED.
            RunError: SCRATCH_UNAVAILABLE.
        """
        context = order.context
        if not context.terms.first_run or self._approvals.knows_image(context.image, context.function):
            return
        item = self._item("run", context, order.assign.creator)
        tell(f"waits until the admin of {self._node} approves of this image")
        await self._wait(item)

    async def to_leave(self, order: Order, result: StoredResult, make_room: Callable[[], Path], tell: Tell) -> None:
        """Ask whether a result may leave.

        Raises:
            RefusedError: APPROVAL_DENIED.
            RunError: SCRATCH_UNAVAILABLE.
        """
        context = order.context
        if not context.terms.every_result:
            return
        try:
            file = await to_its_end(_readable, result, make_room)
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node has no room to keep the result: {problem.strerror}: ask its admin to look at the disk",
            ) from problem
        item = self._item("result", context, order.assign.creator, result.digest).model_copy(
            update={"media_type": result.media_type, "size": result.size, "file": str(file)}
        )
        tell(f"waits until the admin of {self._node} has looked at the result")
        await self._wait(item)

    async def to_ask(self, context: RunContext, request: algorithm_pb.RunSubtaskRequest, staged: Staged) -> None:
        """Ask whether a run may put a question to others, with these arguments.

        Args:
            context: the run.
            request: what it asks.
            staged: arguments that it names.

        Raises:
            RefusedError: APPROVAL_DENIED.
            RunError: SCRATCH_UNAVAILABLE.
        """
        if not context.terms.every_result:
            return
        try:
            content = await to_its_end(_question, request, staged)
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node cannot read what waits: {problem.strerror}: ask its admin to look at the disk",
            ) from problem
        item = self._item("question", context, "", dsse.digest_of(content))
        item = item.model_copy(update={"media_type": _JSON, "size": len(content)})
        await self._approvals.wait(item, content)

    async def _wait(self, item: Item) -> None:
        self.waits(item.attempt, True)
        try:
            await self._approvals.wait(item)
        finally:
            self.waits(item.attempt, False)

    def forget(self, run: str, attempt: int) -> None:
        """An attempt has its end."""
        self._approvals.forget(attempt_of(run, attempt))

    def _item(self, kind: Kind, context: RunContext, creator: str, digest: str = "") -> Item:
        attempt = attempt_of(context.run, context.attempt)
        requester = context.order.verified.root_requester if context.order is not None else creator
        return Item(
            id=Item.named(kind, attempt, digest),
            kind=kind,
            attempt=attempt,
            run=context.run,
            image=context.image,
            function=context.function,
            requester=requester or "somebody who has not signed",
            collaboration=context.collaboration,
            datasets=tuple(each.dataset for each in context.datasets),
            since=self._clock.now(),
            deadline=context.deadline,
            digest=digest,
        )


def _readable(result: StoredResult, make_room: Callable[[], Path]) -> Path:
    """The file that holds a result, for the node's own user alone."""
    if isinstance(result.content, Path):
        path = result.content
    else:
        path = make_room() / f"held-{new_id()}"
        path.write_bytes(result.content)
    path.chmod(0o600)
    return path


def _question(request: algorithm_pb.RunSubtaskRequest, staged: Staged) -> bytes:
    """What a question says to others, all of it, for people; the same question gives the same bytes.

    What is not set is not shown. The numbers (time limits, quorum) are the algorithm's to choose, as its arguments are.
    """
    told = MessageToDict(request, preserving_proto_field_name=True)
    for name in ("request_id", "after_sequence"):  # these stay here
        told.pop(name, None)
    targets = told.pop("targets", [])
    for each, target in zip(request.targets, targets, strict=True):
        if each.arguments.HasField("inline"):
            target["arguments"]["inline"] = each.arguments.inline.decode(errors="backslashreplace")
    # The long parts last: what people are shown first ends somewhere.
    shown = {"staged": [_staged(each) for each in staged.values()]} if staged else {}
    return json.dumps({**told, **shown, "targets": targets}, indent=1).encode()


def _staged(stored: StoredResult) -> dict[str, object]:
    """Staged arguments, for people, who find all of them in the file; their digest stands for each byte."""
    path = Path(str(stored.content))
    told: dict[str, object] = {"digest": stored.digest, "size_bytes": stored.size, "file": str(path)}
    if stored.media_type == argument_files.MEDIA_TYPE:
        found = argument_files.look_into(path, _SHOWN_BYTES)
        told["files"] = [{"name": name, "size_bytes": size} for name, size in found.files]
        arguments, size = found.arguments, found.arguments_size
    else:
        with path.open("rb") as file:
            arguments, size = file.read(_SHOWN_BYTES), stored.size
    told["arguments"] = arguments.decode(errors="backslashreplace")
    if size > len(arguments):
        told["arguments_left_out_bytes"] = size - len(arguments)
    return told
