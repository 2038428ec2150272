"""Password and one-time code: the check that every use of them passes, with lock-out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.rpc import METADATA_RETRY
from vantage.server.domain import one_time_codes
from vantage.server.domain.passwords import FREE_FAILURES, Passwords, lock_duration
from vantage.server.domain.secrets import Secrets
from vantage.server.storage import credential_store, user_store
from vantage.server.storage.credential_store import OneTimeCode
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.user_store import Lockout, User

T = TypeVar("T")


class Proofs:
    """Verifies what users know and hold.

    Each attempt is counted before anything is looked at, so that attempts at the same time cannot pass together, and a
    success takes the count back. Names that nobody has are counted and verified like others.
    """

    def __init__(self, database: Database, passwords: Passwords, secrets: Secrets, clock: Clock) -> None:
        self._database = database
        self._passwords = passwords
        self._secrets = secrets
        self._clock = clock

    async def verify(self, name: str, password: str, code: str, then: Callable[[Connection, User], T]) -> T:
        """Check password and, when one is enrolled, second factor; then do something in the same transaction.

        The checks, in order: (1) no lock, (2) the password, (3) the user is still the one whose password it was,
        (4) the one-time code or recovery code, which is thereby used up. A missing code is told only after (2) and is
        not counted; every wrong answer is the same.

        Args:
            name: ``users/{user}``, also when there is no such user.
            password: what was typed.
            code: one-time code or recovery code, or empty.
            then: what the proof is for.

        Raises:
            UnauthenticatedError: CREDENTIALS_INVALID, ONE_TIME_CODE_REQUIRED.
            LimitExceededError: LOCKED_OUT.
        """
        user, counted = await self._attempt(name)  # (1)
        if not await self._passwords.verify(None if user is None else user.password_hash, password) or user is None:
            raise wrong()  # (2)
        stored = user.password_hash

        def unit(connection: Connection) -> T | VantageError:
            current = user_store.get(connection, name)
            if current is None or current.password_hash != stored:
                return wrong()  # (3) deleted, or the password was changed meanwhile
            problem = self._second_factor(connection, name, code)  # (4)
            if problem is not None:
                if problem.reason is Reason.ONE_TIME_CODE_REQUIRED:
                    self._withdraw(connection, name, counted)
                return problem
            user_store.clear_lockout(connection, lockout_key(name))
            return then(connection, current)

        return _or_raise(await self._database.write(unit))

    async def confirm(self, name: str, code: str, then: Callable[[Connection], T]) -> T:
        """Check the first code of an enrolment; then do something in the same transaction. Wrong codes are counted.

        Raises:
            InvalidArgumentError: ONE_TIME_CODE_INVALID.
            ConflictError: ENROLMENT_STATE.
            LimitExceededError: LOCKED_OUT.
        """
        _user, counted = await self._attempt(name)
        now = self._clock.now()

        def unit(connection: Connection) -> T | VantageError:
            enrolled = credential_store.get_one_time_code(connection, name)
            if enrolled is None or enrolled.confirmed is not None:
                # Not a success: it must not make wrong passwords forgotten.
                self._withdraw(connection, name, counted)
                what = "there is no enrolment to confirm: begin it" if enrolled is None else "it is confirmed already"
                return error(Reason.ENROLMENT_STATE, what)
            if not self._accept(connection, name, enrolled, code, now):
                return error(
                    Reason.ONE_TIME_CODE_INVALID,
                    f"the code is wrong: is the clock of your device right? The server says {now:%H:%M:%S} UTC",
                )
            user_store.clear_lockout(connection, lockout_key(name))
            return then(connection)

        return _or_raise(await self._database.write(unit))

    async def _attempt(self, name: str) -> tuple[User | None, int]:
        key = lockout_key(name)
        now = self._clock.now()

        def unit(connection: Connection) -> tuple[User | None, int]:
            known = user_store.get_lockout(connection, key)
            if known.locked_until is not None and known.locked_until > now:
                wait = (known.locked_until - now).total_seconds()
                raise error(
                    Reason.LOCKED_OUT,
                    f"too many wrong passwords or codes: try again in {wait:.0f} s",
                    **{METADATA_RETRY: f"{wait:.3f}"},
                )
            failures = known.failures + 1
            wait_for = lock_duration(failures)
            user_store.set_lockout(connection, key, Lockout(failures, now + wait_for if wait_for else None), now)
            # What cannot be a name is not looked up: no database need cope with it.
            return user_store.get(connection, name) if names.is_valid(name, "users") else None, failures

        return await self._database.write(unit)

    def _withdraw(self, connection: Connection, name: str, counted: int) -> None:
        # Takes back this attempt alone: wrong codes stay counted, or asking without a code in between would reset them.
        known = user_store.get_lockout(connection, lockout_key(name))
        if not known.failures:
            return
        alone = known.failures == counted or known.failures <= FREE_FAILURES
        lockout = Lockout(known.failures - 1, None if alone else known.locked_until)
        user_store.set_lockout(connection, lockout_key(name), lockout, self._clock.now())

    def _second_factor(self, connection: Connection, name: str, code: str) -> VantageError | None:
        enrolled = credential_store.get_one_time_code(connection, name)
        if enrolled is None or enrolled.confirmed is None:
            return None  # a code that nobody asked for is not held against them
        if not code.strip():
            return error(
                Reason.ONE_TIME_CODE_REQUIRED, "a one-time code is needed: give the one that your app shows, too"
            )
        recovery = one_time_codes.recovery_hash(code)
        if recovery is not None:
            return None if credential_store.use_recovery_code(connection, name, recovery) else wrong()
        return None if self._accept(connection, name, enrolled, code, self._clock.now()) else wrong()

    def _accept(self, connection: Connection, name: str, enrolled: OneTimeCode, code: str, now: datetime) -> bool:
        secret = self._secrets.open(enrolled.sealed_secret, secret_context(name)).decode()
        step = one_time_codes.accepted_step(secret, one_time_codes.tidy(code), now, enrolled.last_step)
        return step is not None and credential_store.use_step(connection, name, step, confirmed=now)


def secret_context(name: str) -> str:
    """What the secret of a user's one-time codes is sealed to."""
    return f"one-time-code {name}"


def wrong() -> VantageError:
    """The one answer to everything wrong."""
    return error(Reason.CREDENTIALS_INVALID, "user name, password or one-time code is wrong")


def lockout_key(name: str) -> str:
    """Under which failed attempts of a name are counted, also of one that nobody has: it may be a mistyped password."""
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _or_raise(outcome: T | VantageError) -> T:
    # Returned by the unit, not raised: what it counted must be committed.
    if isinstance(outcome, VantageError):
        raise outcome
    return outcome
