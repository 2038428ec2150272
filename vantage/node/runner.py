"""Runs: one asyncio task each. A run never harms the node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine

from vantage.api.node.v1 import node_session_service_pb2 as pb
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.node.active import Active
from vantage.node.attempts import Attempts, Tools
from vantage.node.capacity import places_of
from vantage.node.config import NodeConfig
from vantage.node.executor.base import Found
from vantage.node.journal import Entry, Journal
from vantage.node.release.approvals import attempt_of
from vantage.node.reporting import Reporter
from vantage.node.session import Settings
from vantage.node.status import Document, runs_of

log = logging.getLogger(__name__)

MAX_UNTOLD = 256
"""Ends of runs that the server has not acknowledged, beyond which the node takes on no more: each is kept in memory and
on the disk, with a result of up to ``session.MAX_INLINE`` bytes."""

_Step = Callable[[pb.Assign, Active], Coroutine[None, None, None]]


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
        self._attempts = Attempts(config, journal, reporter, tools, clock)
        self._active: dict[str, Active] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._draining = False
        self._places = places_of(config)
        tools.consent.waits = self._waits

    # Work

    def welcomed(self, settings: Settings) -> None:
        """See ``Work``."""
        self._attempts.welcomed(settings)

    def assigned(self, assign: pb.Assign) -> None:
        """See ``Work``."""
        lease_id = assign.lease.lease_id
        if lease_id in self._active or self._journal.entry(lease_id) is not None:
            return  # sent again: the answer is under way, or is repeated by the journal
        if self._draining and not assign.spec.parent_run:
            # The server has not heard of it yet. Not refused: the lease ends, and another node or the next process gets
            # the run. For a subtask what runs here may be waiting.
            log.info("assignment left alone while stopping", extra={"run": assign.lease.run})
            return
        if sum(not each.stopping for each in self._active.values()) >= 2 * self._places:
            # More than any misunderstanding makes of what was offered. Each may bring gigabytes that are fetched before
            # its order is found to have been taken: how many are at it is not for the server to say.
            log.warning("assignment beyond all that was offered left alone", extra={"run": assign.lease.run})
            return
        if self._journal.untold >= max(MAX_UNTOLD, 2 * self._places):
            # A server that listens acknowledges within moments.
            log.warning("assignment left alone: ends of runs are not acknowledged", extra={"run": assign.lease.run})
            return
        self._begin(assign, self._attempts.take_on)

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

    def stopping(self) -> bool:
        """See ``Work``."""
        return self._draining

    def free_slots(self) -> int:
        """See ``Work``."""
        return 0 if self._draining else max(0, self._config.slots - len(self._active))

    # For the agent.

    async def recover(self) -> None:
        """Deal with what a former process left: go on with containers, begin what never ran, end what is lost."""
        left = self._journal.unfinished()
        boxes = [(each.assign.lease, box) for each in left if (box := self._tools.boxes.get(each.lease_id)) is not None]
        found = await self._tools.executor.clean_up([box.existing(lease) for lease, box in boxes])
        steps = {each.lease_id: self._next_step(each, found) for each in left}
        await self._attempts.execution.keep_only(
            [(lease, box) for lease, box in boxes if steps[lease.lease_id] == self._attempts.adopt]
        )
        for entry in left:
            if (step := steps[entry.lease_id]) is not None:
                self._begin(entry.assign, step)
            else:
                await self._attempts.lost(entry.assign)
        if found.removed or left:
            counts = {
                name: sum(each == step for each in steps.values())
                for name, step in (("adopted", self._attempts.adopt), ("begun", self._attempts.begin), ("lost", None))
            }
            log.warning("recovered from a restart", extra={"removed": found.removed, **counts})

    def _next_step(self, entry: Entry, found: Found) -> _Step | None:
        """What is to be done with an attempt that a former process left; None when nobody can know how it ended."""
        box = self._tools.boxes.get(entry.lease_id)
        if box is None:
            return None if entry.started else self._attempts.begin
        if box.ended is not None or entry.lease_id in found.running | found.ended:
            return self._attempts.adopt
        if entry.lease_id in found.unstarted:
            self._tools.boxes.forget(entry.lease_id)
            return self._attempts.begin
        return None

    def status(self) -> Document:
        """See ``runs_of``."""
        return runs_of(self._active.values(), self._attempts.execution.capacity)

    def drain(self) -> int:
        """Take nothing more but subtasks; what runs goes on. What has not begun, or waits for a person, is left to the
        next process; returns how many those are."""
        self._draining = True
        left = [
            each
            for each in self._active.values()
            if not each.stopping and (each.waiting or not (each.begun or each.subtask))
        ]
        for active in left:
            self._leave(active)
        return len(left)

    def cancel_all(self, reason: Reason) -> None:
        """Stop everything and report it as stopped by the node."""
        for active in list(self._active.values()):
            self._stop(active, reason.name)

    async def idle(self) -> None:
        """Wait until nothing runs."""
        await self._idle.wait()

    async def leave(self) -> None:
        """Let go of everything without a word, because the process ends: the next one goes on with what can go on."""
        self._tools.executor.leave()
        tasks = [active.task for active in self._active.values() if active.task is not None]
        for active in list(self._active.values()):
            self._leave(active)
        if tasks:
            await asyncio.wait(tasks)

    # One run.

    def _waits(self, attempt: str, now: bool) -> None:
        """Whether an attempt waits for a person, and nothing of it runs meanwhile."""
        for active in self._active.values():
            if attempt_of(active.lease.run, active.lease.attempt) == attempt:
                active.waiting = now
                active.enter("waiting for its admin" if now else "going on")
                if now and self._draining:
                    self._leave(active)

    def _leave(self, active: Active) -> None:
        active.left = True
        self._stop(active, None)

    def _begin(self, assign: pb.Assign, work: _Step) -> None:
        active = self._active[assign.lease.lease_id] = Active(
            assign.lease,
            requester=assign.creator,
            subtask=bool(assign.spec.parent_run),
            begun=work == self._attempts.adopt,  # its container runs, or has run
        )
        self._idle.clear()
        active.task = asyncio.create_task(self._guard(assign, active, work), name=assign.lease.run)

    def _stop(self, active: Active, reason: str | None) -> None:
        if active.stopping:
            return
        active.stopping, active.stop = True, reason
        active.enter("stopped")
        if active.task is not None:
            # Not at once: assignment and cancel may come in one answer. Cancelled before its first step, a task does
            # nothing at all: the run would be held for ever, and the server told nothing.
            asyncio.get_running_loop().call_soon(active.task.cancel)

    async def _guard(self, assign: pb.Assign, active: Active, work: _Step) -> None:
        lease = assign.lease
        try:
            await work(assign, active)
        except asyncio.CancelledError:
            if active.stop is not None:
                await self._attempts.stopped(assign, active.stop)
            elif not active.left:
                self._journal.drop(lease.lease_id)  # revoked: perhaps before it was written down
            if not active.stopping:
                raise
        except Exception:
            # Whatever fault this is, it is one run's: the node lives on and the researcher is told.
            log.exception("fault while running", extra={"run": lease.run})
            problem = error(Reason.INTERNAL, f"a fault of {self._config.identity.name}: its admin finds it in the log")
            await self._attempts.failed(assign, active, problem)
        finally:
            if not active.left:
                await self._attempts.execution.tidy(lease)
            self._active.pop(lease.lease_id, None)
            self._reporter.news.forget(lease.lease_id)
            if not self._active:
                self._idle.set()
