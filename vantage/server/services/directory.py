"""Who is behind a token: looked up once, remembered until somebody changes who may do what."""

from __future__ import annotations

from vantage.common.errors import Reason, error
from vantage.server.domain.membership import Standing
from vantage.server.domain.permissions import rights_of
from vantage.server.domain.principals import NodePrincipal, Principal, UserPrincipal
from vantage.server.domain.tokens import AccessTokens, Claims
from vantage.server.storage import organization_store, role_store, user_store
from vantage.server.storage.database import Connection, Database

_REMEMBERED = 20_000


class Directory:
    """Turns access tokens into principals."""

    def __init__(self, database: Database, tokens: AccessTokens) -> None:
        self._database = database
        self._tokens = tokens
        self._known: dict[tuple[str, str | None], Principal] = {}
        self._version = 0

    def forget(self) -> None:
        """Look everybody up again: call after a commit that changes users, log-ins, nodes or memberships."""
        self._version += 1
        self._known.clear()

    async def authenticate(self, token: str) -> Principal:
        """The principal of an access token.

        Raises:
            UnauthenticatedError: TOKEN_INVALID or TOKEN_EXPIRED; also when the log-in has ended.
        """
        claims = self._tokens.verify(token)
        key = (claims.subject, claims.session_id)
        known = self._known.get(key)
        if known is not None:
            return known
        version = self._version
        principal = await self._database.read(lambda connection: _load(connection, claims))
        # What was read before a change must not be remembered after it.
        if version == self._version:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            self._known[key] = principal
        return principal


def _load(connection: Connection, claims: Claims) -> Principal:
    if claims.session_id is None:
        node = organization_store.get_node(connection, claims.subject)
        if node is None:
            raise error(
                Reason.TOKEN_INVALID, "the node of this access token was deleted: ask your organization's admin"
            )
        # A suspended member takes no part: its nodes get nothing new.
        joined = frozenset(organization_store.standings(connection, node.organization, {Standing.ACTIVE}))
        return NodePrincipal(node.name, node.organization, joined.intersection(node.collaborations))
    session = user_store.get_session(connection, claims.session_id)
    user = user_store.get(connection, claims.subject)
    if session is None or user is None or session.user != user.name:
        raise error(Reason.TOKEN_INVALID, "the session of this access token has ended: log in again")
    joined = frozenset(organization_store.memberships(connection, user.organization) if user.organization else ())
    roles = role_store.get_many(connection, user.roles).values()
    rights = rights_of(each for role in roles if role.assignable for each in role.permissions)
    return UserPrincipal(user.name, user.organization, frozenset(user.roles), session.id, joined, rights)
