"""Requests about one repository of a registry: authorized, tried again where that may help, never without an end."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import httpx

from vantage.common.backoff import Backoff
from vantage.common.errors import Reason, VantageError, error
from vantage.common.registry_auth import ChallengeError, Credentials

T = TypeVar("T")

ATTEMPTS = 3
"""How often a request that fails in passing is sent."""
PATIENCES = 4
"""How many times the patience of a connection the whole of a small answer may take, and a part of a large one."""
_MAX_PROBLEM = 8 * 1024


class PassingError(Exception):
    """A request failed in a way that another attempt may mend; the text says how. Never leaves ``Registry.retried``.

    Attributes:
        timed_out: the registry was silent: where nothing is gained by waiting again, it is not tried again.
    """

    def __init__(self, why: str, *, timed_out: bool = False) -> None:
        super().__init__(why)
        self.timed_out = timed_out


class RepositoryHttp:
    """The way to one repository.

    Args:
        client: for HTTP.
        base: address of the repository.
        credentials: answers the registry's challenges.
        name: ``host[:port]`` for messages.
        patience: seconds that it may be silent.

    Attributes:
        window: seconds in which a small answer must be there, and some of a large one.
    """

    def __init__(
        self, client: httpx.AsyncClient, base: str, credentials: Credentials, name: str, patience: float
    ) -> None:
        self._client = client
        self._base = base
        self._credentials = credentials
        self.name = name
        self._patience = patience
        self.window = PATIENCES * patience

    @asynccontextmanager
    async def exchange(
        self,
        method: str,
        path: str,
        *,
        headers: dict[str, str] | None = None,
        content: bytes | Callable[[], AsyncIterator[bytes]] | None = None,
        may_miss: bool = False,
        answer_seconds: float | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """One request, authorized; its answer is a success, and its body is not read yet.

        Credentials go to the registry alone, not to where it redirects to or wants uploads, and only it may ask for
        them.

        Args:
            method: of HTTP.
            path: within the repository, or a whole address.
            headers: further ones.
            content: body, or what makes it.
            may_miss: 404 is an answer as well.
            answer_seconds: how long the answer may take, where a registry has work to do; its patience unless given.

        Raises:
            PassingError: another attempt may help.
            UnavailableError: REGISTRY_UNAVAILABLE, none will.
        """
        # Never compressed for the way: digests are those of what is stored, and nothing unpacks beyond its size.
        timeout = httpx.Timeout(self._patience, read=answer_seconds or self._patience)
        given = {"accept-encoding": "identity", **(headers or {})}
        try:
            url = httpx.URL(path if "://" in path else f"{self._base}/{path}")
            for challenged in (False, True):
                body = content if content is None or isinstance(content, bytes) else content()
                sent = {**given, **self._credentials.headers} if self._is_own(url) else given
                async with self._client.stream(method, url, headers=sent, content=body, timeout=timeout) as response:
                    asked = response.status_code == httpx.codes.UNAUTHORIZED and self._is_own(response.url)
                    if asked and not challenged:
                        await self._credentials.answer(response)
                        continue
                    if not may_miss or response.status_code != httpx.codes.NOT_FOUND:
                        await self._check(response)
                    yield response
                    return
        except ChallengeError as problem:
            raise self.unavailable(str(problem)) from problem
        except httpx.TimeoutException as problem:
            raise PassingError("it does not answer in time", timed_out=True) from problem
        except httpx.TransportError as problem:
            raise PassingError(_cause(problem)) from problem
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamConsumed) as problem:
            raise self.unavailable(type(problem).__name__) from problem

    @asynccontextmanager
    async def prompt(self) -> AsyncIterator[None]:
        """A small answer is there soon, or it is given up, also when each of its bytes comes in time."""
        limit = asyncio.timeout(self.window)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise PassingError("it answers too slowly", timed_out=True) from None

    async def retried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Do something that may fail in passing.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE, it failed each time, or the registry was silent.
        """
        backoff = Backoff(base=0.2, cap=2.0)
        for number in range(1, ATTEMPTS + 1):
            try:
                return await attempt()
            except PassingError as problem:
                if problem.timed_out or number == ATTEMPTS:
                    raise self.unavailable(str(problem)) from problem
            await asyncio.sleep(backoff.next_delay())
        raise AssertionError("unreachable")

    def upload_location(self, begun: httpx.Response, digest: str) -> str:
        """Where the bytes of an upload go that a registry has agreed to.

        Raises:
            UnavailableError: REGISTRY_UNAVAILABLE, it did not say.
        """
        try:
            location = begun.url.join(begun.headers["location"])
            return str(location.copy_merge_params({"digest": digest}))
        except (KeyError, httpx.InvalidURL):
            raise self.unavailable("it does not say where uploads go") from None

    def _is_own(self, url: httpx.URL) -> bool:
        own = httpx.URL(self._base)
        return (url.scheme, url.host, url.port) == (own.scheme, own.host, own.port)

    async def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status < httpx.codes.BAD_REQUEST:
            return
        said = ""
        async for chunk in response.aiter_raw():
            said += chunk.decode(errors="replace")
            if len(said) > _MAX_PROBLEM:
                break
        said = _code(said)
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise self.unavailable(f"it does not accept the credentials for this ({status}{said})")
        if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise PassingError(f"it answered {status}{said}")
        raise self.unavailable(f"it answered {status}{said}")

    def unavailable(self, why: str) -> VantageError:
        """REGISTRY_UNAVAILABLE of this registry."""
        return error(Reason.REGISTRY_UNAVAILABLE, f"the registry {self.name} cannot be used: {why}", registry=self.name)


def _cause(problem: Exception) -> str:
    """What a person can do something with: a certificate that is not trusted has a cause of its own."""
    if "CERTIFICATE_VERIFY_FAILED" in str(problem):
        return "its certificate is not by an authority that is trusted here: name its authority with 'ca'"
    return type(problem).__name__


def _code(body: str) -> str:
    """The code of the first error that a registry names, in letters only."""
    try:
        code = json.loads(body)["errors"][0]["code"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""
    return f" {code}" if isinstance(code, str) and re.fullmatch(r"[A-Z_]{1,40}", code) else ""
