"""Who is behind a token: looked up once, remembered until somebody changes who may do what."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from vantage.common.errors import Reason, error
from vantage.server.domain.membership import Standing
from vantage.server.domain.permissions import rights_of
from vantage.server.domain.principals import NodePrincipal, Principal, UserPrincipal
from vantage.server.domain.tokens import AccessTokens, Claims
from vantage.server.storage import certificate_store, organization_store, role_store, user_store
from vantage.server.storage.database import Connection, Database

_REMEMBERED = 20_000
_NODES_AT_ONCE = 2
"""Nodes that are looked up at the same time."""


class Directory:
    """Turns access tokens into principals."""

    def __init__(self, database: Database, tokens: AccessTokens) -> None:
        self._database = database
        self._tokens = tokens
        self._known: dict[tuple[str, str | None, str], Principal] = {}
        self._version = 0
        # When all nodes come back at once, whoever else asks does not wait behind them for a thread.
        self._nodes = asyncio.Semaphore(_NODES_AT_ONCE)

    @property
    def version(self) -> int:
        """Grows with each ``forget``."""
        return self._version

    def forget(self) -> None:
        """Look everybody up again: call after a commit that changes users, log-ins, nodes, memberships or trust."""
        self._version += 1
        self._known.clear()

    async def authenticate(self, token: str) -> Principal:
        """The principal of an access token.

        Raises:
            UnauthenticatedError: TOKEN_INVALID or TOKEN_EXPIRED; also when the log-in has ended.
            PermissionDeniedError: CERTIFICATE_REVOKED or CERTIFICATE_UNTRUSTED: the certificate no longer counts.
        """
        return await self._find(self._tokens.verify(token))

    async def reaffirm(self, principal: Principal) -> Principal:
        """A principal as it is now: what was admitted a moment ago may have been revoked since.

        Raises:
            VantageError: it is no longer admitted.
        """
        forever = datetime.max.replace(tzinfo=UTC)
        if isinstance(principal, NodePrincipal):
            return await self._find(Claims(principal.name, None, forever, principal.certificate))
        return await self._find(Claims(principal.name, principal.session_id, forever))

    async def _find(self, claims: Claims) -> Principal:
        key = (claims.subject, claims.session_id, claims.certificate)
        known = self._known.get(key)
        if known is not None:
            return known
        if claims.session_id is None:
            async with self._nodes:
                return await self._look_up(key, claims)
        return await self._look_up(key, claims)

    async def _look_up(self, key: tuple[str, str | None, str], claims: Claims) -> Principal:
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
        if (problem := certificate_store.standing(connection, node.name, claims.certificate)) is not None:
            raise problem
        # A suspended member takes no part: its nodes get nothing new.
        joined = frozenset(organization_store.standings(connection, node.organization, {Standing.ACTIVE}))
        return NodePrincipal(node.name, node.organization, joined.intersection(node.collaborations), claims.certificate)
    session = user_store.get_session(connection, claims.session_id)
    user = user_store.get(connection, claims.subject)
    if session is None or user is None or session.user != user.name:
        raise error(Reason.TOKEN_INVALID, "the session of this access token has ended: log in again")
    if session.certificate:
        holder = f"{user.organization}/{user.name}"
        if (problem := certificate_store.standing(connection, holder, session.certificate)) is not None:
            raise problem
    joined = frozenset(organization_store.memberships(connection, user.organization) if user.organization else ())
    roles = role_store.get_many(connection, user.roles).values()
    rights = rights_of(each for role in roles if role.assignable for each in role.permissions)
    return UserPrincipal(user.name, user.organization, frozenset(user.roles), session.id, joined, rights)
