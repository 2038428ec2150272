"""Log-in with a password, the first user, and changes of passwords."""

from __future__ import annotations

import hmac

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain.passwords import Passwords, check_strength
from vantage.server.domain.principals import LoginMethod, UserPrincipal
from vantage.server.domain.tokens import secret_hash
from vantage.server.services.directory import Directory
from vantage.server.services.logins import Logins, Tokens
from vantage.server.services.proofs import Proofs, lockout_key, wrong
from vantage.server.storage import credential_store, settings_store, user_store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.user_store import User


class Auth:
    """Use cases of passwords."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        logins: Logins,
        proofs: Proofs,
        passwords: Passwords,
        audience: str,
        clock: Clock,
    ) -> None:
        self.audience = audience
        self.clock = clock
        self._database = database
        self._directory = directory
        self._logins = logins
        self._proofs = proofs
        self._passwords = passwords

    async def bootstrap_pending(self) -> bool:
        """Whether nobody has used the bootstrap token yet."""
        return await self._database.read(
            lambda connection: settings_store.get(connection, settings_store.BOOTSTRAP_HASH) is not None
        )

    async def bootstrap(self, token: str, username: str, password: str, peer: str) -> Tokens:
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
        hashed = await self._passwords.hash_new(password, username)

        def unit(connection: Connection) -> Tokens:
            # Again, in the transaction that uses it up: two that come at once must not both win.
            if not holds(connection):
                raise invalid
            settings_store.remove(connection, settings_store.BOOTSTRAP_HASH)
            user_store.create(connection, User(name, None, username, hashed, ("roles/root",), self.clock.now()))
            return self._logins.open(connection, name, LoginMethod.BOOTSTRAP, peer)

        return await self._database.write(unit)

    async def login(self, username: str, password: str, code: str, peer: str) -> Tokens:
        """Log a user in.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, also for unknown users and after the same work;
                ONE_TIME_CODE_REQUIRED.
            LimitExceededError: LOCKED_OUT.
        """

        def then(connection: Connection, user: User) -> Tokens:
            return self._logins.open(connection, user.name, LoginMethod.PASSWORD, peer)

        return await self._proofs.verify(f"users/{username}", password, code, then)

    async def change_password(self, user: UserPrincipal, current: str, new: str, code: str) -> int:
        """Change the password and end the other sessions; returns how many ended.

        Raises:
            VantageError: CREDENTIALS_INVALID, ONE_TIME_CODE_REQUIRED, LOCKED_OUT, PASSWORD_TOO_WEAK.
        """
        username = user.name.removeprefix("users/")
        check_strength(new, username)
        stored = await self._proofs.verify(user.name, current, code, lambda _connection, known: known.password_hash)
        hashed = await self._passwords.hash_new(new, username)

        def unit(connection: Connection) -> int:
            # Hashing takes a while: whoever reset the password or ended the session meanwhile must have the last word.
            if user_store.get_session(connection, user.session_id) is None:
                raise error(Reason.TOKEN_INVALID, "the session of this access token has ended: log in again")
            known = user_store.get(connection, user.name)
            if known is None or known.password_hash != stored:
                raise wrong()
            user_store.set_password(connection, user.name, hashed)
            credential_store.remove_reset(connection, user.name)
            return user_store.end_sessions(connection, user.name, keep=user.session_id)

        ended = await self._database.write(unit)
        self._directory.forget()
        return ended

    async def reset_password(self, token: str, new: str) -> str:
        """Set a password with a reset token, which is thereby used up, and end all sessions. Returns the user.

        Raises:
            UnauthenticatedError: RESET_TOKEN_INVALID.
            InvalidArgumentError: PASSWORD_TOO_WEAK; the token still works.
        """
        digest, now = secret_hash(token), self.clock.now()
        invalid = error(
            Reason.RESET_TOKEN_INVALID,
            "the reset token is wrong, was used or has expired: try to log in, or ask an admin for a new one",
        )

        def owner(connection: Connection) -> str:
            name = credential_store.reset_user(connection, digest, now)
            if name is None:
                raise invalid
            return name

        # Before the costly hash, as above.
        name = await self._database.read(owner)
        hashed = await self._passwords.hash_new(new, name.removeprefix("users/"))

        def unit(connection: Connection) -> None:
            # Again, in the transaction that uses it up.
            if owner(connection) != name:
                raise invalid
            credential_store.remove_reset(connection, name)
            user_store.set_password(connection, name, hashed)
            user_store.end_sessions(connection, name)
            # Who guessed before has guessed another password, and who sets this one is not to wait for them.
            user_store.clear_lockout(connection, lockout_key(name))

        await self._database.write(unit)
        self._directory.forget()
        return name
