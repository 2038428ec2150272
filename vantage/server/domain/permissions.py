"""Who may do what: permission = resource x operation x scope. Pure rules, one place.

A permission in a scope covers what the narrower scopes cover as well. *Collaboration scope means that collaboration*:
an object is covered when one of its own collaborations is one that the caller's organization is a member of; sharing
some other collaboration with the object's owner means nothing. Which role has which permissions stands in ``roles``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vantage.server.domain.principals import Principal, UserPrincipal


class Resource(Enum):
    """What a permission is about; the values are those of the proto enum."""

    USER = 1
    ORGANIZATION = 2
    COLLABORATION = 3
    STUDY = 4
    NODE = 5
    ROLE = 6
    TASK = 7
    RUN = 8
    PAYLOAD = 9
    SESSION = 10
    AUDIT = 11


class Operation(Enum):
    """What is done to it; the values are those of the proto enum."""

    VIEW = 1
    CREATE = 2
    EDIT = 3
    DELETE = 4
    CANCEL = 5
    SHARE = 6


class Scope(IntEnum):
    """How far a permission reaches, narrow to wide; the values are those of the proto enum."""

    OWN = 1
    ORGANIZATION = 2
    COLLABORATION = 3
    GLOBAL = 4


@dataclass(frozen=True)
class Permission:
    """One right."""

    resource: Resource
    operation: Operation
    scope: Scope

    def __str__(self) -> str:
        return f"{self.operation.name.lower()} {self.resource.name.lower()} ({self.scope.name.lower()})"


Rights = Mapping[tuple[Resource, Operation], Scope]
"""The widest scope of each right that is held: all that a decision needs, one look-up."""


@dataclass(frozen=True)
class Owner:
    """To whom an object belongs.

    Attributes:
        organization: the organization that owns it, or None.
        collaborations: the collaborations that it is part of.
        creator: who made it, or None.
    """

    organization: str | None = None
    collaborations: frozenset[str] = frozenset()
    creator: str | None = None


@dataclass(frozen=True)
class Decision:
    """Outcome of a rule, with the reason for the log."""

    allowed: bool
    reason: str


@dataclass(frozen=True)
class Reach:
    """Which objects a principal reaches with one operation on one resource.

    Single reads ask ``covers``; lists turn the same four fields into a filter. An empty reach covers nothing.
    """

    everything: bool = False
    collaborations: frozenset[str] = frozenset()
    organization: str | None = None
    creator: str | None = None

    @property
    def empty(self) -> bool:
        """Whether the principal lacks the permission in every scope."""
        return not self.everything and self.creator is None

    def covers(self, owner: Owner) -> bool:
        """Whether an object with this owner is reached."""
        return (
            self.everything
            or not self.collaborations.isdisjoint(owner.collaborations)
            or (self.organization is not None and self.organization == owner.organization)
            or (self.creator is not None and self.creator == owner.creator)
        )


def rights_of(permissions: Iterable[Permission]) -> Rights:
    """The widest scope per resource and operation."""
    rights: dict[tuple[Resource, Operation], Scope] = {}
    for each in permissions:
        key = (each.resource, each.operation)
        rights[key] = max(each.scope, rights.get(key, each.scope))
    return rights


def reach(principal: Principal, resource: Resource, operation: Operation) -> Reach:
    """Which objects a caller reaches with an operation on a resource."""
    widest = principal.rights.get((resource, operation))
    if widest is None:
        return Reach()
    if widest is Scope.GLOBAL:
        return Reach(everything=True)
    return Reach(
        collaborations=principal.collaborations if widest >= Scope.COLLABORATION else frozenset(),
        organization=principal.organization if widest >= Scope.ORGANIZATION else None,
        creator=principal.name,
    )


def decide(principal: Principal, resource: Resource, operation: Operation, owner: Owner) -> Decision:
    """Whether a caller may do something to an object."""
    reached = reach(principal, resource, operation)
    what = f"{operation.name.lower()} {resource.name.lower()}"
    if reached.empty:
        return Decision(False, f"no role permits to {what}")
    if not reached.covers(owner):
        return Decision(False, f"no role permits to {what} here")
    return Decision(True, f"a role permits to {what}")


def may_grant(
    principal: UserPrincipal, permissions: Iterable[Permission], organization: str | None, *, anywhere: bool = False
) -> Decision:
    """Whether a user may give these permissions to somebody of an organization: nobody grants what they lack.

    Scopes are relative to whoever holds them. So what is given to somebody of *another* organization must be held
    globally: "view tasks of the organization" would reach the tasks of that one, which the giver does not reach. Only
    scope own means the same to everybody: what they make themselves.

    Args:
        principal: who gives.
        permissions: what.
        organization: whose user gets it; None for a user of the server itself.
        anywhere: whether users of any organization may get it.
    """
    foreign = anywhere or organization != principal.organization
    for wanted in permissions:
        held = principal.rights.get((wanted.resource, wanted.operation))
        needed = Scope.GLOBAL if foreign and wanted.scope > Scope.OWN else wanted.scope
        if held is None or held < needed:
            whom = "all organizations" if anywhere else organization or "the server itself"
            where = f" for users of {whom}" if held is not None and foreign else ""
            return Decision(False, f"they contain a permission that you lack{where}: {wanted}")
    return Decision(True, "all permissions are held")
