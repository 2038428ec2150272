"""The signing keys of the identity provider: fetched when needed, remembered, never waited for without bound."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.web import is_web_address
from vantage.server.domain.identity_tokens import Header

log = logging.getLogger(__name__)

FRESH = timedelta(hours=1)
"""How long keys count before they are fetched again."""
STALE = timedelta(hours=24)
"""How long known keys still count when the provider cannot be reached."""
PAUSE = timedelta(seconds=30)
"""Least time between two fetches: whoever sends tokens with unknown key ids makes the server fetch no more often."""
TIMEOUT = 10.0
"""Seconds for the whole of a fetch, however slowly the provider sends."""
MAX_BYTES = 256 * 1024
MAX_KEYS = 50
_FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class ProviderKeys:
    """Finds the key that an ID token names, by discovery (OpenID Connect Discovery 1.0) and its JWK set (RFC 7517).

    A key that appears at the provider is found at once, because an unknown key id causes a fetch; one that disappears
    counts for at most an hour more.

    Args:
        issuer: identifier of the provider.
        authorities: PEM file with the certificate authorities of the provider; None for those of the system.
    """

    def __init__(self, issuer: str, authorities: Path | None, clock: Clock) -> None:
        self._issuer = issuer
        self._clock = clock
        try:
            context = ssl.create_default_context(cafile=authorities)
        except OSError as problem:
            raise error(
                Reason.CONFIGURATION_INVALID, f"identity_provider.ca: {authorities} cannot be read: {problem}"
            ) from problem
        # Redirects are not followed: where keys come from is for the configuration to say.
        self._client = httpx.AsyncClient(verify=context, timeout=TIMEOUT, follow_redirects=False)
        self._lock = asyncio.Lock()
        self._keys: Sequence[Mapping[str, Any]] = ()
        self._fetched: datetime | None = None
        self._tried: datetime | None = None

    async def find(self, header: Header) -> Mapping[str, Any]:
        """The key for a token's signature.

        Raises:
            UnauthenticatedError: IDENTITY_TOKEN_INVALID: the provider has no such key.
            UnavailableError: IDENTITY_PROVIDER_UNAVAILABLE.
        """
        found = self._match(header) if self._younger_than(self._fetched, FRESH) else None
        if found is not None:
            return found
        problem = await self._refresh()
        found = self._match(header) if self._younger_than(self._fetched, STALE) else None
        if found is not None:
            return found
        if problem is not None:
            raise problem
        raise error(
            Reason.IDENTITY_TOKEN_INVALID, "the ID token is not accepted: the provider has no key of that id and kind"
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _match(self, header: Header) -> Mapping[str, Any] | None:
        fitting = [
            each
            for each in self._keys
            if each.get("kty") == _FAMILIES[header.algorithm[:2]]
            and each.get("use", "sig") == "sig"
            and each.get("alg", header.algorithm) == header.algorithm
            and (header.key_id is None or each.get("kid") == header.key_id)
        ]
        # Without a key id there must be no choice (OpenID Connect Core 1.0, section 10.1).
        return fitting[0] if len(fitting) == 1 else None

    def _younger_than(self, moment: datetime | None, age: timedelta) -> bool:
        return moment is not None and self._clock.now() - moment < age

    async def _refresh(self) -> VantageError | None:
        before = self._tried
        async with self._lock:
            # Those who waited for somebody else's fetch take what it brought.
            if self._tried is not before or self._younger_than(self._tried, PAUSE):
                return None if self._younger_than(self._fetched, PAUSE) else _unavailable("it could not be reached")
            self._tried = self._clock.now()
            try:
                async with asyncio.timeout(TIMEOUT):
                    self._keys = await self._fetch()
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, RecursionError) as problem:
                log.warning(
                    "keys of the identity provider not fetched",
                    extra={"issuer": self._issuer, "cause": f"{type(problem).__name__}: {problem}"},
                )
                return _unavailable("it could not be reached or answers nonsense")
            self._fetched = self._clock.now()
            return None

    async def _fetch(self) -> Sequence[Mapping[str, Any]]:
        found = await self._get_json(self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self._issuer:
            raise ValueError("discovery names another issuer")
        address = found.get("jwks_uri")
        if not isinstance(address, str) or not is_web_address(address):
            raise ValueError("jwks_uri is no https address")
        keys = (await self._get_json(address)).get("keys")
        if not isinstance(keys, list):
            raise ValueError("the key set has no keys")
        return [each for each in keys[:MAX_KEYS] if isinstance(each, dict)]

    async def _get_json(self, address: str) -> dict[str, Any]:
        async with self._client.stream("GET", address, headers={"Accept": "application/json"}) as response:
            if response.status_code != 200:
                raise ValueError(f"status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise ValueError("the answer is too long")
        found = json.loads(body)
        if not isinstance(found, dict):
            raise ValueError("the answer is no object")
        return found


def _unavailable(why: str) -> VantageError:
    return error(
        Reason.IDENTITY_PROVIDER_UNAVAILABLE,
        f"the server lacks the keys of the identity provider to check the ID token: {why}; try again soon",
    )
