"""Consent: an organization is invited to a collaboration and answers for itself. A table, and who may answer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, IntEnum, auto

from vantage.server.domain.permissions import Decision, Operation, Owner, Resource, reach
from vantage.server.domain.principals import UserPrincipal


class Standing(IntEnum):
    """Where an organization stands in a collaboration; the numbers are those of the contract."""

    INVITED = 1
    ACTIVE = 2
    SUSPENDED = 3


class Answer(Enum):
    """What an organization says of its own standing."""

    ACCEPT = auto()
    DECLINE = auto()
    SUSPEND = auto()
    RESUME = auto()
    LEAVE = auto()


MEMBERS = frozenset({Standing.ACTIVE, Standing.SUSPENDED})
"""Standings that see the collaboration and are seen as its members."""

ANSWERS: dict[tuple[Standing, Answer], Standing | None] = {
    (Standing.INVITED, Answer.ACCEPT): Standing.ACTIVE,
    (Standing.INVITED, Answer.DECLINE): None,
    (Standing.ACTIVE, Answer.ACCEPT): Standing.ACTIVE,
    (Standing.ACTIVE, Answer.SUSPEND): Standing.SUSPENDED,
    (Standing.ACTIVE, Answer.RESUME): Standing.ACTIVE,
    (Standing.ACTIVE, Answer.LEAVE): None,
    (Standing.SUSPENDED, Answer.SUSPEND): Standing.SUSPENDED,
    (Standing.SUSPENDED, Answer.RESUME): Standing.ACTIVE,
    (Standing.SUSPENDED, Answer.LEAVE): None,
}
"""(standing, answer) -> standing; None ends it. What is not in the table contradicts the standing."""


@dataclass(frozen=True)
class Member:
    """An organization in a collaboration."""

    organization: str
    standing: Standing
    invited_by: str
    since: datetime


def may_answer(user: UserPrincipal, organization: str, *, trial: bool) -> Decision:
    """Whether a user may speak for an organization.

    Only its own users can, with the permission to edit it. A global permission is not enough: who runs the server does
    not agree on behalf of those who own the data. On a trial server, where one person plays everybody, it is.
    """
    reached = reach(user, Resource.ORGANIZATION, Operation.EDIT)
    if user.organization == organization and reached.covers(Owner(organization=organization)):
        return Decision(True, f"an admin of {organization} speaks for it")
    if trial and reached.everything:
        return Decision(True, "on a trial server whoever may edit all organizations speaks for them")
    return Decision(False, f"only users of {organization} that may edit it speak for it: ask its admin")
