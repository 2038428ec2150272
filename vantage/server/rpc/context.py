"""What the interceptors know about the call that is being served."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote

from vantage.common.errors import Reason, error
from vantage.server.domain.principals import NodePrincipal, Principal, UserPrincipal

_principal: ContextVar[Principal | None] = ContextVar("principal", default=None)
_request_id: ContextVar[str] = ContextVar("request_id", default="-")


def current_principal() -> Principal:
    """The authenticated caller.

    Raises:
        UnauthenticatedError: nobody is: the RPC admits callers without credentials.
    """
    principal = _principal.get()
    if principal is None:
        raise error(Reason.UNAUTHENTICATED, "log in first")
    return principal


def known_principal() -> Principal | None:
    """The authenticated caller, or None."""
    return _principal.get()


def current_user() -> UserPrincipal:
    """The calling user, where the access option admits users only."""
    principal = current_principal()
    if not isinstance(principal, UserPrincipal):
        raise error(Reason.PERMISSION_DENIED, "only users may do this")
    return principal


def current_node() -> NodePrincipal:
    """The calling node, where the access option admits nodes only."""
    principal = current_principal()
    if not isinstance(principal, NodePrincipal):
        raise error(Reason.PERMISSION_DENIED, "only nodes may do this")
    return principal


def peer_address(context: Any) -> str:
    """Address that a call came from, without port and percent-encoding; "unix" for a socket file."""
    kind, _, rest = unquote(str(context.peer())).partition(":")
    return rest.rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else kind


def request_id() -> str:
    """Id of the call, for logs and for the answer to unknown errors."""
    return _request_id.get()


def set_principal(principal: Principal | None) -> None:
    """For the authentication interceptor."""
    _principal.set(principal)


def set_request_id(value: str) -> None:
    """For the context interceptor."""
    _request_id.set(value)
