"""Access tokens that are always good: renewed once, by one task of one program at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

from vantage.client.tokens import Tokens, TokenStore
from vantage.common.clock import Clock
from vantage.common.errors import Reason, UnauthenticatedError, VantageError, error

_MARGIN = timedelta(seconds=20)
"""A token that ends sooner is renewed first, which saves a call that would be refused."""
_LOGIN = "log in again with 'vantage login' or client.auth.login()"

Renew = Callable[[Tokens], Awaitable[Tokens]]
"""Exchanges a refresh token for new tokens."""


class Credentials:
    """The tokens of a client.

    A refresh token works once, and using it again ends the session: so the exchange happens under the store's lock,
    which other programs with the same store respect, and whoever waited for the lock first looks whether the work is
    done already.

    Args:
        store: where the tokens are kept.
        renew: the exchange.
        clock: the time.
    """

    def __init__(self, store: TokenStore, renew: Renew, clock: Clock) -> None:
        self._store = store
        self._renew = renew
        self._clock = clock
        self._tokens: Tokens | None = None
        self._single = asyncio.Lock()

    async def user(self) -> str | None:
        """users/{user} who is logged in, as far as this side knows."""
        tokens = self._tokens or await self._store.load()
        return None if tokens is None else tokens.user

    async def access_token(self) -> str:
        """A token for the next call.

        Raises:
            UnauthenticatedError: nobody is logged in, or the log-in has ended.
            VantageError: the server cannot be asked for a new one.
        """
        tokens = self._tokens
        if tokens is None or self._ends(tokens):
            tokens = await self._replace(None if tokens is None else tokens.access_token)
        return tokens.access_token

    async def refused(self, token: str, problem: UnauthenticatedError) -> str:
        """The server refused a token: another one, if there is a way to it.

        Raises:
            UnauthenticatedError: there is none.
        """
        if problem.reason not in (Reason.TOKEN_EXPIRED, Reason.TOKEN_INVALID, Reason.UNAUTHENTICATED):
            raise problem
        tokens = await self._replace(token, None if problem.reason is Reason.TOKEN_EXPIRED else problem)
        return tokens.access_token

    async def replace(self, tokens: Tokens | None) -> None:
        """Keep the tokens of a new log-in, or forget those of one that ended."""
        async with self._single, self._store.lock():
            await self._store.save(tokens)
            self._tokens = tokens

    async def _replace(self, unwanted: str | None, problem: VantageError | None = None) -> Tokens:
        """Other tokens than the unwanted ones: those that somebody else put into the store meanwhile, or new ones.

        Args:
            unwanted: access token that is of no use.
            problem: why the server refused it, when new tokens of the same session would not help.
        """
        async with self._single:
            if self._tokens is not None and self._usable(self._tokens, unwanted):
                return self._tokens  # a task that waited here before did the work
            # Most often the store has what is wanted, and the lock is for those who change it.
            stored = await self._store.load()
            if stored is None or not self._usable(stored, unwanted):
                async with self._store.lock():
                    stored = await self._exchange(unwanted, problem)
            self._tokens = stored
            return stored

    async def _exchange(self, unwanted: str | None, problem: VantageError | None) -> Tokens:
        stored = await self._store.load()  # again: the one who held the lock may have done the work
        if stored is None:
            raise error(Reason.UNAUTHENTICATED, f"nobody is logged in: {_LOGIN.replace(' again', '')}")
        if self._usable(stored, unwanted):
            return stored
        if problem is not None:
            raise problem
        try:
            fresh = await self._renew(stored)
        except UnauthenticatedError as failure:
            # The session is over for everybody: a token that is kept would only be refused again.
            await self._store.save(None)
            self._tokens = None
            raise error(failure.reason, f"{failure.message.partition(':')[0]}: {_LOGIN}") from failure
        # Before its first use: the old refresh token is void already.
        await self._store.save(fresh)
        return fresh

    def _usable(self, tokens: Tokens, unwanted: str | None) -> bool:
        return tokens.access_token != unwanted and not self._ends(tokens)

    def _ends(self, tokens: Tokens) -> bool:
        return tokens.access_expires - self._clock.now() < _MARGIN
