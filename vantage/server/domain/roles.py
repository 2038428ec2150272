"""The roles that come with every server, as data: the rules decide by it and the documentation is made from it.

Custom roles have the same form and live in the database. ``roles/node`` and ``roles/algorithm`` say what these
principals may do; nobody can be given them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from vantage.server.domain.permissions import Operation, Owner, Permission, Resource, Rights, Scope, rights_of


@dataclass(frozen=True)
class Role:
    """A named set of permissions.

    Attributes:
        organization: whose role it is: only its users may hold it; None for a role of the server.
        creator: who made it; None for the roles that come with the server.
        assignable: whether users can have it.
    """

    name: str
    description: str
    permissions: frozenset[Permission]
    organization: str | None = None
    creator: str | None = None
    created: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    assignable: bool = True

    @property
    def builtin(self) -> bool:
        """Whether it comes with the server and cannot be changed."""
        return self.creator is None

    @property
    def owner(self) -> Owner:
        """To whom it belongs."""
        return Owner(organization=self.organization, creator=self.creator)


def _grants(resource: Resource, scope: Scope, *operations: Operation) -> set[Permission]:
    return {Permission(resource, operation, scope) for operation in operations}


_R, _O, _S = Resource, Operation, Scope
_MEMBER = (
    _grants(_R.ORGANIZATION, _S.COLLABORATION, _O.VIEW)
    | _grants(_R.COLLABORATION, _S.COLLABORATION, _O.VIEW)
    | _grants(_R.STUDY, _S.COLLABORATION, _O.VIEW)
    | _grants(_R.NODE, _S.COLLABORATION, _O.VIEW)
    | _grants(_R.ROLE, _S.ORGANIZATION, _O.VIEW)
    | _grants(_R.USER, _S.OWN, _O.VIEW)
)
_ASKS = (
    _grants(_R.TASK, _S.COLLABORATION, _O.CREATE)
    | _grants(_R.TASK, _S.OWN, _O.CANCEL)
    | _grants(_R.RUN, _S.OWN, _O.VIEW)
    | _grants(_R.PAYLOAD, _S.OWN, _O.VIEW, _O.CREATE)
)

ROLES: Mapping[str, Role] = {
    role.name: role
    for role in (
        Role(
            "roles/root",
            "Everything on this server, except to agree to anything on behalf of an organization.",
            frozenset(Permission(r, o, _S.GLOBAL) for r in Resource for o in Operation),
        ),
        Role(
            "roles/server-operator",
            "Keeps the server going: sees what is there and the audit, manages organizations, removes nodes, cancels "
            "tasks; asks nothing and reads no answers.",
            frozenset(
                {
                    Permission(resource, _O.VIEW, _S.GLOBAL)
                    for resource in (
                        _R.USER,
                        _R.ORGANIZATION,
                        _R.COLLABORATION,
                        _R.STUDY,
                        _R.NODE,
                        _R.ROLE,
                        _R.TASK,
                        _R.AUDIT,
                    )
                }
                | _grants(_R.ORGANIZATION, _S.GLOBAL, _O.CREATE, _O.EDIT, _O.DELETE)
                | _grants(_R.NODE, _S.GLOBAL, _O.DELETE)
                | _grants(_R.TASK, _S.GLOBAL, _O.CANCEL)
            ),
        ),
        Role(
            "roles/collaboration-admin",
            "Makes collaborations, invites organizations, manages studies; sees and cancels the tasks of these "
            "collaborations, not the answers.",
            frozenset(
                _MEMBER
                | _grants(_R.ORGANIZATION, _S.GLOBAL, _O.VIEW)
                | _grants(_R.COLLABORATION, _S.OWN, _O.CREATE, _O.DELETE)
                | _grants(_R.COLLABORATION, _S.COLLABORATION, _O.EDIT)
                | _grants(_R.STUDY, _S.COLLABORATION, _O.CREATE, _O.EDIT, _O.DELETE)
                | _grants(_R.TASK, _S.COLLABORATION, _O.VIEW, _O.CANCEL)
            ),
        ),
        Role(
            "roles/organization-admin",
            "Manages users, roles, nodes, certificates and memberships of one organization; sees and cancels its tasks "
            "and sees its part of the audit.",
            frozenset(
                _MEMBER
                | _ASKS
                | _grants(_R.USER, _S.ORGANIZATION, _O.VIEW, _O.CREATE, _O.EDIT, _O.DELETE)
                | _grants(_R.ROLE, _S.ORGANIZATION, _O.CREATE, _O.EDIT, _O.DELETE)
                | _grants(_R.ORGANIZATION, _S.ORGANIZATION, _O.EDIT)
                | _grants(_R.NODE, _S.ORGANIZATION, _O.CREATE, _O.EDIT, _O.DELETE)
                | _grants(_R.TASK, _S.ORGANIZATION, _O.VIEW, _O.CANCEL)
                | _grants(_R.RUN, _S.ORGANIZATION, _O.VIEW)
                | _grants(_R.AUDIT, _S.ORGANIZATION, _O.VIEW)
            ),
        ),
        Role(
            "roles/researcher",
            "Asks questions in the collaborations of their organization and reads the answers; cancels their own.",
            frozenset(_MEMBER | _ASKS | _grants(_R.TASK, _S.ORGANIZATION, _O.VIEW)),
        ),
        Role(
            "roles/viewer",
            "Sees what their organization takes part in and asks, not the answers.",
            frozenset(_MEMBER | _grants(_R.TASK, _S.ORGANIZATION, _O.VIEW)),
        ),
    )
}
"""Roles that users can have, on every server."""

_HELD = (
    _grants(_R.TASK, _S.OWN, _O.VIEW, _O.CREATE, _O.CANCEL)
    | _grants(_R.RUN, _S.OWN, _O.VIEW)
    | _grants(_R.PAYLOAD, _S.OWN, _O.VIEW, _O.CREATE)
)
NODE = Role(
    "roles/node",
    "A node: sees its collaborations, takes their runs, and asks subtasks for runs that it holds. Own is what it made.",
    frozenset(
        _HELD
        | _grants(_R.ORGANIZATION, _S.COLLABORATION, _O.VIEW)
        | _grants(_R.COLLABORATION, _S.COLLABORATION, _O.VIEW)
        | _grants(_R.STUDY, _S.COLLABORATION, _O.VIEW)
        | _grants(_R.NODE, _S.COLLABORATION, _O.VIEW)
    ),
    assignable=False,
)
ALGORITHM = Role(
    "roles/algorithm",
    "A running algorithm, at its node only, as long as its run lasts. Own is what its own run asked.",
    frozenset(_HELD),
    assignable=False,
)

BUILTIN: Mapping[str, Role] = {**ROLES, NODE.name: NODE, ALGORITHM.name: ALGORITHM}
"""All roles that come with the server."""

NODE_RIGHTS: Rights = rights_of(NODE.permissions)
