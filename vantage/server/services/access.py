"""The one rule of single reads and changes: permission is decided before existence is revealed."""

from __future__ import annotations

from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.permissions import Operation, Owner, Resource, decide, reach
from vantage.server.domain.principals import Principal, UserPrincipal


def require(principal: Principal, resource: Resource, operation: Operation, name: str, owner: Owner | None) -> None:
    """Let a principal do something to an object, or not.

    Args:
        owner: to whom the object belongs; None when it does not exist.

    Raises:
        NotFoundError: it does not exist, or the principal may not see it.
        PermissionDeniedError: the principal sees it and may not do this.
    """
    if owner is None:
        raise missing(name)
    if decide(principal, resource, operation, owner).allowed:
        return
    if operation is not Operation.VIEW and reach(principal, resource, Operation.VIEW).covers(owner):
        raise error(
            Reason.PERMISSION_DENIED, f"you see {name} but none of your roles permits to {operation.name.lower()} it"
        )
    raise missing(name)


def require_new(user: UserPrincipal, resource: Resource, owner: Owner) -> None:
    """Let a user create an object that will belong to ``owner``.

    Raises:
        PermissionDeniedError: when no role permits it.
    """
    decision = decide(user, resource, Operation.CREATE, owner)
    if not decision.allowed:
        raise error(Reason.PERMISSION_DENIED, f"{decision.reason}: ask an admin")


def missing(name: str) -> VantageError:
    """What is said of an object that is not there, or not for the caller."""
    return error(Reason.NOT_FOUND, f"{name} does not exist, or you may not see it")
