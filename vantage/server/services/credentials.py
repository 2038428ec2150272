"""What users do with their own one-time codes and recovery codes, and how anyone's credentials look."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain import one_time_codes
from vantage.server.domain.principals import UserPrincipal
from vantage.server.domain.secrets import Secrets
from vantage.server.domain.tokens import new_secret, secret_hash
from vantage.server.services.directory import Directory
from vantage.server.services.proofs import Proofs, secret_context
from vantage.server.storage import credential_store, user_store
from vantage.server.storage.credential_store import Identity
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.user_store import User

RESET_LIFETIME = timedelta(days=3)


@dataclass(frozen=True)
class Overview:
    """How a user can log in."""

    user: str
    has_password: bool
    one_time_codes: bool
    recovery_codes_left: int
    identities: tuple[Identity, ...]


@dataclass(frozen=True)
class Enrolment:
    """What an app needs to show codes."""

    secret: str
    uri: str


class Credentials:
    """Use cases of one's own credentials. Whatever weakens them asks for the password again."""

    def __init__(
        self, database: Database, directory: Directory, proofs: Proofs, secrets: Secrets, server: str, clock: Clock
    ) -> None:
        self._database = database
        self._directory = directory
        self._proofs = proofs
        self._secrets = secrets
        self._server = server
        self._clock = clock

    async def get(self, user: UserPrincipal) -> Overview:
        """How the caller can log in."""
        return await self._database.read(lambda connection: overview(connection, user.name))

    async def begin(self, user: UserPrincipal, password: str) -> Enrolment:
        """Make a secret for the caller's app; nothing changes until it is confirmed.

        Raises:
            VantageError: CREDENTIALS_INVALID, LOCKED_OUT, ENROLMENT_STATE.
        """
        secret = one_time_codes.new_totp_secret()
        sealed = self._secrets.seal(secret.encode(), secret_context(user.name))
        await self._database.read(lambda connection: _require_not_enrolled(connection, user.name))

        def then(connection: Connection, known: User) -> None:
            _require_not_enrolled(connection, known.name)
            credential_store.begin_one_time_code(connection, known.name, sealed, self._clock.now())

        await self._proofs.verify(user.name, password, "", then)
        username = user.name.removeprefix("users/")
        return Enrolment(secret, one_time_codes.enrolment_uri(secret, username, self._server))

    async def confirm(self, user: UserPrincipal, code: str) -> list[str]:
        """Make codes count from now on and end the other sessions; returns the recovery codes.

        Raises:
            VantageError: ONE_TIME_CODE_INVALID, ENROLMENT_STATE, LOCKED_OUT.
        """
        codes = one_time_codes.new_recovery_codes()

        def then(connection: Connection) -> None:
            _store_recovery_codes(connection, user.name, codes)
            # Whoever else holds a session got it without a code.
            user_store.end_sessions(connection, user.name, keep=user.session_id)

        await self._proofs.confirm(user.name, code, then)
        self._directory.forget()
        return codes

    async def disable(self, user: UserPrincipal, password: str, code: str) -> None:
        """Remove one-time codes and recovery codes.

        Raises:
            VantageError: CREDENTIALS_INVALID, ONE_TIME_CODE_REQUIRED, LOCKED_OUT, ENROLMENT_STATE.
        """

        # First without counting an attempt, then in the transaction.
        await self._database.read(lambda connection: _require_enrolled(connection, user.name))

        def then(connection: Connection, known: User) -> None:
            _require_enrolled(connection, known.name)
            credential_store.remove_one_time_code(connection, known.name)

        await self._proofs.verify(user.name, password, code, then)

    async def renew_recovery_codes(self, user: UserPrincipal, password: str, code: str) -> list[str]:
        """Replace all recovery codes.

        Raises:
            VantageError: as ``disable``.
        """
        codes = one_time_codes.new_recovery_codes()
        await self._database.read(lambda connection: _require_enrolled(connection, user.name))

        def then(connection: Connection, known: User) -> None:
            _require_enrolled(connection, known.name)
            _store_recovery_codes(connection, known.name, codes)

        await self._proofs.verify(user.name, password, code, then)
        return codes


def overview(connection: Connection, name: str) -> Overview:
    """How a user can log in."""
    user = user_store.get(connection, name)
    enrolled = credential_store.get_one_time_code(connection, name)
    return Overview(
        name,
        user is not None and bool(user.password_hash),
        enrolled is not None and enrolled.confirmed is not None,
        credential_store.count_recovery_codes(connection, name),
        tuple(credential_store.identities_of(connection, name)),
    )


def new_reset(connection: Connection, name: str, now: datetime) -> tuple[str, datetime]:
    """Store a new reset token of a user; returns it and when it expires."""
    token, expires = new_secret(), now + RESET_LIFETIME
    credential_store.issue_reset(connection, name, secret_hash(token), expires)
    return token, expires


def _store_recovery_codes(connection: Connection, name: str, codes: list[str]) -> None:
    hashes = [each for each in map(one_time_codes.recovery_hash, codes) if each is not None]
    credential_store.set_recovery_codes(connection, name, hashes)


def _require_enrolled(connection: Connection, name: str) -> None:
    if not overview(connection, name).one_time_codes:
        raise error(Reason.ENROLMENT_STATE, "one-time codes are not enrolled: there is nothing to change")


def _require_not_enrolled(connection: Connection, name: str) -> None:
    found = overview(connection, name)
    if found.one_time_codes:
        raise error(Reason.ENROLMENT_STATE, "one-time codes are enrolled already: disable them first")
    if not found.has_password:
        raise error(
            Reason.ENROLMENT_STATE, "one-time codes go with a password and you have none: use those of your provider"
        )
