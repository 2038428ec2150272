"""Passwords: argon2id, off the event loop, the same work whether the user exists or not."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from vantage.common.errors import Reason, error

MIN_LENGTH = 12
MAX_LENGTH = 1_000
FREE_FAILURES = 5
"""Wrong passwords before waiting starts."""
_GUESSABLE = 3
"""Least score of zxcvbn that will do: 3 means about 10^8 guesses, "safely unguessable" where each costs an argon2."""
_SCORED_LENGTH = 72
_FIRST_WAIT = timedelta(seconds=2)
_LONGEST_WAIT = timedelta(minutes=15)


def check_strength(password: str, username: str) -> None:
    """Check a new password in an instant. Length is what counts (NIST SP 800-63B section 5.1.1.2).

    ``Passwords.hash_new`` checks more, off the event loop.

    Raises:
        InvalidArgumentError: PASSWORD_TOO_WEAK.
    """
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        raise error(Reason.PASSWORD_TOO_WEAK, f"a password has {MIN_LENGTH} to {MAX_LENGTH} characters")
    if len(set(password)) < 5 or username.lower() in password.lower():
        raise error(Reason.PASSWORD_TOO_WEAK, "the password is too easy to guess: use several words, not the user name")


def lock_duration(failures: int) -> timedelta:
    """How long a user must wait after so many wrong passwords in a row: doubles from the first lock on."""
    if failures < FREE_FAILURES:
        return timedelta(0)
    doublings: int = min(failures - FREE_FAILURES, 20)
    return min(_FIRST_WAIT * (1 << doublings), _LONGEST_WAIT)


class Passwords:
    """Hashes and verifies. At most two at a time: each takes tens of MiB and about 0.1 s of a core.

    Args:
        hasher: with parameters of one's own.
    """

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="password")
        # Whoever starts a server does not wait for it; whoever verifies comes behind it.
        self._decoy = self._pool.submit(self._hasher.hash, "nobody has this password")

    async def hash(self, password: str) -> str:
        """Hash of a new password, with its parameters and salt."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._hasher.hash, password)

    async def hash_new(self, password: str, username: str) -> str:
        """Hash of a password that somebody chose, if it is not one that guessing programs try early.

        Raises:
            InvalidArgumentError: PASSWORD_TOO_WEAK.
        """
        check_strength(password, username)
        loop = asyncio.get_running_loop()
        if not await loop.run_in_executor(self._pool, _withstands_guessing, password, username):
            raise error(
                Reason.PASSWORD_TOO_WEAK,
                "the password is among those that are guessed first: use several words that do not belong together",
            )
        return await self.hash(password)

    async def verify(self, stored: str | None, password: str) -> bool:
        """Whether the password is right; where there is none (None or empty) false after the same work."""
        if len(password) > MAX_LENGTH:
            password = ""
        matches = await asyncio.get_running_loop().run_in_executor(
            self._pool, lambda: self._verify(stored or self._decoy.result(), password)
        )
        return matches and bool(stored)

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def _verify(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False


def _withstands_guessing(password: str, username: str) -> bool:
    from zxcvbn import zxcvbn  # here: its dictionaries take memory that a server without new passwords does not need

    score: int = zxcvbn(password[:_SCORED_LENGTH], user_inputs=[username, "vantage"])["score"]
    return score >= _GUESSABLE
