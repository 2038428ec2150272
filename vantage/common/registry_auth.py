"""Credentials for registries: basic, or a bearer token as in Docker's registry token protocol.

Source of the protocol: https://distribution.github.io/distribution/spec/auth/token/. A registry answers 401 with
``WWW-Authenticate: Bearer realm=…,service=…,scope=…``; whoever asks exchanges credentials at the realm for a token, or
brings one that another token service, which the registry trusts, has issued.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vantage.common.web import is_web_address

MAX_ANSWER = 64 * 1024
"""What a token service may answer, in bytes."""

Tokens = Callable[[str, str], Awaitable[str]]
"""Gives a bearer token that may pull: for ``host[:port]`` of a registry and the path of a repository."""


@dataclass(frozen=True)
class RegistryAccess:
    """How a registry is reached.

    Attributes:
        username: for registries that ask for one.
        password: its password.
        insecure: plain HTTP; without it only for registries on loopback, as Docker does.
        ca: file with the authority of the registry's certificate, PEM; with it also a registry on loopback speaks TLS.
        tokens: gives bearer tokens, in place of those of the registry's own token service.
        mirror: ``HOST[:PORT][/PREFIX]`` that is asked in place of the registry. All else here is then about the mirror.
        archive: file of images that is read in place of the registry (``vantage.common.image_archive``).
        patience: seconds without a byte until a connection is given up.
    """

    username: str | None = None
    password: str | None = None
    insecure: bool = False
    ca: Path | None = None
    tokens: Tokens | None = None
    mirror: str | None = None
    archive: Path | None = None
    patience: float = 15.0


class ChallengeError(Exception):
    """A challenge cannot be met; the text says why."""


class Credentials:
    """Answers the challenges of one repository's registry.

    Args:
        client: for the token service.
        access: what there is to show.
        registry: ``host[:port]`` that challenges.
        path: of the repository.
    """

    def __init__(self, client: httpx.AsyncClient, access: RegistryAccess, registry: str, path: str) -> None:
        self._client = client
        self._access = access
        self._registry = registry
        self._path = path
        self._header = ""

    @property
    def headers(self) -> dict[str, str]:
        """To send with each request; nothing until the registry has asked for it."""
        return {"authorization": self._header} if self._header else {}

    async def answer(self, response: httpx.Response) -> None:
        """Meet a challenge: ``headers`` hold the answer afterwards.

        Raises:
            ChallengeError: it cannot be met.
            httpx.HTTPError, httpx.InvalidURL: the token service cannot be asked.
            VantageError: of ``RegistryAccess.tokens``.
        """
        access = self._access
        challenges = dict(map(_parse, response.headers.get_list("www-authenticate")))
        if (bearer := challenges.get("bearer")) is not None:
            if access.tokens is not None:
                token = await access.tokens(self._registry, self._path)
            else:
                token = await self._exchange(bearer)
            self._header = f"Bearer {token}"
        elif "basic" in challenges and (basic := self._basic()) is not None:
            request = httpx.Request("GET", response.request.url)
            self._header = next(basic.auth_flow(request)).headers["authorization"]
        else:
            raise ChallengeError("it asks for credentials: add them under 'registries'")

    def _basic(self) -> httpx.BasicAuth | None:
        access = self._access
        return None if access.username is None else httpx.BasicAuth(access.username, access.password or "")

    async def _exchange(self, fields: dict[str, str]) -> str:
        """Exchange credentials, or nothing for what is public, for a token."""
        realm = fields.get("realm", "")
        if not is_web_address(realm) and not (self._access.insecure and realm.startswith("http://")):
            raise ChallengeError("its token service has no https address")
        query: dict[str, str] = {key: fields[key] for key in ("service", "scope") if key in fields}
        async with self._client.stream("GET", realm, params=query, auth=self._basic()) as answer:
            if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
                raise ChallengeError("its token service does not accept the credentials: correct them")
            if answer.is_error:
                raise ChallengeError(f"its token service answered {answer.status_code}")
            content = b""
            async for chunk in answer.aiter_raw():
                content += chunk
                if len(content) > MAX_ANSWER:
                    raise ChallengeError("its token service answers too much")
        token = _token(content)
        if token is None:
            raise ChallengeError("its token service answers something else than a token")
        return token


def _parse(challenge: str) -> tuple[str, dict[str, str]]:
    scheme, _, rest = challenge.partition(" ")
    return scheme.lower(), dict(re.findall(r'(\w+)="([^"]*)"', rest))


def _token(content: bytes) -> str | None:
    try:
        document: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    token = document.get("token") or document.get("access_token")
    # What goes into a header must be no more than a token (RFC 6750).
    return token if isinstance(token, str) and re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token) else None
