"""Lets algorithms run: slot, local API, limits of time, and the directory of each attempt."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import time
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.errors import Reason, VantageError, error
from vantage.node.active import Active
from vantage.node.boxes import Box, Boxes
from vantage.node.capacity import Need, capacity_of
from vantage.node.config import NodeConfig
from vantage.node.door import StoredResult
from vantage.node.executor.base import Executor, Exit
from vantage.node.intake import Order, Startable
from vantage.node.outcomes import conclude
from vantage.node.release.consent import Consent
from vantage.node.reporting import Reporter
from vantage.node.run_door import RunDoor, Serve
from vantage.node.services import Services
from vantage.node.sources import CodeSource
from vantage.node.subtasks import Subtasks
from vantage.node.tunnels.tunnels import Tunnels

log = logging.getLogger(__name__)

_Execute = Callable[[RunDoor], Coroutine[None, None, Exit]]


class Execution:
    """Lets algorithms run, new ones and those that a former process has started.

    Args:
        config: the node's.
        source: where code comes from.
        executor: what runs it.
        boxes: containers, for the process after this one.
        subtasks: questions of central functions.
        tunnels: streams to peers.
        services: streams to datasets and hosts, and what runs are given of datasets.
        serve: the local API.
        reporter: what the node says.
        consent: what people were asked about runs.
    """

    def __init__(
        self,
        config: NodeConfig,
        source: CodeSource,
        executor: Executor,
        boxes: Boxes,
        subtasks: Subtasks,
        tunnels: Tunnels,
        services: Services,
        serve: Serve,
        reporter: Reporter,
        consent: Consent,
    ) -> None:
        self._config = config
        self._consent = consent
        self._source = source
        self._executor = executor
        self._boxes = boxes
        self._subtasks = subtasks
        self._tunnels = tunnels
        self._services = services
        self._serve = serve
        self._reporter = reporter
        self._scratch = config.data_dir / "runs"
        self.capacity = capacity_of(config)
        self._directories: set[Path] = set()

    async def begin(self, startable: Startable, active: Active) -> StoredResult | VantageError:
        """Run an algorithm to its end; returns its result, or why there is none.

        Raises:
            VantageError: it could not run.
        """
        lease = startable.order.assign.lease

        def tell(fraction: float, text: str) -> None:
            if self._config.policy.allow_progress:
                self._reporter.news.progress(lease, fraction, text)

        async def run(door: RunDoor) -> Exit:
            await self._services.provide(lease, startable.order.context, lambda: door.scratch)
            return await self._executor.run(startable.job, door)

        job, spec = startable.job, startable.order.assign.spec
        central = startable.trusted.declaration.function(spec.function).kind == "central"
        need = Need(job.limits.cpus, job.limits.memory, job.gpus, central, subtask=bool(spec.parent_run))
        # Before there is room for it: a long pull keeps nobody else from running.
        active.enter("fetched")
        await self._source.fetch(startable.trusted, tell)
        active.enter("waiting for room")
        async with self.capacity.room(active.requester, need):
            active.begin()
            return await self._through_door(startable.order, run, need, spent=0.0)

    async def go_on(self, order: Order, box: Box, active: Active) -> StoredResult | VantageError:
        """Go on with a container as it is; as ``begin``. Room is not waited for: the container has it already."""

        async def adopt(door: RunDoor) -> Exit:
            if box.ended is not None:
                door.started()  # it was, and perhaps nobody has heard of it
                return box.ended
            return await self._executor.adopt(box.existing(order.assign.lease), door)

        active.begin()
        with self.capacity.held(active.requester, box.need):
            return await self._through_door(order, adopt, box.need, spent=max(time.monotonic() - box.began, 0.0))

    async def _through_door(
        self, order: Order, execute: _Execute, need: Need, *, spent: float
    ) -> StoredResult | VantageError:
        lease, policy = order.assign.lease, self._config.policy
        async with (
            self._tunnels.run(lease, order.context) as peers,
            self._services.run(lease, order.context, peers) as outside,
        ):
            door = RunDoor(
                lease,
                order.context,
                need,
                partial(self.make_directory, lease),
                policy,
                self._config.limits.max_staged_bytes,
                self._reporter,
                self._boxes,
                self._subtasks,
                self._serve,
                outside,
            )
            seconds, whose = self._time_limit(order)
            limit = asyncio.timeout(max(seconds - spent, 0.0))
            try:
                async with limit:
                    ended = await execute(door)
            except TimeoutError:
                if not limit.expired():
                    raise
                text = f"the algorithm ran longer than the {whose} allows ({seconds:g} s)"
                return error(Reason.RUNTIME_EXCEEDED, text)
        tail = ended.tail or tuple(door.tail)
        outcome = conclude(
            ended,
            door.stored,
            door.reported,
            door.refused,
            tail,
            allow_logs=policy.allow_logs and not order.context.terms.guarded,
        )
        if isinstance(outcome, VantageError) and tail:
            # For the node's admin alone: this log stays at the node.
            log.info("last lines of a failed run", extra={"run": lease.run, "lines": list(tail)})
        return outcome

    def _time_limit(self, order: Order) -> tuple[float, str]:
        """Seconds that the algorithm may run, and who says so: the shortest limit counts."""
        limits: list[tuple[float, str]] = [(self._config.limits.max_runtime, "node")]
        if order.context.order is not None and order.context.order.verified.order.max_runtime is not None:
            limits.append((order.context.order.verified.order.max_runtime, "order"))
        if order.assign.spec.HasField("max_runtime"):
            limits.append((max(order.assign.spec.max_runtime.ToTimedelta().total_seconds(), 0), "task"))
        return min(limits, key=lambda limit: limit[0])

    # Directories.

    def directory(self, lease: pb.Lease) -> Path:
        """Where an attempt has its files, while it has any."""
        # Not the id itself: it is the server's text. And all of the digest: a server that finds two ids with one
        # directory would have what was sealed for one run told to another.
        return self._scratch / hashlib.sha256(lease.lease_id.encode()).hexdigest()

    def make_directory(self, lease: pb.Lease) -> Path:
        """The directory of an attempt, made if it is not there.

        Raises:
            RunError: SCRATCH_UNAVAILABLE.
        """
        directory = self.directory(lease)
        self._directories.add(directory)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node cannot make room for the run: {problem.strerror}: ask its admin to look at the disk",
            ) from problem
        return directory

    async def tidy(self, lease: pb.Lease) -> None:
        """Nothing of an attempt is left at the node when this returns. May be called again."""
        self._subtasks.forget(lease.run, lease.attempt)
        self._consent.forget(lease.run, lease.attempt)
        self._boxes.forget(lease.lease_id)
        directory = self.directory(lease)
        if directory in self._directories:
            self._directories.discard(directory)
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def keep_only(self, kept: list[tuple[pb.Lease, Box]]) -> None:
        """Remove what former processes left on disk, but the files of these attempts."""
        files = {self.directory(lease): box.files for lease, box in kept}
        self._directories.update(files)
        await asyncio.to_thread(_empty, self._scratch, files)


def _empty(scratch: Path, kept: dict[Path, frozenset[str]]) -> None:
    for directory in scratch.iterdir() if scratch.is_dir() else ():
        if directory not in kept:
            if directory.is_dir():
                shutil.rmtree(directory, ignore_errors=True)
            continue
        # The socket's directory stays: the container sees this very one. Half a result is none.
        for file in directory.iterdir():
            if file.is_file() and file.name not in kept[directory]:
                file.unlink(missing_ok=True)
