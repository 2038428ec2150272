"""The door of one run: what it said so far, what its node lets out, and what it may ask."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from vantage.api.algorithm.v1 import algorithm_service_pb2 as algorithm_pb
from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.task.v1 import task_pb2
from vantage.common.errors import Reason, VantageError, error
from vantage.node.boxes import Box, Boxes, StoredFile, Told
from vantage.node.capacity import Need
from vantage.node.config import PolicySection
from vantage.node.door import ByteStream, RunCallbacks, RunContext, StoredResult
from vantage.node.executor.base import Exit
from vantage.node.outcomes import author_failure
from vantage.node.outside import Outside
from vantage.node.release.looking import bare_type
from vantage.node.reporting import MAX_LINE, Reporter
from vantage.node.staging import Staging
from vantage.node.subtasks import Subtasks

Serve = Callable[[RunContext, RunCallbacks, Path], AbstractAsyncContextManager[Path]]
"""Serves the local API of a run with files in a directory; gives the directory of its socket."""

_TAIL = 20
_BLOCK = 1024 * 1024


class RunDoor:
    """Keeps ``Door`` and ``RunCallbacks`` for one attempt.

    Attributes:
        stored: the result, once there is one.
        reported: what the author reported, if the function failed.
        refused: why an answer could not be taken.
        tail: last lines that were printed.
    """

    def __init__(
        self,
        lease: pb.Lease,
        context: RunContext,
        need: Need,
        make_scratch: Callable[[], Path],
        policy: PolicySection,
        max_staged_bytes: int,
        reporter: Reporter,
        boxes: Boxes,
        subtasks: Subtasks,
        serve: Serve,
        outside: Outside,
    ) -> None:
        self.stored: StoredResult | None = None
        self.reported: VantageError | None = None
        self.refused: VantageError | None = None
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self._lease = lease
        self._context = context
        self._need = need
        self._make_scratch = make_scratch
        self._policy = policy
        self._max_staged_bytes = max_staged_bytes
        self._reporter = reporter
        self._boxes = boxes
        self._subtasks = subtasks
        self._serve = serve
        self._outside = outside
        self._running = False
        self._reading = asyncio.Lock()
        if (box := boxes.get(lease.lease_id)) is not None:
            self._go_on(box)

    def _go_on(self, box: Box) -> None:
        """What the run said to a former process counts."""
        self.stored = box.stored.result(self._scratch) if box.stored is not None else None
        self.reported = box.reported.error() if box.reported is not None else None
        self.refused = box.refused.error() if box.refused is not None else None

    # Door

    @property
    def context(self) -> RunContext:
        """See ``Door``."""
        return self._context

    @property
    def callbacks(self) -> RunCallbacks:
        """See ``Door``."""
        return self

    @property
    def scratch(self) -> Path:
        """See ``Door``: made when it is first needed."""
        return self._scratch

    @cached_property
    def _scratch(self) -> Path:
        return self._make_scratch()

    def served(self) -> AbstractAsyncContextManager[Path]:
        """See ``Door``."""
        return self._serve(self._context, self, self._scratch)

    async def created(self, container: str, image: str) -> None:
        """See ``Door``."""
        context = self._context
        box = Box(
            container=container,
            image=image,
            token=context.token,
            need=self._need,
            began=time.monotonic(),
            egress=context.declared_egress,
        )
        await self._boxes.keep(self._lease.lease_id, box)

    async def ended(self, ended: Exit) -> None:
        """See ``Door``: a node that cannot write it down goes on, and only another crash now would lose the run."""
        with contextlib.suppress(VantageError):
            await self._boxes.change(self._lease.lease_id, ended=ended)

    def started(self) -> None:
        """See ``Door``."""
        if not self._running:
            self._running = True
            self._reporter.started(self._lease)

    def line(self, text: str) -> None:
        """See ``Door``."""
        self.tail.append(text[:MAX_LINE])
        if self._policy.allow_logs and not self._context.terms.guarded:
            self._reporter.news.line(self._lease, text)

    @property
    def _messages_leave(self) -> bool:
        return self._policy.allow_messages and not self._context.terms.guarded

    # RunCallbacks

    def progress(self, fraction: float, message: str) -> None:
        """See ``RunCallbacks``."""
        if self._policy.allow_progress:
            shown = message if self._messages_leave else ""
            if self._context.terms.guarded:
                fraction = round(fraction, 2)  # many digits are as good as a text
            self._reporter.news.progress(self._lease, fraction, shown)

    async def result(self, result: StoredResult) -> None:
        """See ``RunCallbacks``."""
        if self._context.terms.guarded:
            # What may follow the type is free text that nobody looks at.
            result = replace(result, media_type=bare_type(result.media_type))
        if result.size > self._context.max_result_bytes:
            problem = error(
                Reason.RESULT_TOO_LARGE,
                f"the result has {result.size} bytes, the node lets out at most {self._context.max_result_bytes}",
            )
            await self.result_refused(problem)
            raise problem
        if self.stored is None:
            await self._boxes.change(self._lease.lease_id, stored=StoredFile.of(result))
            self.stored = result
            return
        if isinstance(result.content, Path):
            await asyncio.to_thread(result.content.unlink, missing_ok=True)
        if (self.stored.digest, self.stored.media_type) != (result.digest, result.media_type):
            raise error(Reason.RESULT_ALREADY_SUBMITTED, "the run has submitted another result: submit one result")

    async def result_refused(self, problem: VantageError) -> None:
        """See ``RunCallbacks``."""
        self.refused = problem
        await self._remember(refused=Told.of(problem))

    async def failure(self, reason: str, message: str) -> None:
        """See ``RunCallbacks``."""
        self.reported = author_failure(reason, message, allow_messages=self._messages_leave)
        await self._remember(reported=Told.of(self.reported))

    async def _remember(self, **told: Told) -> None:
        # Without room for it the run fails all the same: only the reason would be another one after a crash.
        with contextlib.suppress(VantageError):
            await self._boxes.change(self._lease.lease_id, **told)

    async def stage(self, media_type: str, chunks: AsyncIterator[bytes]) -> StoredResult:
        """See ``RunCallbacks``."""
        return await self._staging.take(media_type, chunks)

    def subtask(self, request: algorithm_pb.RunSubtaskRequest) -> AsyncGenerator[task_pb2.TaskEvent, None]:
        """See ``RunCallbacks``."""
        return self._subtasks.run(self._context, request, self._staging)

    @cached_property
    def _staging(self) -> Staging:
        return Staging(self._scratch / "staged", self._max_staged_bytes)

    async def subtask_result(self, run: str) -> AsyncGenerator[bytes, None]:
        """See ``RunCallbacks``."""
        # One at a time: many at once would take as many times the room on disk.
        async with self._reading:
            try:
                # It has no name: nobody else finds it, and nothing of it is left, however this ends.
                with await asyncio.to_thread(_nameless, self._scratch) as file:
                    await self._subtasks.read(self._context, run, file)
                    file.seek(0)
                    while block := await asyncio.to_thread(file.read, _BLOCK):
                        yield block
            except OSError as problem:
                raise error(
                    Reason.SCRATCH_UNAVAILABLE,
                    f"the node has no room for the result of a subtask: {problem.strerror}: ask its admin to look at "
                    "the disk",
                ) from problem

    async def dial(self, target: algorithm_pb.DialTarget) -> ByteStream:
        """See ``RunCallbacks``."""
        if target.HasField("peer") or target.HasField("incoming"):
            self._refuse_unseen(Reason.PEERS_REFUSED, "its peers")
        if target.HasField("host"):
            self._refuse_unseen(Reason.EGRESS_REFUSED, "hosts")
        return await self._outside.dial(target)

    def listen(self, label: str) -> AsyncGenerator[algorithm_pb.ListenResponse, None]:
        """See ``RunCallbacks``."""
        self._refuse_unseen(Reason.PEERS_REFUSED, "its peers")
        return self._outside.listen(label)

    def _refuse_unseen(self, reason: Reason, whom: str) -> None:
        if self._context.terms.guarded:
            raise error(
                reason,
                f"what leaves of this run is looked at by the node (policy.release), and what it would tell {whom} "
                "cannot be: ask the node's admin",
            )

    def peers(self) -> AsyncGenerator[algorithm_pb.WatchPeersResponse, None]:
        """See ``RunCallbacks``."""
        return self._outside.peers()


def _nameless(directory: Path) -> BinaryIO:
    return TemporaryFile(dir=directory)
