"""Who is calling. Only authentication builds these."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UserPrincipal:
    """A person or a service account.

    Attributes:
        name: ``users/{user}``.
        organization: ``organizations/{organization}``, or None for a user of the server itself.
        roles: ``roles/{role}``.
        session_id: the log-in that the token belongs to.
        collaborations: collaborations that the organization is a member of.
    """

    name: str
    organization: str | None
    roles: frozenset[str]
    session_id: str
    collaborations: frozenset[str]


@dataclass(frozen=True)
class NodePrincipal:
    """A node.

    Attributes:
        name: ``organizations/{organization}/nodes/{node}``.
        organization: ``organizations/{organization}``.
        collaborations: collaborations that the node serves and its organization is a member of.
    """

    name: str
    organization: str
    collaborations: frozenset[str]


Principal = UserPrincipal | NodePrincipal
