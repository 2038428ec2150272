"""Calls of the server: with a token, with errors as the one tree knows them, and again where that is safe."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from typing import TypeVar

import grpc

from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.client.connection import Stubs, Transport
from vantage.client.credentials import Credentials
from vantage.client.tokens import Tokens, TokenStore
from vantage.common.backoff import Backoff
from vantage.common.clock import Clock
from vantage.common.errors import Reason, UnauthenticatedError, UnavailableError, VantageError
from vantage.common.rpc import METADATA_RETRY, bearer, error_from_rpc

Request = TypeVar("Request")
Response = TypeVar("Response")

Metadata = tuple[tuple[str, str], ...]
UnaryMethod = Callable[[Stubs], "grpc.aio.UnaryUnaryMultiCallable[Request, Response]"]
StreamMethod = Callable[[Stubs], "grpc.aio.UnaryStreamMultiCallable[Request, Response]"]

CALL_TIMEOUT = 30.0
"""Seconds for a call that is not a stream."""
ATTEMPTS = 5
"""How often a call that may be repeated is made at most, while the server cannot be reached."""
UNCLEAR = frozenset({Reason.INTERNAL, Reason.CANCELLED})
"""What a connection that is cut in the middle of a message can look like, and a fault of the server as well."""


class Caller:
    """Makes calls for one user.

    Args:
        transport: carries them.
        store: where the tokens are.
        clock: the time.
    """

    def __init__(self, transport: Transport, store: TokenStore, clock: Clock) -> None:
        self.credentials = Credentials(store, self._renew, clock)
        self.clock = clock
        self._transport = transport
        self._stubs: Stubs | None = None

    async def close(self) -> None:
        """End all calls and the connection."""
        self._stubs = None
        await self._transport.close()

    async def stubs(self) -> Stubs:
        """The services."""
        if self._stubs is None:
            self._stubs = Stubs(await self._transport.channel())
        return self._stubs

    async def unary(
        self,
        method: UnaryMethod[Request, Response],
        request: Request,
        *,
        repeatable: bool = False,
        anonymous: bool = False,
        timeout: float = CALL_TIMEOUT,
    ) -> Response:
        """Make a call.

        Args:
            method: which one.
            request: its message.
            repeatable: whether it may be made again when the connection is lost: it only reads, or has a request id.
            anonymous: whether it needs no log-in.
            timeout: seconds for each attempt.

        Raises:
            VantageError: what the server said, or that it cannot be reached.
        """
        backoff = Backoff(cap=2.0)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._unary(method, request, anonymous, timeout)
            except UnavailableError:
                if not repeatable or attempt == ATTEMPTS:
                    raise
            await asyncio.sleep(backoff.next_delay())
        raise AssertionError("the last attempt returns or raises")

    async def _unary(
        self, method: UnaryMethod[Request, Response], request: Request, anonymous: bool, timeout: float
    ) -> Response:
        callable_ = method(await self.stubs())
        token = "" if anonymous else await self.credentials.access_token()
        for attempt in (1, 2):
            metadata = _metadata(token)
            try:
                return await callable_(request, metadata=metadata, timeout=timeout)
            except grpc.aio.AioRpcError as failure:
                problem = error_from_rpc(failure)
                if anonymous or attempt == 2 or not isinstance(problem, UnauthenticatedError):
                    raise problem from failure
            token = await self.credentials.refused(token, problem)
        raise AssertionError("the second attempt returns or raises")

    async def stream(self, method: StreamMethod[Request, Response], request: Request) -> AsyncGenerator[Response, None]:
        """Make a call that answers with a stream; renews the token when it is refused at the start. Closing ends it.

        Raises:
            VantageError: what the server said, or that the connection is lost.
        """
        callable_ = method(await self.stubs())
        token = await self.credentials.access_token()
        renewed = False
        while True:
            call = callable_(request, metadata=_metadata(token))
            begun = False
            try:
                async for response in call:
                    begun = True
                    yield response
                return
            except grpc.aio.AioRpcError as failure:
                problem = error_from_rpc(failure)
                if begun or renewed or not isinstance(problem, UnauthenticatedError):
                    raise problem from failure
            finally:
                call.cancel()
            token = await self.credentials.refused(token, problem)
            renewed = True

    async def metadata(self) -> tuple[str, Metadata]:
        """A token and the metadata that carries it, for calls that are made by hand."""
        token = await self.credentials.access_token()
        return token, _metadata(token)

    def tokens(self, user: str, pair: auth_pb.TokenPair) -> Tokens:
        """Tokens as received, with their ends counted from now on this machine's clock."""
        now = self.clock.now()
        return Tokens(
            user=user,
            access_token=pair.access_token,
            access_expires=now + pair.access_expires_in.ToTimedelta(),
            refresh_token=pair.refresh_token,
            refresh_expires=now + pair.refresh_expires_in.ToTimedelta(),
        )

    async def _renew(self, tokens: Tokens) -> Tokens:
        # The request id makes it safe to ask again after a lost answer: the token is used up, but not for this call.
        request_id = str(uuid.uuid4())
        answer = await self.unary(
            lambda stubs: stubs.auth.RefreshToken,
            auth_pb.RefreshTokenRequest(refresh_token=tokens.refresh_token, request_id=request_id),
            anonymous=True,
            repeatable=True,
        )
        return self.tokens(tokens.user, answer.tokens)


class Patience:
    """Decides after each failure of a stream whether and when to go on.

    Args:
        attempts: how often failures whose cause is not clear are borne in a row.
    """

    def __init__(self, attempts: int = ATTEMPTS) -> None:
        self._attempts = attempts
        self._backoff = Backoff(cap=10.0)
        self._unclear = 0

    def progressed(self) -> None:
        """Something arrived: the next failure is the first again."""
        self._backoff.reset()
        self._unclear = 0

    async def wait_or_raise(self, problem: VantageError) -> None:
        """Wait before the next attempt.

        Raises:
            VantageError: the problem, when another attempt cannot help.
        """
        if problem.reason in UNCLEAR:
            await self.wait_unclear(problem)
            return
        delay = self._backoff.next_delay()
        if problem.reason is Reason.RATE_LIMITED and METADATA_RETRY in problem.metadata:
            with suppress(ValueError):
                delay = max(delay, float(problem.metadata[METADATA_RETRY]))
        elif not isinstance(problem, UnavailableError):
            raise problem
        await asyncio.sleep(delay)

    async def wait_unclear(self, problem: VantageError) -> None:
        """Wait before the next attempt after a failure that another attempt may mend.

        Raises:
            VantageError: the problem, when it was met too often in a row.
        """
        if self._unclear >= self._attempts:
            raise problem
        self._unclear += 1
        await asyncio.sleep(self._backoff.next_delay())


def _metadata(token: str) -> Metadata:
    return (bearer(token),) if token else ()
