"""Tokens of a log-in, and where they are kept between calls and between programs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

import filelock

from vantage.common.errors import Reason, error
from vantage.common.files import replace_private


@dataclass(frozen=True)
class Tokens:
    """What a log-in gave.

    Attributes:
        user: users/{user}.
        access_token: goes with each call.
        access_expires: when it ends, by this machine's clock.
        refresh_token: gives new tokens, once.
        refresh_expires: when it ends, by this machine's clock.
    """

    user: str
    access_token: str
    access_expires: datetime
    refresh_token: str
    refresh_expires: datetime

    def __repr__(self) -> str:
        return f"Tokens(user={self.user!r}, access_expires={self.access_expires.isoformat()})"


class TokenStore(Protocol):
    """Keeps the tokens of one log-in. Whoever changes them holds the lock, since a refresh token works once."""

    async def load(self) -> Tokens | None:
        """The tokens; None when nobody is logged in."""
        ...

    async def save(self, tokens: Tokens | None) -> None:
        """Replace the tokens as a whole; None removes them."""
        ...

    def lock(self) -> AbstractAsyncContextManager[None]:
        """Keep everybody else who shares the store from changing it."""
        ...


class MemoryTokenStore:
    """Tokens that end with the program."""

    def __init__(self) -> None:
        self._tokens: Tokens | None = None
        self._lock = asyncio.Lock()

    async def load(self) -> Tokens | None:
        """See ``TokenStore``."""
        return self._tokens

    async def save(self, tokens: Tokens | None) -> None:
        """See ``TokenStore``."""
        self._tokens = tokens

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """See ``TokenStore``."""
        async with self._lock:
            yield


class FileTokenStore:
    """Tokens in a file that only its owner can read, shared by all programs of that user.

    Args:
        path: the file; its directory is made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    async def load(self) -> Tokens | None:
        """See ``TokenStore``; a file that is not usable is no log-in."""
        return await asyncio.to_thread(self._read)

    async def save(self, tokens: Tokens | None) -> None:
        """See ``TokenStore``.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        try:
            await asyncio.to_thread(self._write, tokens)
        except OSError as problem:
            raise self._unusable(problem) from problem

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """See ``TokenStore``; the kernel lets go of it when the program dies."""
        lock = filelock.AsyncFileLock(f"{self.path}.lock", mode=0o600, thread_local=False)
        try:
            await asyncio.to_thread(_make_private, self.path.parent)
            await lock.acquire()
        except OSError as problem:
            raise self._unusable(problem) from problem
        try:
            yield
        finally:
            await lock.release()

    def _read(self) -> Tokens | None:
        try:
            content = json.loads(self.path.read_text("utf-8"))
            return Tokens(
                user=str(content["user"]),
                access_token=str(content["access_token"]),
                access_expires=_moment(content["access_expires"]),
                refresh_token=str(content["refresh_token"]),
                refresh_expires=_moment(content["refresh_expires"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _write(self, tokens: Tokens | None) -> None:
        if tokens is None:
            self.path.unlink(missing_ok=True)
            return
        _make_private(self.path.parent)
        content = asdict(tokens)
        for field in ("access_expires", "refresh_expires"):
            content[field] = content[field].isoformat()
        replace_private(self.path, json.dumps(content, indent=1))

    def _unusable(self, problem: OSError) -> Exception:
        return error(
            Reason.CONFIGURATION_INVALID,
            f"the token file {self.path} cannot be used: {problem.strerror or problem}",
            path=str(self.path),
        )


def _make_private(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _moment(text: object) -> datetime:
    moment = datetime.fromisoformat(str(text))
    if moment.tzinfo is None:
        raise ValueError("a time without time zone")
    return moment
