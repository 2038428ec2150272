"""Who is calling. Only authentication builds these."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from vantage.server.domain.permissions import Rights
from vantage.server.domain.roles import NODE_RIGHTS


class UserKind(Enum):
    """What kind of user; the values are those of the proto enum."""

    PERSON = 1
    SERVICE_ACCOUNT = 2


class LoginMethod(Enum):
    """How a session began; the values are those of the proto enum."""

    PASSWORD = 1
    IDENTITY = 2
    KEY = 3
    BOOTSTRAP = 4


@dataclass(frozen=True)
class UserPrincipal:
    """A person or a service account.

    Attributes:
        name: ``users/{user}``.
        organization: ``organizations/{organization}``, or None for a user of the server itself.
        roles: ``roles/{role}``.
        session_id: the log-in that the token belongs to.
        collaborations: collaborations that the organization is a member of.
        rights: what the roles permit; nothing unless said.
    """

    name: str
    organization: str | None
    roles: frozenset[str]
    session_id: str
    collaborations: frozenset[str]
    rights: Rights = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class NodePrincipal:
    """A node.

    Attributes:
        name: ``organizations/{organization}/nodes/{node}``.
        organization: ``organizations/{organization}``.
        collaborations: collaborations that the node serves and its organization is an active member of.
        certificate: serial number of the certificate that it authenticated with.
    """

    name: str
    organization: str
    collaborations: frozenset[str]
    certificate: str = ""

    @property
    def rights(self) -> Rights:
        """What every node may do."""
        return NODE_RIGHTS


Principal = UserPrincipal | NodePrincipal
