"""What every way to log in has in common: sessions and their tokens."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.principals import LoginMethod, UserPrincipal
from vantage.server.domain.secrets import Secrets
from vantage.server.domain.tokens import ACCESS_LIFETIME, REFRESH_LIFETIME, AccessTokens, new_secret, secret_hash
from vantage.server.services.access import missing
from vantage.server.services.directory import Directory
from vantage.server.storage import pages, user_store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.pages import Page
from vantage.server.storage.user_store import LoginSession

REPEAT_WITHIN = timedelta(minutes=2)
"""How long a refresh whose answer was lost can be repeated with the same request id."""


@dataclass(frozen=True)
class Tokens:
    """What a log-in gets; who signs assertions gets no refresh token."""

    principal: str
    access: str
    refresh: str = ""
    access_lifetime: timedelta = ACCESS_LIFETIME
    refresh_lifetime: timedelta = timedelta(0)


class Logins:
    """Opens, renews and ends sessions. A session's row is what makes its tokens work."""

    def __init__(
        self, database: Database, directory: Directory, tokens: AccessTokens, secrets: Secrets, clock: Clock
    ) -> None:
        self._database = database
        self._directory = directory
        self._tokens = tokens
        self._secrets = secrets
        self._clock = clock

    def open(self, connection: Connection, user: str, method: LoginMethod, peer: str) -> Tokens:
        """Within a unit: begin a session that a refresh token keeps alive."""
        now = self._clock.now()
        session_id = names.new_id()
        refresh = f"{session_id}.{new_secret()}"
        session = LoginSession(session_id, user, secret_hash(refresh), 0, now, now + REFRESH_LIFETIME, method, peer)
        user_store.open_session(connection, session)
        return self._pair(session, refresh)

    def open_for_key(self, connection: Connection, user: str, certificate: str, peer: str) -> Tokens:
        """Within a unit: begin a session that lasts as long as one access token: who holds a key signs anew."""
        now = self._clock.now()
        session = LoginSession(
            names.new_id(),
            user,
            secret_hash(new_secret()),  # of a token that nobody has
            0,
            now,
            now + ACCESS_LIFETIME,
            LoginMethod.KEY,
            peer,
            certificate=certificate,
        )
        user_store.open_session(connection, session)
        return Tokens(user, self._tokens.issue(user, session.id))

    async def refresh(self, token: str, request_id: str) -> Tokens:
        """Exchange a refresh token, once, or again for the same request when its answer was lost.

        The new token is derived from the old one and the request id, so that a repeated call gets the same token and
        there is never more than one that works. Who stole the old token lacks the request id; once the new token has
        been used, the old one is reused whatever the request id says.

        Raises:
            UnauthenticatedError: TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REUSED.
            InvalidArgumentError: request_id is no UUID.
        """
        rotation = names.parse_request_id(request_id) if request_id else None
        session_id, _, _secret = token.partition(".")
        digest = secret_hash(token)
        now = self._clock.now()
        secret = self._secrets.derive("refresh", digest, rotation.encode()) if rotation else new_secret()
        fresh = f"{session_id}.{secret}"

        def unit(connection: Connection) -> LoginSession | VantageError:
            session = user_store.get_session(connection, session_id)
            if session is None:
                return error(Reason.TOKEN_INVALID, "the session of this refresh token has ended: log in again")
            if session.expires <= now:
                return error(Reason.TOKEN_EXPIRED, "the refresh token has expired: log in again")
            if hmac.compare_digest(session.refresh_hash, digest):
                user_store.rotate_session(
                    connection, session, secret_hash(fresh), rotation, now, now + REFRESH_LIFETIME
                )
                return session
            if rotation is not None and _repeats(session, digest, rotation, now):
                return session
            # Two parties hold the token and one of them stole it; which one cannot be known. Returned, not raised: the
            # end of the session must be committed.
            user_store.end_sessions(connection, session.user, only=session.id)
            return error(Reason.TOKEN_REUSED, "the refresh token was used before: the session is over, log in again")

        outcome = await self._database.write(unit)
        if isinstance(outcome, VantageError):
            self._directory.forget()
            raise outcome
        return self._pair(outcome, fresh)

    async def logout(self, user: UserPrincipal, *, all_sessions: bool) -> int:
        """End the session, or all of the user; access tokens stop to work at once. Returns how many ended."""
        only = None if all_sessions else user.session_id
        ended = await self._database.write(lambda connection: user_store.end_sessions(connection, user.name, only=only))
        self._directory.forget()
        return ended

    async def list_own(self, user: UserPrincipal, page_size: int, token: str) -> Page[LoginSession]:
        """One page of the caller's sessions, the latest first."""
        query = f"login sessions {user.name}"
        size, after = pages.page_size(page_size), pages.decode(token, query)
        now = self._clock.now()
        rows = await self._database.read(
            lambda connection: user_store.list_sessions(connection, user.name, now, after, size + 1)
        )
        return pages.cut(rows, size, query, lambda each: each.id)

    async def end_own(self, user: UserPrincipal, session_id: str) -> None:
        """End one session of the caller.

        Raises:
            NotFoundError: the caller has no such session.
        """
        ended = await self._database.write(
            lambda connection: user_store.end_sessions(connection, user.name, only=session_id)
        )
        self._directory.forget()
        if not ended:
            raise missing(f"session {session_id[:80]!r}")

    def _pair(self, session: LoginSession, refresh: str) -> Tokens:
        access = self._tokens.issue(session.user, session.id)
        return Tokens(session.user, access, refresh, refresh_lifetime=REFRESH_LIFETIME)


def _repeats(session: LoginSession, digest: bytes, rotation: str, now: datetime) -> bool:
    return (
        session.rotation_id == rotation
        and session.previous_hash is not None
        and hmac.compare_digest(session.previous_hash, digest)
        and session.refreshed is not None
        and now - session.refreshed <= REPEAT_WITHIN
    )
