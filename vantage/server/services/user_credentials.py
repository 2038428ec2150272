"""What admins do about the credentials and sessions of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain import audit
from vantage.server.domain.permissions import Operation, Resource
from vantage.server.domain.principals import LoginMethod, UserKind, UserPrincipal
from vantage.server.services.access import missing, require
from vantage.server.services.credentials import Overview, new_reset, overview
from vantage.server.services.directory import Directory
from vantage.server.services.identities import taken
from vantage.server.services.users import check_governed
from vantage.server.storage import credential_store, pages, user_store
from vantage.server.storage.credential_store import Identity
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.user_store import LoginSession, User


class UserCredentials:
    """Use cases of other users' credentials.

    Whoever resets a credential can become the user, so nobody does who lacks one of the user's permissions. And nobody
    does for themself: their own calls ask for password and code, without which a stolen access token would be enough to
    become the user for good.
    """

    def __init__(self, database: Database, directory: Directory, issuer: str | None, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._issuer = issuer
        self._clock = clock

    async def get(self, caller: UserPrincipal, name: str) -> tuple[Overview, Sequence[LoginSession]]:
        """How a user can log in, and their sessions."""
        now = self._clock.now()

        def unit(connection: Connection) -> tuple[Overview, Sequence[LoginSession]]:
            _editable(connection, caller, name)
            return overview(connection, name), user_store.list_sessions(connection, name, now, None, pages.MAX_SIZE)

        return await self._database.read(unit)

    async def issue_reset(self, caller: UserPrincipal, name: str) -> tuple[str, datetime]:
        """A token with which the user sets a password, and until when.

        Raises:
            VantageError: NOT_FOUND, PERMISSION_DENIED, ROLE_EXCEEDS_OWN, ENROLMENT_STATE.
        """

        def unit(connection: Connection) -> tuple[str, datetime]:
            user = _another(connection, caller, name, "ChangePassword")
            if user.kind is not UserKind.PERSON:
                raise _no_person(name)
            return new_reset(connection, name, self._clock.now())

        return await self._database.write(unit)

    async def remove_one_time_codes(self, caller: UserPrincipal, name: str) -> int:
        """Remove one-time codes and recovery codes, and end the sessions; returns how many ended."""

        def unit(connection: Connection) -> int:
            _another(connection, caller, name, "DisableOneTimeCodes")
            credential_store.remove_one_time_code(connection, name)
            return user_store.end_sessions(connection, name)

        return await self._ended(unit)

    async def link_identity(self, caller: UserPrincipal, name: str, subject: str) -> Identity:
        """Link an identity at the server's provider to a user.

        Raises:
            VantageError: also ALREADY_EXISTS, IDENTITY_PROVIDER_MISSING.
        """
        issuer = self._issuer
        if issuer is None:
            raise error(Reason.IDENTITY_PROVIDER_MISSING, "the server has no identity provider: its operator sets one")
        if not 1 <= len(subject) <= 255:
            raise error(Reason.INVALID_ARGUMENT, "subject must have 1 to 255 characters", field="subject")

        def unit(connection: Connection) -> Identity:
            user = _another(connection, caller, name, "LinkIdentity")
            if user.kind is not UserKind.PERSON:
                raise _no_person(name)
            linked = credential_store.link_identity(connection, Identity(issuer, subject, name, self._clock.now()))
            if linked.user != name:
                raise taken()
            return linked

        return await self._database.write(unit)

    async def unlink_identity(self, caller: UserPrincipal, name: str, issuer: str, subject: str) -> int:
        """Remove a link and end the sessions that began with an identity; returns how many ended."""

        def unit(connection: Connection) -> int:
            _governed(connection, caller, name)
            if not credential_store.unlink_identity(connection, name, issuer, subject):
                raise missing("this identity of the user")
            return user_store.end_sessions(connection, name, method=LoginMethod.IDENTITY)

        return await self._ended(unit)

    async def revoke_sessions(self, caller: UserPrincipal, name: str) -> int:
        """End all sessions of a user; returns how many ended."""

        def unit(connection: Connection) -> int:
            _governed(connection, caller, name)
            return user_store.end_sessions(connection, name)

        return await self._ended(unit)

    async def _ended(self, unit: Callable[[Connection], int]) -> int:
        ended = await self._database.write(unit)
        self._directory.forget()
        return ended


def _no_person(name: str) -> VantageError:
    return error(Reason.ENROLMENT_STATE, f"{name} is a service account: it logs in with its certified key")


def _editable(connection: Connection, caller: UserPrincipal, name: str) -> User:
    names.parse(name, "users", field="user")
    audit.note(name)
    found = user_store.get(connection, name)
    require(caller, Resource.USER, Operation.EDIT, name, None if found is None else found.owner)
    if found is None:
        raise missing(name)
    return found


def _governed(connection: Connection, caller: UserPrincipal, name: str) -> User:
    user = _editable(connection, caller, name)
    check_governed(connection, caller, user)
    return user


def _another(connection: Connection, caller: UserPrincipal, name: str, own_call: str) -> User:
    user = _governed(connection, caller, name)
    if name == caller.name:
        raise error(
            Reason.PERMISSION_DENIED,
            f"nobody does this for themself: use {own_call}, which asks for your password, or ask another admin",
        )
    return user
