"""Who may see, read and cancel a task: the rule of the resource, over the permissions of the caller."""

from __future__ import annotations

from dataclasses import replace

from vantage.server.domain.permissions import Operation, Owner, Reach, Resource, reach
from vantage.server.domain.principals import NodePrincipal, Principal, UserPrincipal
from vantage.server.domain.tasks import Task
from vantage.server.storage.creation import Asker


def asker_of(principal: Principal) -> Asker:
    """The caller as creator of tasks."""
    if isinstance(principal, NodePrincipal):
        return Asker(principal.name, principal.organization, None)
    return Asker(principal.name, principal.organization or "", reach(principal, Resource.TASK, Operation.CREATE))


def may_view(principal: Principal, task: Task) -> bool:
    """Whether the caller may know that the task exists.

    Users: by their permission to view tasks; a subtask belongs to the user at the root, so whoever may view the root
    may view it. An organization's scope covers what it asks and what it is asked. Nodes: what they created.
    """
    if isinstance(principal, NodePrincipal):
        return task.creator == principal.name
    reached = reach(principal, Resource.TASK, Operation.VIEW)
    return _covers(reached, task) or (
        reached.organization is not None and any(run.organization == reached.organization for run in task.runs)
    )


def may_read_results(principal: Principal, task: Task) -> bool:
    """Whether the caller gets the results too: the owner, the node that created it, or by permission to view runs."""
    if isinstance(principal, NodePrincipal):
        return task.creator == principal.name
    return task.owner == principal.name or _covers(reach(principal, Resource.RUN, Operation.VIEW), task)


def may_cancel(principal: Principal, task: Task) -> bool:
    """Whether the caller may end the task early."""
    if isinstance(principal, NodePrincipal):
        return task.creator == principal.name
    return _covers(reach(principal, Resource.TASK, Operation.CANCEL), task)


def view_reach(principal: UserPrincipal) -> Reach:
    """Which tasks a list shows."""
    return reach(principal, Resource.TASK, Operation.VIEW)


def without_results(task: Task) -> Task:
    """The task for a caller that may not read the results."""
    return replace(task, runs=tuple(replace(run, result=None) for run in task.runs))


def _covers(reached: Reach, task: Task) -> bool:
    owner = Owner(task.owner_organization or None, frozenset({task.spec.collaboration}), task.owner)
    return reached.covers(owner)
