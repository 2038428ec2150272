"""Who may do what: permission = resource x operation x scope. Pure rules, one place.

A permission in a scope covers what the narrower scopes cover as well. *Collaboration scope means that collaboration*:
an object is covered when one of its own collaborations is one that the caller's organization is a member of; sharing
some other collaboration with the object's owner means nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum

from vantage.server.domain.principals import UserPrincipal


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


@dataclass(frozen=True)
class Role:
    """A named set of permissions."""

    name: str
    description: str
    permissions: frozenset[Permission]


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


def _grants(resource: Resource, scope: Scope, *operations: Operation) -> set[Permission]:
    return {Permission(resource, operation, scope) for operation in operations}


_R, _O, _S = Resource, Operation, Scope
_MEMBER = (
    _grants(_R.ORGANIZATION, _S.COLLABORATION, _O.VIEW)
    | _grants(_R.COLLABORATION, _S.COLLABORATION, _O.VIEW)
    | _grants(_R.NODE, _S.COLLABORATION, _O.VIEW)
    | _grants(_R.ROLE, _S.GLOBAL, _O.VIEW)
    | _grants(_R.USER, _S.OWN, _O.VIEW)
)

ROLES: Mapping[str, Role] = {
    role.name: role
    for role in (
        Role(
            "roles/root",
            "Everything on this server.",
            frozenset(Permission(r, o, _S.GLOBAL) for r in Resource for o in Operation),
        ),
        Role(
            "roles/organization-admin",
            "Manages users, nodes and certificates of one organization; sees and cancels its tasks.",
            frozenset(
                _MEMBER
                | _grants(_R.USER, _S.ORGANIZATION, _O.VIEW, _O.CREATE, _O.EDIT, _O.DELETE)
                | _grants(_R.ORGANIZATION, _S.ORGANIZATION, _O.EDIT)
                | _grants(_R.NODE, _S.ORGANIZATION, _O.CREATE, _O.EDIT, _O.DELETE)
                | _grants(_R.TASK, _S.ORGANIZATION, _O.VIEW, _O.CANCEL)
                | _grants(_R.TASK, _S.COLLABORATION, _O.CREATE)
                | _grants(_R.RUN, _S.ORGANIZATION, _O.VIEW)
                | _grants(_R.PAYLOAD, _S.OWN, _O.VIEW, _O.CREATE)
            ),
        ),
        Role(
            "roles/researcher",
            "Asks questions in the collaborations of their organization and reads the answers.",
            frozenset(
                _MEMBER
                | _grants(_R.TASK, _S.COLLABORATION, _O.CREATE)
                | _grants(_R.TASK, _S.ORGANIZATION, _O.VIEW)
                | _grants(_R.TASK, _S.OWN, _O.CANCEL)
                | _grants(_R.RUN, _S.OWN, _O.VIEW)
                | _grants(_R.PAYLOAD, _S.OWN, _O.VIEW, _O.CREATE)
            ),
        ),
        Role(
            "roles/viewer",
            "Sees what their organization takes part in and asks, not the answers.",
            frozenset(_MEMBER | _grants(_R.TASK, _S.ORGANIZATION, _O.VIEW)),
        ),
    )
}


def permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    """All permissions of some roles; unknown roles give none."""
    return frozenset().union(*(ROLES[name].permissions for name in roles if name in ROLES))


def reach(principal: UserPrincipal, resource: Resource, operation: Operation) -> Reach:
    """Which objects a user reaches with an operation on a resource."""
    scopes = [
        each.scope
        for each in permissions_of(principal.roles)
        if each.resource is resource and each.operation is operation
    ]
    if not scopes:
        return Reach()
    widest = max(scopes)
    if widest is Scope.GLOBAL:
        return Reach(everything=True)
    return Reach(
        collaborations=principal.collaborations if widest >= Scope.COLLABORATION else frozenset(),
        organization=principal.organization if widest >= Scope.ORGANIZATION else None,
        creator=principal.name,
    )


def decide(principal: UserPrincipal, resource: Resource, operation: Operation, owner: Owner) -> Decision:
    """Whether a user may do something to an object."""
    reached = reach(principal, resource, operation)
    what = f"{operation.name.lower()} {resource.name.lower()}"
    if reached.empty:
        return Decision(False, f"no role permits to {what}")
    if not reached.covers(owner):
        return Decision(False, f"no role permits to {what} here")
    return Decision(True, f"a role permits to {what}")


def may_grant(principal: UserPrincipal, roles: Iterable[str]) -> Decision:
    """Whether a user may give these roles: nobody grants what they lack."""
    own = permissions_of(principal.roles)
    for wanted in permissions_of(roles):
        if not any(
            each.resource is wanted.resource and each.operation is wanted.operation and each.scope >= wanted.scope
            for each in own
        ):
            text = f"{wanted.operation.name.lower()} {wanted.resource.name.lower()} ({wanted.scope.name.lower()})"
            return Decision(False, f"the roles contain a permission that you lack: {text}")
    return Decision(True, "all permissions of the roles are held")
