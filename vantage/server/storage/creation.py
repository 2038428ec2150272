"""Unit of work: create tasks, many at once, each with its own outcome."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from hashlib import sha256

from sqlalchemy import Connection

from vantage.common import names
from vantage.common.errors import PermissionDeniedError, Reason, VantageError, error
from vantage.server.domain.audit import MAX_DETAILS, Call, Entry, Verdict
from vantage.server.domain.contents import Payload
from vantage.server.domain.membership import Standing
from vantage.server.domain.permissions import Owner, Reach
from vantage.server.domain.runs import LEASED, Run
from vantage.server.domain.tasks import (
    MAX_DEPTH,
    MAX_SUBTASKS,
    Target,
    Task,
    TaskSpec,
    TaskState,
    check_members,
    check_study,
    deadline_of,
)
from vantage.server.storage import audit_store, key_store, payload_store, run_store, study_store, task_store
from vantage.server.storage.lifecycle import Changes
from vantage.server.storage.task_schema import ARGUMENTS

_FEW = 8 * 72
"""Characters of the digests of a few payloads."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who creates tasks, and where they may.

    Attributes:
        reach: for a user, the collaborations and so on in which tasks may be created; None for a node.
    """

    name: str
    organization: str
    reach: Reach | None


@dataclass(frozen=True, slots=True)
class Request:
    """A task to create; ``name`` is the one that it gets, ``call`` the one that the audit speaks of."""

    asker: Asker
    request_id: str
    content_hash: bytes
    spec: TaskSpec
    name: str
    call: Call | None = None


@dataclass(frozen=True, slots=True)
class Existing:
    """The request made this task before."""

    task: str


Outcome = Task | Existing | VantageError


@dataclass(slots=True)
class _Parent:
    run: Run
    task: Task
    room: int


def create_tasks(connection: Connection, changes: Changes, requests: Sequence[Request], now: datetime) -> list[Outcome]:
    """Create what may be created and say of each request what became of it; no request spoils another."""
    known = task_store.find_requests(connection, {(each.asker.name, each.request_id) for each in requests})
    members: dict[str, dict[str, Standing]] = {}
    parents: dict[str, _Parent | VantageError] = {}
    outcomes: list[Outcome] = []
    made: list[tuple[Task, str, bytes]] = []
    entries: list[Entry] = []
    for request in requests:
        key = (request.asker.name, request.request_id)
        if (earlier := known.get(key)) is not None:
            outcomes.append(_repeat(earlier, request))
            continue
        try:
            task = _build(connection, request, now, members, parents)
        except VantageError as problem:
            outcomes.append(problem)
            if request.call is not None:
                entries.append(_refusal(request, request.call, problem))
            continue
        if request.call is not None:
            entries.append(_entry(request, request.call, task))
        known[key] = (task.name, request.content_hash)
        made.append((task, *_identity(request)))
        outcomes.append(task)
    if made:
        _insert(connection, changes, made)
    audit_store.append(connection, entries)
    return outcomes


def _entry(request: Request, call: Call, task: Task) -> Entry:
    """What the audit says of a new task: what runs, where, on which arguments by digest; never content."""
    payloads = [target.arguments for target in task.spec.targets if target.arguments is not None]
    digests = " ".join(each.digest for each in payloads)
    details = {
        "collaboration": task.spec.collaboration,
        "study": task.spec.study,
        "image": task.spec.image,
        "function": task.spec.function,
        "organizations": " ".join(target.organization for target in task.spec.targets)[:MAX_DETAILS],
        "parent_run": task.spec.parent_run,
        "arguments_bytes": str(sum(each.size for each in payloads)),
        # Of many, one digest over all: an entry has a limit, and whoever has the task can compute it again.
        "arguments_digest": digests if len(digests) <= _FEW else f"sha256:{sha256(digests.encode()).hexdigest()}",
    }
    return replace(call.entry(), target=task.name, details={key: value for key, value in details.items() if value})


def _refusal(request: Request, call: Call, problem: VantageError) -> Entry:
    verdict = Verdict.DENIED if isinstance(problem, PermissionDeniedError) else Verdict.FAILED
    details = {"collaboration": request.spec.collaboration, "image": request.spec.image}
    entry = call.entry(verdict, f"{problem.reason.name}: {problem.message[:300]}")
    return replace(entry, target="", details={key: value for key, value in details.items() if value})


def _identity(request: Request) -> tuple[str, bytes]:
    return request.request_id, request.content_hash


def _repeat(earlier: tuple[str, bytes], request: Request) -> Outcome:
    name, content_hash = earlier
    if content_hash == request.content_hash:
        return Existing(name)
    return error(
        Reason.REQUEST_ID_REUSED,
        "this request_id created another task: use a new UUID for each question",
        request_id=request.request_id,
        task=name,
    )


def _build(
    connection: Connection,
    request: Request,
    now: datetime,
    members: dict[str, dict[str, Standing]],
    parents: dict[str, _Parent | VantageError],
) -> Task:
    asker, spec = request.asker, request.spec
    parent = None
    if spec.parent_run:
        parent = _find_parent(connection, asker, spec.parent_run, parents)
        spec = _inherit(spec, parent)
    elif asker.reach is None:
        raise error(
            Reason.PARENT_NOT_HELD,
            "a node creates tasks only for a run that it holds: set parent_run",
            field="parent_run",
        )
    if spec.collaboration not in members:
        members[spec.collaboration] = task_store.members(connection, spec.collaboration)
    organizations = members[spec.collaboration]
    if asker.reach is not None:
        # Permission is decided before existence is revealed.
        owner = Owner(None, frozenset({spec.collaboration}), None)
        if not asker.reach.covers(owner):
            raise error(
                Reason.PERMISSION_DENIED,
                f"you may not create tasks in {spec.collaboration}: it needs a role with that permission and an "
                "organization that is a member",
                collaboration=spec.collaboration,
            )
        if not organizations:
            raise error(Reason.NOT_FOUND, f"there is no {spec.collaboration}", name=spec.collaboration)
    check_members(organizations, spec, asker.organization or None)
    if spec.study:
        check_study(study_store.organizations(connection, spec.study), spec, asker.organization or None)
    key_store.check_versions(connection, [version for target in spec.targets for version in target.key_versions])
    spec = replace(spec, targets=_resolve(connection, asker, spec.targets))
    root = asker.name if parent is None else parent.task.owner
    runs = tuple(
        Run(
            f"{request.name}/runs/{names.new_id()}",
            request.name,
            position,
            target.organization,
            target.node,
            datasets=target.datasets,
            max_attempts=spec.max_attempts,
            collaboration=spec.collaboration,
            owner=root,
        )
        for position, target in enumerate(spec.targets)
    )
    if parent is not None:
        parent.room -= 1
    return Task(
        name=request.name,
        spec=spec,
        state=TaskState.ACTIVE,
        creator=asker.name,
        creator_organization=asker.organization,
        owner=root,
        owner_organization=asker.organization if parent is None else parent.task.owner_organization,
        depth=0 if parent is None else parent.task.depth + 1,
        created=now,
        deadline=deadline_of(spec, now, None if parent is None else parent.task.deadline),
        finished=None,
        last_sequence=1,
        runs=runs,
    )


def _find_parent(
    connection: Connection, asker: Asker, name: str, parents: dict[str, _Parent | VantageError]
) -> _Parent:
    if name not in parents:
        run = run_store.get_runs(connection, [name]).get(name)
        # The same answer for a run that does not exist and for one of another node.
        if run is None or asker.reach is not None or run.node != asker.name or run.state not in LEASED:
            parents[name] = error(
                Reason.PARENT_NOT_HELD, "only the node that holds the parent run may create its subtasks", run=name
            )
        else:
            row = task_store.get_task(connection, run.task)
            assert row is not None  # noqa: S101  # the foreign key holds
            parents[name] = _Parent(run, task_store.build_task(row, ()), MAX_SUBTASKS - run.subtasks)
    parent = parents[name]
    if isinstance(parent, VantageError):
        raise error(parent.reason, parent.message, **parent.metadata)
    if parent.task.depth + 1 > MAX_DEPTH:
        raise error(Reason.TOO_MANY_SUBTASKS, f"subtasks may be nested {MAX_DEPTH} deep", limit=str(MAX_DEPTH))
    if parent.room < 1:
        raise error(
            Reason.TOO_MANY_SUBTASKS,
            f"a run may create {MAX_SUBTASKS} subtasks: ask several organizations in one",
            limit=str(MAX_SUBTASKS),
        )
    return parent


def _inherit(spec: TaskSpec, parent: _Parent) -> TaskSpec:
    """A subtask is asked where its parent was asked, of the image that the parent's asker chose."""
    if spec.collaboration not in ("", parent.task.spec.collaboration):
        raise error(
            Reason.PERMISSION_DENIED,
            f"a subtask stays in the collaboration of its parent, {parent.task.spec.collaboration}",
            field="spec.collaboration",
        )
    if spec.image != parent.task.spec.image:
        raise error(Reason.PERMISSION_DENIED, "a subtask runs the image of its parent", field="spec.image")
    if spec.study not in ("", parent.task.spec.study):
        raise error(
            Reason.PERMISSION_DENIED,
            f"a subtask stays in the study of its parent: {parent.task.spec.study or 'none'}",
            field="spec.study",
        )
    # The orders above are the server's to add: it has them, and the nodes check them.
    above = (*parent.task.spec.parent_orders, parent.task.spec.order) if spec.order else ()
    limits = [each.max_runtime for each in (spec, parent.task.spec) if each.max_runtime]
    return replace(
        spec,
        collaboration=parent.task.spec.collaboration,
        study=parent.task.spec.study,
        parent_orders=above,
        max_runtime=min(limits, default=spec.max_runtime),
        max_attempts=min(spec.max_attempts, parent.task.spec.max_attempts),
    )


def _resolve(connection: Connection, asker: Asker, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Fill size and digest of uploaded arguments in; only one's own uploads may be referred to."""
    wanted = {
        each.arguments.reference
        for each in targets
        if each.arguments is not None and each.arguments.reference is not None
    }
    if not wanted:
        return targets
    stored = payload_store.complete_of(connection, asker.name, wanted)
    return tuple(
        each
        if each.arguments is None
        else replace(each, arguments=fill_in(each.arguments, stored, "spec.targets.arguments"))
        for each in targets
    )


def fill_in(payload: Payload, stored: dict[str, tuple[int, str]], where: str) -> Payload:
    """Size and digest of the stored payload that is referred to; inline payloads have them already.

    Raises:
        NotFoundError: there is no such upload of the caller, or it is not complete.
    """
    if payload.reference is None:
        return payload
    if payload.reference not in stored:
        raise error(
            Reason.NOT_FOUND,
            f"{where}: there is no complete upload of yours named {payload.reference}",
            name=payload.reference,
        )
    size, digest = stored[payload.reference]
    return replace(payload, size=size, digest=digest)


def _insert(connection: Connection, changes: Changes, made: Sequence[tuple[Task, str, bytes]]) -> None:
    tasks = [task for task, _request_id, _content_hash in made]
    task_store.insert_tasks(connection, made)
    run_store.insert_runs(connection, [run for task in tasks for run in task.runs])
    run_store.insert_contents(connection, list(_arguments(tasks)))
    more: dict[str, int] = {}
    for task in tasks:
        changes.created.append((task.name, task.deadline))
        if task.spec.parent_run:
            more[task.spec.parent_run] = more.get(task.spec.parent_run, 0) + 1
    if more:
        run_store.count_subtasks(connection, more)


def _arguments(tasks: Iterable[Task]) -> Iterable[tuple[str, int, Payload]]:
    for task in tasks:
        for run, target in zip(task.runs, task.spec.targets, strict=True):
            if target.arguments is not None:
                yield run.name, ARGUMENTS, target.arguments
