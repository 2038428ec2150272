"""Log-in and log-out, tokens, the first user, and nodes that prove who they are."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509

from vantage.common import names, pki
from vantage.common.assertion import verify_assertion
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.rpc import METADATA_RETRY
from vantage.server.domain.passwords import Passwords, check_strength, lock_duration
from vantage.server.domain.principals import UserPrincipal
from vantage.server.domain.tokens import ACCESS_LIFETIME, REFRESH_LIFETIME, AccessTokens, new_secret, secret_hash
from vantage.server.services.directory import Directory
from vantage.server.storage import organization_store, settings_store, user_store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.user_store import Lockout, LoginSession, User


@dataclass(frozen=True)
class Tokens:
    """What a log-in gets; a node gets no refresh token."""

    principal: str
    access: str
    refresh: str = ""
    access_lifetime: timedelta = ACCESS_LIFETIME
    refresh_lifetime: timedelta = timedelta(0)


class Auth:
    """Use cases of identity."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        tokens: AccessTokens,
        passwords: Passwords,
        audience: str,
        clock: Clock,
    ) -> None:
        self.audience = audience
        self.clock = clock
        self._database = database
        self._directory = directory
        self._tokens = tokens
        self._passwords = passwords

    async def bootstrap_pending(self) -> bool:
        """Whether nobody has used the bootstrap token yet."""
        return await self._database.read(
            lambda connection: settings_store.get(connection, settings_store.BOOTSTRAP_HASH) is not None
        )

    async def bootstrap(self, token: str, username: str, password: str) -> Tokens:
        """Create the first user.

        Raises:
            UnauthenticatedError: BOOTSTRAP_TOKEN_INVALID.
            InvalidArgumentError: the user name or the password will not do.
        """
        digest = secret_hash(token).hex()

        def holds(connection: Connection) -> bool:
            expected = settings_store.get(connection, settings_store.BOOTSTRAP_HASH)
            return expected is not None and hmac.compare_digest(expected, digest)

        invalid = error(
            Reason.BOOTSTRAP_TOKEN_INVALID,
            "the bootstrap token is wrong or was used: 'vantage server init' printed it; afterwards log in",
        )
        # Before the costly hash, so that a stranger cannot make the server work.
        if not await self._database.read(holds):
            raise invalid
        name = str(names.parse(f"users/{username}", "users", field="username"))
        check_strength(password, username)
        hashed = await self._passwords.hash(password)
        now = self.clock.now()
        session, refresh = _new_session(name, now)

        def unit(connection: Connection) -> None:
            # Again, in the transaction that uses it up: two that come at once must not both win.
            if not holds(connection):
                raise invalid
            settings_store.remove(connection, settings_store.BOOTSTRAP_HASH)
            user_store.create(connection, User(name, None, username, hashed, ("roles/root",), now))
            user_store.open_session(connection, session, now)

        await self._database.write(unit)
        return self._pair(session, refresh)

    async def login(self, username: str, password: str) -> Tokens:
        """Log a user in.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, also for unknown users and after the same work.
            LimitExceededError: LOCKED_OUT.
        """
        name = f"users/{username}"
        await self._verify(name, password)
        now = self.clock.now()
        session, refresh = _new_session(name, now)

        def unit(connection: Connection) -> None:
            if user_store.get(connection, name) is None:
                raise _wrong()  # deleted meanwhile
            user_store.open_session(connection, session, now)

        await self._database.write(unit)
        return self._pair(session, refresh)

    async def refresh(self, token: str) -> Tokens:
        """Exchange a refresh token, once.

        Raises:
            UnauthenticatedError: TOKEN_INVALID, TOKEN_EXPIRED or TOKEN_REUSED.
        """
        session_id, _, _secret = token.partition(".")
        digest = secret_hash(token)
        now = self.clock.now()
        fresh = f"{session_id}.{new_secret()}"

        def unit(connection: Connection) -> LoginSession | VantageError:
            session = user_store.get_session(connection, session_id)
            if session is None:
                return error(Reason.TOKEN_INVALID, "the session of this refresh token has ended: log in again")
            if session.expires <= now:
                return error(Reason.TOKEN_EXPIRED, "the refresh token has expired: log in again")
            if not hmac.compare_digest(session.refresh_hash, digest):
                # Two parties hold the token and one of them stole it; which one cannot be known. Returned, not
                # raised: the end of the session must be committed.
                user_store.end_sessions(connection, session.user, only=session.id)
                return error(
                    Reason.TOKEN_REUSED, "the refresh token was used before: the session is over, log in again"
                )
            user_store.rotate_session(connection, session, secret_hash(fresh), now + REFRESH_LIFETIME)
            return session

        outcome = await self._database.write(unit)
        if isinstance(outcome, VantageError):
            self._directory.forget()
            raise outcome
        return self._pair(outcome, fresh)

    async def exchange(self, text: str) -> Tokens:
        """Give a node an access token for its signed assertion.

        Raises:
            VantageError: see ``verify_assertion``; ASSERTION_REPLAYED, PRINCIPAL_UNKNOWN.
        """
        now = self.clock.now()

        def check(connection: Connection) -> str:
            def roots(organization: str) -> list[x509.Certificate]:
                pems = organization_store.certificates(connection, organization)
                return [each for pem in pems for each in pki.load_certificates(pem)]

            assertion = verify_assertion(text, self.audience, roots, self.clock)
            if organization_store.get_node(connection, assertion.principal) is None:
                raise error(
                    Reason.PRINCIPAL_UNKNOWN,
                    f"{assertion.principal} is not known here: an admin of its organization creates the node first",
                )
            if not user_store.use_assertion(connection, assertion.principal, assertion.jti, assertion.expires, now):
                raise error(
                    Reason.ASSERTION_REPLAYED, "the assertion was used before: sign a new one for each exchange"
                )
            return assertion.principal

        # The signatures are checked by a reader first: the only writer is not for work that strangers can cause.
        def dry(connection: Connection) -> None:
            verify_assertion(
                text,
                self.audience,
                lambda organization: [
                    each
                    for pem in organization_store.certificates(connection, organization)
                    for each in pki.load_certificates(pem)
                ],
                self.clock,
            )

        await self._database.read(dry)
        principal = await self._database.write(check)
        return Tokens(principal, self._tokens.issue(principal, None))

    async def logout(self, user: UserPrincipal, *, all_sessions: bool) -> int:
        """End the session, or all of the user; access tokens stop to work at once. Returns how many ended."""
        only = None if all_sessions else user.session_id
        ended = await self._database.write(lambda connection: user_store.end_sessions(connection, user.name, only=only))
        self._directory.forget()
        return ended

    async def change_password(self, user: UserPrincipal, current: str, new: str) -> int:
        """Change the password and end the other sessions; returns how many ended.

        Raises:
            VantageError: CREDENTIALS_INVALID, LOCKED_OUT, PASSWORD_TOO_WEAK.
        """
        check_strength(new, user.name.removeprefix("users/"))
        await self._verify(user.name, current)
        hashed = await self._passwords.hash(new)

        def unit(connection: Connection) -> int:
            user_store.set_password(connection, user.name, hashed)
            return user_store.end_sessions(connection, user.name, keep=user.session_id)

        ended = await self._database.write(unit)
        self._directory.forget()
        return ended

    async def _verify(self, name: str, password: str) -> None:
        key = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
        now = self.clock.now()

        def attempt(connection: Connection) -> User | None:
            # Counted before the password is looked at: attempts at the same time cannot pass together.
            known = user_store.get_lockout(connection, key)
            if known.locked_until is not None and known.locked_until > now:
                wait = (known.locked_until - now).total_seconds()
                raise error(
                    Reason.LOCKED_OUT,
                    f"too many wrong passwords: try again in {wait:.0f} s",
                    **{METADATA_RETRY: f"{wait:.3f}"},
                )
            wait_for = lock_duration(known.failures + 1)
            until = now + wait_for if wait_for else None
            user_store.set_lockout(connection, key, Lockout(known.failures + 1, until), now)
            return user_store.get(connection, name)

        user = await self._database.write(attempt)
        if not await self._passwords.verify(None if user is None else user.password_hash, password):
            raise _wrong()
        await self._database.write(lambda connection: user_store.clear_lockout(connection, key))

    def _pair(self, session: LoginSession, refresh: str) -> Tokens:
        access = self._tokens.issue(session.user, session.id)
        return Tokens(session.user, access, refresh, refresh_lifetime=REFRESH_LIFETIME)


def _new_session(user: str, now: datetime) -> tuple[LoginSession, str]:
    session_id = names.new_id()
    refresh = f"{session_id}.{new_secret()}"
    return LoginSession(session_id, user, secret_hash(refresh), 0, now + REFRESH_LIFETIME), refresh


def _wrong() -> VantageError:
    return error(Reason.CREDENTIALS_INVALID, "user name or password is wrong")
