"""Use cases of tasks: create, get, list, watch, cancel, expire."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.audit import current_call
from vantage.server.domain.principals import Principal, UserPrincipal
from vantage.server.domain.task_events import Event, RunMoved, folded
from vantage.server.domain.tasks import Task, TaskSpec, TaskState, validate_spec
from vantage.server.domain.waits import never_met
from vantage.server.events.bus import Bus
from vantage.server.events.follower import Follower
from vantage.server.events.timers import Timers
from vantage.server.services import task_access
from vantage.server.services.commits import Commits
from vantage.server.services.gathering import Gathering
from vantage.server.services.waits import Waits
from vantage.server.storage import creation, event_store, pages, task_queries, task_store
from vantage.server.storage.lifecycle import Changes, Vacancy
from vantage.server.storage.pages import Page
from vantage.server.storage.task_store import Listing


@dataclass(frozen=True, slots=True)
class Question:
    """A task to create. The hash is over all that was asked, so that a repetition can be told from a mistake."""

    request_id: str
    content_hash: bytes
    spec: TaskSpec


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The task as it is; first item of every stream."""

    task: Task
    time: datetime


Item = Snapshot | Event


class Tasks:
    """The server's tasks.

    Args:
        commits: where units of work are committed.
        clock: the time.
        bus: live events.
        waits: what runs wait for.
    """

    def __init__(self, commits: Commits, clock: Clock, bus: Bus, waits: Waits) -> None:
        self._commits = commits
        self._database = commits.database
        self._clock = clock
        self._bus = bus
        self._waits = waits
        self.deadlines = Timers(clock, self._expire)
        self._watch_clock: asyncio.Task[None] | None = None
        self._creations: Gathering[creation.Request, creation.Outcome] = Gathering(self._create)
        commits.listen(self._on_changes)

    async def start(self) -> None:
        """Take up the deadlines of the tasks that a former process left, and keep them from now on."""
        now = self._clock.now()
        for name, deadline in await self._database.read(task_store.active_tasks):
            self.deadlines.set(name, deadline - now)
        self._watch_clock = asyncio.create_task(self.deadlines.run(), name="task deadlines")

    async def stop(self) -> None:
        """Keep no deadlines any more, and send those away who follow tasks: nothing happens until they come back."""
        self._bus.close()
        if self._watch_clock is not None:
            self._watch_clock.cancel()
            await asyncio.gather(self._watch_clock, return_exceptions=True)

    async def create_many(self, principal: Principal, requests: Sequence[creation.Request]) -> list[creation.Outcome]:
        """Create prepared tasks in one unit, perhaps with those of other callers; each has its own outcome."""
        outcomes = await self._creations.ask(requests)
        for request in requests:
            if request.call is not None:
                request.call.written = True  # each task has its own entry, written with it
        return list(outcomes)

    async def _create(self, requests: Sequence[creation.Request]) -> Sequence[creation.Outcome]:
        created = self._commits.submit(creation.create_tasks, requests, self._clock.now())
        self._commits.announce(
            {Vacancy(target.organization, target.node) for each in requests for target in each.spec.targets}
        )
        return await created

    def prepare(self, principal: Principal, question: Question) -> creation.Request:
        """Check a question and give its task a name.

        Raises:
            InvalidArgumentError: see ``validate_spec``; the request id is no UUID.
        """
        request_id = names.parse_request_id(question.request_id)
        validate_spec(question.spec)
        asker = task_access.asker_of(principal)
        return creation.Request(
            asker, request_id, question.content_hash, question.spec, f"tasks/{names.new_id()}", current_call()
        )

    async def create(self, principal: Principal, question: Question) -> Task:
        """Create a task, or return the one that the same request made before.

        Raises:
            VantageError: see CreateTask in the contract.
        """
        match (await self.create_many(principal, [self.prepare(principal, question)]))[0]:
            case Task() as task:
                return task
            case creation.Existing(name):
                return await self.get(principal, name)
            case problem:
                raise problem

    async def run(self, principal: Principal, question: Question) -> AsyncGenerator[Item, None]:
        """Create a task like ``create``, then watch it."""
        request = self.prepare(principal, question)
        follower = self.follower()
        try:
            # Before the commit: the first events may come as soon as it is done.
            follower.expect(request.name)
            outcome = (await self.create_many(principal, [request]))[0]
            if isinstance(outcome, VantageError):
                raise outcome
            if isinstance(outcome, Task):
                # A node that was free has it already: the snapshot says so.
                task = folded(outcome, follower.early(outcome.name, outcome.last_sequence))
                yield Snapshot(task, task.created)
                follower.start(task.name, task.last_sequence)
                stream = _follow(follower, results=True)
            else:
                follower.forget(request.name)
                stream = self._attach(principal, follower, outcome.task, 0)
            async for item in stream:
                yield item
        finally:
            follower.close()

    async def watch(self, principal: Principal, name: str, after_sequence: int) -> AsyncGenerator[Item, None]:
        """The task as it is, then its events after a sequence (0: after the snapshot), until it has ended.

        Raises:
            NotFoundError: there is none, or the caller may not see it.
            InvalidArgumentError: the sequence is negative.
        """
        if after_sequence < 0:
            raise error(Reason.INVALID_ARGUMENT, "after_sequence must not be negative", field="after_sequence")
        follower = self.follower()
        try:
            async for item in self._attach(principal, follower, name, after_sequence):
                yield item
        finally:
            follower.close()

    async def _attach(
        self, principal: Principal, follower: Follower, name: str, after_sequence: int
    ) -> AsyncGenerator[Item, None]:
        follower.expect(str(names.parse(name, "tasks")))
        task = await self.get(principal, name)
        yield Snapshot(task, self._clock.now())
        if task.state is not TaskState.ACTIVE and not after_sequence:
            return
        sequence = min(after_sequence or task.last_sequence, task.last_sequence)
        if task.state is not TaskState.ACTIVE and sequence == task.last_sequence:
            return
        follower.start(name, sequence, behind=sequence < task.last_sequence)
        async for item in _follow(follower, results=task_access.may_read_results(principal, task)):
            yield item

    def follower(self) -> Follower:
        """A new follower of live and kept events."""
        return Follower(self._bus, self._read_after)

    async def get(self, principal: Principal, name: str) -> Task:
        """A task, with results if the caller may read them.

        Raises:
            NotFoundError: there is none, or the caller may not see it.
        """
        names.parse(name, "tasks")
        task = await self._database.read(partial(task_queries.read_task, name=name))
        if task is None or not task_access.may_view(principal, task):
            raise _unknown(name)
        return task if task_access.may_read_results(principal, task) else task_access.without_results(task)

    async def list(self, principal: UserPrincipal, listing: Listing, page_size: int, page_token: str) -> Page[Task]:
        """One page of tasks that the caller may see, newest first, without results; fewer than asked if they are large.

        Raises:
            InvalidArgumentError: PAGE_TOKEN_INVALID, or the size is negative.
        """
        size, query = pages.page_size(page_size), repr(listing)
        before = pages.decode(page_token, query)
        reached = task_access.view_reach(principal)
        found, more = await self._database.read(
            partial(task_queries.read_list, reach=reached, listing=listing, before=before, limit=size)
        )
        return Page(found, more, query, lambda task: task.name)

    async def cancel(self, principal: Principal, name: str) -> Task:
        """Cancel a task and its descendants; harmless when it has ended.

        Raises:
            NotFoundError: there is none, or the caller may not see it.
            PermissionDeniedError: the caller sees it and may not cancel it.
        """
        task = await self.get(principal, name)
        if not task_access.may_cancel(principal, task):
            raise error(Reason.PERMISSION_DENIED, "you may not cancel this task: ask the one who created it", name=name)
        after = await self._commits.commit(task_queries.cancel_task, name, self._clock.now())
        if after is None:
            raise _unknown(name)
        return after if task_access.may_read_results(principal, after) else task_access.without_results(after)

    async def _read_after(self, task: str, sequence: int) -> Sequence[Event]:
        return await self._database.read(partial(event_store.after, task=task, sequence=sequence))

    async def _expire(self, due: Sequence[str]) -> None:
        runs = await self._database.read(partial(task_queries.read_runs, names=due))
        fresh = {run.name: run for run in runs if not run.attempt}
        waits = await self._waits.of(fresh.values())
        untouched = {name: never_met(fresh[name], wait) for name, wait in waits.items()}
        await self._commits.commit(task_queries.expire_tasks, due, self._clock.now(), untouched)

    def _on_changes(self, changes: Changes) -> None:
        now = self._clock.now()
        for name, deadline in changes.created:
            self.deadlines.set(name, deadline - now)
        for event in changes.events:
            if not isinstance(event.body, RunMoved):
                self.deadlines.cancel(event.task)
        self._bus.publish(changes.events)


async def _follow(follower: Follower, *, results: bool) -> AsyncGenerator[Item, None]:
    while follower.open:
        for event in await follower.next():
            yield event if results else without_result(event)


def without_result(event: Event) -> Event:
    """The event for a caller that may not read results."""
    if isinstance(event.body, RunMoved) and event.body.run.result is not None:
        return replace(event, body=RunMoved(replace(event.body.run, result=None)))
    return event


def _unknown(name: str) -> VantageError:
    return error(Reason.NOT_FOUND, f"there is no {name} that you may see", name=name)
