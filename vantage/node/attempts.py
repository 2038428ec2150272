"""One attempt of a run: from its assignment, or from where a former process left it, to the journalled outcome."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.api.types.v1 import types_pb2
from vantage.common.clock import Clock
from vantage.common.errors import Reason, RefusedError, VantageError, error
from vantage.common.retries import MENDABLE
from vantage.node.active import Active
from vantage.node.audit import NodeAudit
from vantage.node.boxes import Box, Boxes, StoredFile
from vantage.node.config import NodeConfig
from vantage.node.door import StoredResult
from vantage.node.execution import Execution
from vantage.node.executor.base import Executor
from vantage.node.intake import Intake, Order, deadline_of
from vantage.node.journal import Journal
from vantage.node.orders import OrderGate
from vantage.node.payloads import Payloads
from vantage.node.release.consent import Consent
from vantage.node.release.examiner import Examiner
from vantage.node.reporting import Reporter
from vantage.node.run_door import Serve
from vantage.node.sealed import Sealer, payload_of
from vantage.node.services import Services
from vantage.node.session import Settings
from vantage.node.sources import CodeSource
from vantage.node.subtasks import Subtasks
from vantage.node.tunnels.tunnels import Tunnels

log = logging.getLogger(__name__)

_Outcome = types_pb2.Payload | VantageError | None
"""A result, why there is none, or None when that was said already."""


@dataclass(frozen=True)
class Tools:
    """What every run needs.

    Attributes:
        source: where code comes from.
        boxes: containers, for the process after this one.
        executor: what runs it.
        payloads: large arguments and results.
        subtasks: questions of central functions.
        serve: the local API.
        tunnels: streams to peers.
        services: streams to datasets and hosts, and what runs are given of datasets.
        audit: what happened, for the node's admin.
        gate: decides about signed orders.
        sealer: opens arguments and seals results.
        examiner: looks into results before they leave.
        consent: asks people before runs start and results leave.
    """

    source: CodeSource
    boxes: Boxes
    executor: Executor
    payloads: Payloads
    subtasks: Subtasks
    serve: Serve
    tunnels: Tunnels
    services: Services
    audit: NodeAudit
    gate: OrderGate
    sealer: Sealer
    examiner: Examiner
    consent: Consent


class Attempts:
    """Carries attempts out, each in a task of its own that ``Runner`` holds.

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
        self.execution = Execution(
            config,
            tools.source,
            tools.executor,
            tools.boxes,
            tools.subtasks,
            tools.tunnels,
            tools.services,
            tools.serve,
            reporter,
            tools.consent,
        )
        self._intake = Intake(
            config,
            tools.source,
            tools.payloads,
            tools.gate,
            tools.sealer,
            lambda: self._settings.collaborations,
            self.execution.directory,
        )

    def welcomed(self, settings: Settings) -> None:
        """The server has told its settings."""
        self._settings = settings
        self._welcomed.set()

    async def take_on(self, assign: pb.Assign, active: Active) -> None:
        """Write a new assignment down, then carry it out."""
        try:
            await self._journal.accept(assign)
        except VantageError as problem:
            await self._reporter.refused(assign.lease, problem, retryable=problem.reason in MENDABLE)
            return
        await self.begin(assign, active)

    async def begin(self, assign: pb.Assign, active: Active) -> None:
        """Carry out what was written down and never ran."""
        # After a restart the collaborations are not known before the server's welcome.
        await self._welcomed.wait()

        async def work() -> _Outcome:
            try:
                startable = await self._intake.prepare(assign, self._make_room(assign))
            except VantageError as problem:
                log.info("run refused", extra={"run": assign.lease.run, "reason": problem.reason.name})
                self._tools.audit.decided(assign, problem)
                await self.execution.tidy(assign.lease)  # files may have come with the arguments
                await self._reporter.refused(assign.lease, problem, retryable=problem.reason in MENDABLE)
                return None
            self._given(active, startable.order)
            self._tools.audit.decided(assign, None, startable.trusted.signers)
            self._reporter.accepted(assign.lease)
            try:
                await self._tools.consent.to_start(startable.order, self._tell(assign.lease))
            except RefusedError as problem:
                await self._denied(assign, active, problem)
                return None
            return await self._hand_over(startable.order, active, await self.execution.begin(startable, active))

        await self._conduct(assign, active, work)

    async def adopt(self, assign: pb.Assign, active: Active) -> None:
        """Go on with a run whose container a former process has started."""
        lease = assign.lease
        box = self._tools.boxes.get(lease.lease_id)
        if box is None:
            raise LookupError("only what has a box is adopted")

        async def work() -> _Outcome:
            log.info("going on with a run", extra={"run": lease.run, "container": box.container})
            self._tools.audit.adopted(lease, box.container)
            self._reporter.accepted(lease)
            async with self._removed_at_the_end(box, active):
                order = await self._intake.resume(assign, self._make_room(assign), box)
                self._given(active, order)
                outcome = await self._while_allowed(order, self.execution.go_on(order, box, active))
            return await self._hand_over(order, active, outcome)

        await self._conduct(assign, active, work)

    async def lost(self, assign: pb.Assign) -> None:
        """Say of a run that a former process began that nobody knows how it ended."""
        self._tools.audit.ended(assign.lease, Reason.NODE_LOST.name)
        problem = error(
            Reason.NODE_LOST, f"{self._config.identity.name} was restarted while the algorithm ran: ask again"
        )
        answered = self._tools.gate.is_answered(assign)
        await self._reporter.failed(assign.lease, problem, self._tidy(assign), retryable=not answered)

    async def stopped(self, assign: pb.Assign, reason: str) -> None:
        """Say that a run was stopped."""
        log.info("run stopped", extra={"run": assign.lease.run, "reason": reason})
        self._tools.audit.ended(assign.lease, reason)
        await self._reporter.cancelled(assign.lease, reason, self._tidy(assign))

    async def failed(
        self, assign: pb.Assign, active: Active, problem: VantageError, *, retryable: bool = False
    ) -> None:
        """Say that a run has no result, and why.

        Args:
            retryable: whether there is no answer either, so that the node would run it once more.
        """
        log.info("run failed", extra={"run": assign.lease.run, "reason": problem.reason.name})
        # Else that there is none is an answer, too: the server cannot have the order run again for a better one.
        if active.given is not None and not retryable:
            self._tools.gate.answered(active.given, assign.lease.lease_id)
        self._tools.audit.ended(assign.lease, problem.reason.name)
        await self._reporter.failed(assign.lease, problem, self._tidy(assign), retryable=retryable)

    async def _denied(self, assign: pb.Assign, active: Active, problem: VantageError) -> None:
        """Say that a person does not let a run start."""
        log.info("run denied", extra={"run": assign.lease.run})
        # An answer, too: the server cannot have the order run again.
        if active.given is not None:
            self._tools.gate.answered(active.given, assign.lease.lease_id)
        self._tools.audit.ended(assign.lease, problem.reason.name)
        await self.execution.tidy(assign.lease)
        await self._reporter.refused(assign.lease, problem)

    def _tell(self, lease: pb.Lease) -> Callable[[str], None]:
        """Tells the researcher what a run waits for."""

        def tell(text: str) -> None:
            if self._config.policy.allow_progress:
                self._reporter.news.progress(lease, 0.0, text)

        return tell

    async def _conduct(
        self, assign: pb.Assign, active: Active, work: Callable[[], Coroutine[None, None, _Outcome]]
    ) -> None:
        """Do the work until the deadline and say how it ended."""
        deadline = asyncio.timeout(max((deadline_of(assign) - self._clock.now()).total_seconds(), 0))
        retryable = False
        try:
            async with deadline:
                outcome = await work()
        except VantageError as problem:
            # What is raised lies around the algorithm; what it is the reason of is returned.
            answered = active.answered or self._tools.gate.is_answered(assign)
            outcome, retryable = problem, problem.reason in MENDABLE and not answered
        except TimeoutError:
            if not deadline.expired():
                raise
            outcome = error(Reason.TASK_EXPIRED, "the task's time ended before the algorithm had answered")
        if isinstance(outcome, VantageError):
            await self.failed(assign, active, outcome, retryable=retryable)
        elif outcome is not None:
            await self._reporter.succeeded(assign.lease, outcome, self._tidy(assign))

    def _given(self, active: Active, order: Order) -> None:
        active.given = order.context.order
        if active.given is not None:
            active.requester = active.given.verified.root_requester

    def _tidy(self, assign: pb.Assign) -> Callable[[], Coroutine[None, None, None]]:
        return partial(self.execution.tidy, assign.lease)

    def _make_room(self, assign: pb.Assign) -> Callable[[], Path]:
        return partial(self.execution.make_directory, assign.lease)

    # What only an adopted run needs.

    @asynccontextmanager
    async def _removed_at_the_end(self, box: Box, active: Active) -> AsyncGenerator[None, None]:
        """However this is left, the container is removed, unless the next process is to go on with it."""
        try:
            yield
        finally:
            if not active.left:
                removal = asyncio.ensure_future(self._tools.executor.remove(box.existing(active.lease)))
                try:
                    await asyncio.shield(removal)
                except asyncio.CancelledError:
                    await removal
                    raise

    async def _while_allowed(
        self, order: Order, execution: Coroutine[None, None, StoredResult | VantageError]
    ) -> StoredResult | VantageError:
        """Go on, and check against the present configuration beside it: the server may be away for long.

        Raises:
            VantageError: it is not allowed any more, or ``execution`` raised it.
        """

        async def check() -> None:
            await self._welcomed.wait()
            await self._intake.allow_again(order)

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(check(), name="allow again")
                running = group.create_task(execution, name="adopted run")
        except* VantageError as problems:
            raise next(each for each in problems.exceptions if isinstance(each, VantageError)) from None
        return running.result()

    # From the algorithm's answer to the node's.

    async def _hand_over(
        self, order: Order, active: Active, outcome: StoredResult | VantageError
    ) -> types_pb2.Payload | VantageError:
        active.answered = True
        active.enter("handed over")
        if isinstance(outcome, VantageError):
            return outcome
        lease = order.assign.lease
        outcome = await self._look_into(order, outcome)
        box = self._tools.boxes.get(lease.lease_id)
        if box is None or box.sealed is None:  # else it was on its way already
            await self._tools.consent.to_leave(order, outcome, self._make_room(order.assign), self._tell(lease))
        if order.recipients:
            outcome = await self._seal(order, outcome)
        given = order.context.order
        if given is not None and not self._tools.gate.answered(given, lease.lease_id):
            return error(Reason.ORDER_REPLAYED, "another attempt of this run has answered: an order is answered once")
        # Before the first byte leaves, also of an upload.
        self._tools.audit.leaves(lease, outcome)
        await self._tools.audit.settle()
        return await self._deliver(lease, outcome, sealed=bool(order.recipients))

    async def _look_into(self, order: Order, result: StoredResult) -> StoredResult:
        """What may leave of a result."""
        lease, terms = order.assign.lease, order.context.terms
        box = self._tools.boxes.get(lease.lease_id)
        if box is not None and box.released is not None:
            return box.released.result(self.execution.directory(lease))
        if box is not None and box.sealed is not None:
            return result  # looked into before it was sealed, and on its way
        released, blanked = await self._tools.examiner.examine(terms, result, self._make_room(order.assign))
        if blanked:
            self._tools.audit.blanked(lease, blanked)
            self._reporter.news.progress(
                lease, 1.0, f"{blanked} parts of the result stay at the node: counts too small"
            )
        if released is not result:
            await self._replaced(lease, result, released=StoredFile.of(released))
        return released

    async def _replaced(self, lease: pb.Lease, result: StoredResult, **by: StoredFile | None) -> None:
        """From now on another file is the result: the one before is removed once that is known for good."""
        await self._tools.boxes.change(lease.lease_id, **by)
        if isinstance(result.content, Path):
            await asyncio.to_thread(result.content.unlink, missing_ok=True)

    async def _seal(self, order: Order, result: StoredResult) -> StoredResult:
        """A result as it leaves. Sealing is random: what may leave in parts is sealed once, whatever happens."""
        lease = order.assign.lease
        box = self._tools.boxes.get(lease.lease_id)
        if box is not None and box.sealed is not None:
            return box.sealed.result(self.execution.directory(lease))
        sealed = await self._tools.sealer.seal_result(result, order.recipients)
        if sealed.size > self._settings.max_inline_bytes:
            await self._replaced(lease, result, sealed=StoredFile.of(sealed))
        return sealed

    async def _deliver(self, lease: pb.Lease, result: StoredResult, *, sealed: bool) -> types_pb2.Payload:
        if result.size > self._settings.max_inline_bytes:
            # An answer inline is sent when the journal has it. This one leaves earlier: nothing may leave twice.
            await self._tools.gate.settle()
            return await self._tools.payloads.upload(result, lease.lease_id, sealed=sealed)
        content = result.content
        if isinstance(content, Path):
            content = await asyncio.to_thread(content.read_bytes)
        return payload_of(result, sealed=sealed, content=content)
