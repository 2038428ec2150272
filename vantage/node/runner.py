"""Runs: one asyncio task each, from the assignment to the journalled outcome. A run never harms the node."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.retries import MENDABLE
from vantage.node.audit import NodeAudit
from vantage.node.config import NodeConfig
from vantage.node.door import StoredResult
from vantage.node.executor.base import Executor
from vantage.node.intake import Intake, Order, deadline_of
from vantage.node.journal import Journal
from vantage.node.orders import GivenOrder, OrderGate
from vantage.node.outcomes import conclude
from vantage.node.payloads import Payloads
from vantage.node.release.examiner import Examiner
from vantage.node.reporting import Reporter
from vantage.node.run_door import RunDoor, Serve
from vantage.node.sealed import Sealer, payload_of
from vantage.node.services import Services
from vantage.node.session import Settings
from vantage.node.sources import CodeSource
from vantage.node.subtasks import Subtasks
from vantage.node.tunnels.tunnels import Tunnels

log = logging.getLogger(__name__)

_Step = Callable[[pb.Assign, "_Active"], Coroutine[None, None, None]]


@dataclass
class _Active:
    """A run under way.

    Attributes:
        stop: why it is being stopped: a reason to report, or None when nothing is to be said.
        given: the order that was taken for it, if it has one.
        answered: whether the algorithm has answered: what happens from then on, happens to its answer.
    """

    lease: pb.Lease
    task: asyncio.Task[None] | None = None
    stopping: bool = False
    stop: str | None = None
    given: GivenOrder | None = None
    answered: bool = False


@dataclass(frozen=True)
class Tools:
    """What every run needs.

    Attributes:
        source: where code comes from.
        executor: what runs it.
        payloads: large arguments and results.
        subtasks: questions of central functions.
        serve: the local API.
        tunnels: streams to peers.
        services: streams to datasets and hosts, and what runs are given of datasets.
        scratch: directory that holds the runs' own.
        audit: what happened, for the node's admin.
        gate: decides about signed orders.
        sealer: opens arguments and seals results.
        examiner: looks into results before they leave.
    """

    source: CodeSource
    executor: Executor
    payloads: Payloads
    subtasks: Subtasks
    serve: Serve
    tunnels: Tunnels
    services: Services
    scratch: Path
    audit: NodeAudit
    gate: OrderGate
    sealer: Sealer
    examiner: Examiner


class Runner:
    """Keeps ``Work`` for the session.

    Args:
        config: the node's.
        journal: what it took on.
        reporter: what it says.
        tools: what runs need.
        clock: the time.
    """

    def __init__(self, config: NodeConfig, journal: Journal, reporter: Reporter, tools: Tools, clock: Clock) -> None:
        self._config = config
        self._journal = journal
        self._reporter = reporter
        self._tools = tools
        self._clock = clock
        self._settings = Settings()
        self._welcomed = asyncio.Event()
        self._slots = asyncio.Semaphore(config.slots)
        self._busy = 0
        self._active: dict[str, _Active] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._directories: set[Path] = set()
        self._intake = Intake(
            config,
            tools.source,
            tools.payloads,
            tools.gate,
            tools.sealer,
            lambda: self._settings.collaborations,
            self._directory,
        )

    # Work

    def welcomed(self, settings: Settings) -> None:
        """See ``Work``."""
        self._settings = settings
        self._welcomed.set()

    def assigned(self, assign: pb.Assign) -> None:
        """See ``Work``."""
        lease_id = assign.lease.lease_id
        if lease_id in self._active or self._journal.entry(lease_id) is not None:
            return  # sent again: the answer is under way, or is repeated by the journal
        if self._draining:
            # Not refused, which would be final: the lease ends, and another node or the next process gets the run.
            log.info("assignment left alone while stopping", extra={"run": assign.lease.run})
            return
        self._begin(assign, self._take_on)

    def cancel(self, lease: pb.Lease, reason: str) -> None:
        """See ``Work``."""
        if (active := self._active.get(lease.lease_id)) is not None:
            self._stop(active, reason or Reason.TASK_CANCELLED.name)

    def revoke(self, lease: pb.Lease) -> None:
        """See ``Work``."""
        log.warning("lease revoked by the server", extra={"run": lease.run, "attempt": lease.attempt})
        self._journal.drop(lease.lease_id)
        if (active := self._active.get(lease.lease_id)) is not None:
            self._stop(active, None)

    def offered(self, offer: pb.OpenRelay) -> None:
        """See ``Work``."""
        self._tools.tunnels.offered(offer)

    def free_slots(self) -> int:
        """See ``Work``."""
        return 0 if self._draining else max(0, self._config.slots - len(self._active))

    # For the agent.

    async def recover(self) -> None:
        """Deal with what a former process left: end what may have run, begin what did not.

        Containers that still run are removed, not adopted: their output has nobody to listen to any more.
        """
        removed = await self._tools.executor.clean_up()
        await asyncio.to_thread(_empty, self._tools.scratch)
        left = self._journal.unfinished()
        for entry in left:
            if entry.started:
                answered = self._tools.gate.is_answered(entry.assign)
                self._tools.audit.ended(entry.assign.lease, Reason.NODE_LOST.name)
                await self._reporter.failed(
                    entry.assign.lease,
                    error(
                        Reason.NODE_LOST,
                        f"{self._config.identity.name} was restarted while the algorithm ran: ask again",
                    ),
                    retryable=not answered,
                )
            else:
                self._begin(entry.assign, self._run)
        if removed or left:
            log.warning("recovered from a restart", extra={"removed": removed, "unfinished": len(left)})

    def drain(self) -> None:
        """Take nothing more; what runs goes on."""
        self._draining = True

    def cancel_all(self, reason: Reason) -> None:
        """Stop everything and report it as stopped by the node."""
        for active in list(self._active.values()):
            self._stop(active, reason.name)

    async def idle(self) -> None:
        """Wait until nothing runs."""
        await self._idle.wait()

    async def abandon(self) -> None:
        """Stop everything without a word, e.g. because the process ends; the journal knows what was under way."""
        tasks = [active.task for active in self._active.values() if active.task is not None]
        for active in list(self._active.values()):
            self._stop(active, None)
        if tasks:
            await asyncio.wait(tasks)

    # One run.

    def _begin(self, assign: pb.Assign, work: _Step) -> None:
        active = self._active[assign.lease.lease_id] = _Active(assign.lease)
        self._idle.clear()
        active.task = asyncio.create_task(self._guard(assign, active, work), name=assign.lease.run)

    def _stop(self, active: _Active, reason: str | None) -> None:
        if active.stopping:
            return
        active.stopping, active.stop = True, reason
        if active.task is not None:
            active.task.cancel()

    async def _guard(self, assign: pb.Assign, active: _Active, work: _Step) -> None:
        lease = assign.lease
        try:
            await work(assign, active)
        except asyncio.CancelledError:
            if active.stop is not None:
                log.info("run stopped", extra={"run": lease.run, "reason": active.stop})
                self._tools.audit.ended(lease, active.stop)
                await self._reporter.cancelled(lease, active.stop)
            if not active.stopping:
                raise
        except Exception:
            # Whatever fault this is, it is one run's: the node lives on and the researcher is told.
            log.exception("fault while running", extra={"run": lease.run})
            self._tools.audit.ended(lease, Reason.INTERNAL.name)
            self._answered(active)
            await self._reporter.failed(
                lease,
                error(Reason.INTERNAL, f"a fault of {self._config.identity.name}: its admin finds it in the log"),
            )
        finally:
            self._active.pop(lease.lease_id, None)
            self._reporter.news.forget(lease.lease_id)
            if not self._active:
                self._idle.set()

    async def _take_on(self, assign: pb.Assign, active: _Active) -> None:
        try:
            await self._journal.accept(assign)
        except VantageError as problem:
            await self._reporter.refused(assign.lease, problem, retryable=problem.reason in MENDABLE)
            return
        await self._run(assign, active)

    async def _run(self, assign: pb.Assign, active: _Active) -> None:
        try:
            await self._decide_and_answer(assign, active)
        finally:
            await self._clear(assign.lease)  # also after a refusal

    async def _decide_and_answer(self, assign: pb.Assign, active: _Active) -> None:
        lease = assign.lease
        # After a restart the collaborations are not known before the server's welcome.
        await self._welcomed.wait()
        deadline = asyncio.timeout(max((deadline_of(assign) - self._clock.now()).total_seconds(), 0))
        try:
            async with deadline:
                try:
                    order = await self._intake.prepare(assign, partial(self._make_directory, lease))
                except VantageError as problem:
                    log.info("run refused", extra={"run": lease.run, "reason": problem.reason.name})
                    self._tools.audit.decided(assign, problem)
                    await self._reporter.refused(lease, problem, retryable=problem.reason in MENDABLE)
                    return
                active.given = order.context.order
                self._tools.audit.decided(assign, None)
                self._reporter.accepted(lease)
                outcome, around = await self._answer(order, active)
        except TimeoutError:
            if not deadline.expired():
                raise
            outcome, around = (
                error(Reason.TASK_EXPIRED, "the task's time ended before the algorithm had answered"),
                False,
            )
        if isinstance(outcome, VantageError):
            retryable = around and not active.answered and outcome.reason in MENDABLE
            if not retryable:
                self._answered(active)
            log.info("run failed", extra={"run": lease.run, "reason": outcome.reason.name})
            self._tools.audit.ended(lease, outcome.reason.name)
            await self._reporter.failed(lease, outcome, retryable=retryable)
        else:
            await self._reporter.succeeded(lease, outcome)

    def _answered(self, active: _Active) -> None:
        """That there is no result is an answer, too: the server cannot have the order run again for a better one."""
        if active.given is not None:
            self._tools.gate.answered(active.given)

    async def _answer(self, order: Order, active: _Active) -> tuple[types_pb2.Payload | VantageError, bool]:
        """Run the algorithm and hand over its result; nothing of the run is left on disk when this returns.

        Returns:
            The result or why there is none, and for the latter whether the cause lies around the algorithm.
        """
        try:
            outcome = await self._execute(order)
            active.answered = True
            if isinstance(outcome, VantageError):
                return outcome, False
            outcome = await self._look_into(order, outcome)
            if order.recipients:
                outcome = await self._tools.sealer.seal_result(outcome, order.recipients)
            given = order.context.order
            if given is not None and not self._tools.gate.answered(given):
                replayed = "another attempt of this run has answered: an order is answered once"
                return error(Reason.ORDER_REPLAYED, replayed), False
            # Before the first byte leaves, also of an upload.
            self._tools.audit.leaves(order.assign.lease, outcome)
            await self._tools.audit.settle()
            return await self._deliver(order.assign.lease, outcome, sealed=bool(order.recipients)), False
        except VantageError as problem:
            return problem, True
        finally:
            self._tools.subtasks.forget(order.context)
            await self._clear(order.assign.lease)

    async def _look_into(self, order: Order, result: StoredResult) -> StoredResult:
        """What may leave of a result."""
        lease, terms = order.assign.lease, order.context.terms
        released, blanked = await self._tools.examiner.examine(terms, result, partial(self._make_directory, lease))
        if blanked:
            self._tools.audit.blanked(lease, blanked)
            self._reporter.news.progress(
                lease, 1.0, f"{blanked} parts of the result stay at the node: counts too small"
            )
        return released

    async def _execute(self, order: Order) -> StoredResult | VantageError:
        lease, policy = order.assign.lease, self._config.policy
        tools = self._tools

        def tell(fraction: float, text: str) -> None:
            if policy.allow_progress:
                self._reporter.news.progress(lease, fraction, text)

        # Before the slot: a long pull keeps nobody else from running.
        await tools.source.fetch(order.trusted, tell)
        async with (
            self._slots,
            tools.tunnels.run(lease, order.context) as peers,
            tools.services.run(lease, order.context, peers) as outside,
        ):
            door = RunDoor(
                lease,
                order.context,
                partial(self._make_directory, lease),
                policy,
                self._reporter,
                tools.subtasks,
                tools.serve,
                outside,
            )
            seconds, whose = self._time_limit(order)
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    await tools.services.provide(lease, order.context, lambda: door.scratch)
                    ended = await tools.executor.run(order.job, door)
            except TimeoutError:
                if not limit.expired():
                    raise
                return error(Reason.TASK_EXPIRED, f"the algorithm ran longer than the {whose} allows ({seconds:g} s)")
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

    async def _deliver(self, lease: pb.Lease, result: StoredResult, *, sealed: bool) -> types_pb2.Payload:
        if result.size > self._settings.max_inline_bytes:
            # An answer inline is sent when the journal has it. This one leaves earlier: nothing may leave twice.
            await self._tools.gate.settle()
            return await self._tools.payloads.upload(result, lease.lease_id, sealed=sealed)
        content = result.content
        if isinstance(content, Path):
            content = await asyncio.to_thread(content.read_bytes)
        return payload_of(result, sealed=sealed, content=content)

    def _directory(self, lease: pb.Lease) -> Path:
        # Not the id itself: it is the server's text, and the path of a socket may have 107 characters only.
        return self._tools.scratch / hashlib.sha256(lease.lease_id.encode()).hexdigest()[:16]

    def _make_directory(self, lease: pb.Lease) -> Path:
        directory = self._directory(lease)
        if directory in self._directories:
            return directory
        self._directories.add(directory)
        try:
            directory.mkdir(mode=0o700, parents=True)
        except OSError as problem:
            raise error(
                Reason.SCRATCH_UNAVAILABLE,
                f"the node cannot make room for the run: {problem.strerror}: ask its admin to look at the disk",
            ) from problem
        return directory

    async def _clear(self, lease: pb.Lease) -> None:
        directory = self._directory(lease)
        if directory in self._directories:
            self._directories.discard(directory)
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _empty(directory: Path) -> None:
    if directory.is_dir():
        for each in directory.iterdir():
            if each.is_dir():
                shutil.rmtree(each, ignore_errors=True)
