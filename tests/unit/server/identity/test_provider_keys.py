"""Keys of a provider over real HTTP on loopback: rotation, bounds, outages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common.clock import ManualClock
from vantage.common.errors import Reason, VantageError
from vantage.server.domain.identity_tokens import Header
from vantage.server.services import provider_keys
from vantage.server.services.provider_keys import MAX_BYTES, ProviderKeys

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


def jwk(kid: str, **more: Any) -> dict[str, Any]:
    public = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(public)), "kid": kid, **more}


class Provider:
    """Serves a discovery document and a key set, and counts."""

    def __init__(self) -> None:
        self.keys: list[Any] = [jwk("one")]
        self.fetches = 0
        self.discovery: dict[str, Any] = {}
        self.body: bytes | None = None
        self.silent = False
        self.issuer = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            path = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            if self.silent:
                await reader.read()  # until the other side gives up
                return
            if path == b"/jwks":
                self.fetches += 1
                body = self.body if self.body is not None else json.dumps({"keys": self.keys}).encode()
            else:
                found = {"issuer": self.issuer, "jwks_uri": f"{self.issuer}/jwks", **self.discovery}
                body = json.dumps(found).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            await writer.drain()
        except OSError:
            pass  # the other side has read enough
        finally:
            writer.close()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    async with await asyncio.start_server(made.answer, "127.0.0.1", 0) as server:
        made.issuer = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield made


@pytest.fixture
async def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
async def keys(provider: Provider, clock: ManualClock) -> AsyncIterator[ProviderKeys]:
    made = ProviderKeys(provider.issuer, None, clock)
    yield made
    await made.close()


async def reason(keys: ProviderKeys, kid: str | None) -> Reason:
    with pytest.raises(VantageError) as caught:
        await keys.find(Header("ES256", kid))
    return caught.value.reason


async def test_one_fetch_serves_all(provider: Provider, keys: ProviderKeys) -> None:
    found = await asyncio.gather(*(keys.find(Header("ES256", "one")) for _ in range(20)))
    assert {each["kid"] for each in found} == {"one"}
    assert provider.fetches == 1


async def test_a_new_key_is_found_at_once_and_an_old_one_forgotten_in_time(
    provider: Provider, keys: ProviderKeys, clock: ManualClock
) -> None:
    await keys.find(Header("ES256", "one"))
    clock.advance(timedelta(seconds=31))
    provider.keys = [jwk("two")]
    assert (await keys.find(Header("ES256", "two")))["kid"] == "two"
    assert await reason(keys, "one") is Reason.IDENTITY_TOKEN_INVALID
    assert provider.fetches == 2
    clock.advance(timedelta(hours=1))
    await keys.find(Header("ES256", "two"))
    assert provider.fetches == 3


async def test_unknown_key_ids_do_not_make_the_server_fetch_again_and_again(
    provider: Provider, keys: ProviderKeys
) -> None:
    for number in range(20):
        assert await reason(keys, f"unknown-{number}") is Reason.IDENTITY_TOKEN_INVALID
    assert provider.fetches == 1


async def test_without_key_id_there_must_be_no_choice(
    provider: Provider, keys: ProviderKeys, clock: ManualClock
) -> None:
    assert (await keys.find(Header("ES256", None)))["kid"] == "one"
    provider.keys = [jwk("one"), jwk("two")]
    clock.advance(timedelta(hours=1))
    assert await reason(keys, None) is Reason.IDENTITY_TOKEN_INVALID


async def test_keys_for_other_uses_are_passed_over(provider: Provider, keys: ProviderKeys) -> None:
    provider.keys = [jwk("one", use="enc"), jwk("one", alg="ES384"), "no key", 7]
    assert await reason(keys, "one") is Reason.IDENTITY_TOKEN_INVALID


@pytest.mark.parametrize(
    "discovery", [{"issuer": "https://other.example"}, {"jwks_uri": "http://other.example/jwks"}, {"jwks_uri": None}]
)
async def test_keys_come_from_the_issuer_only(
    provider: Provider, keys: ProviderKeys, discovery: dict[str, Any]
) -> None:
    provider.discovery = discovery
    assert await reason(keys, "one") is Reason.IDENTITY_PROVIDER_UNAVAILABLE
    assert provider.fetches == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff\xfe", b'{"keys": 7}', b"[" * 100_000, b" " * MAX_BYTES * 4])
async def test_nonsense_is_an_outage(provider: Provider, keys: ProviderKeys, body: bytes) -> None:
    provider.body = body
    assert await reason(keys, "one") is Reason.IDENTITY_PROVIDER_UNAVAILABLE


async def test_a_silent_provider_holds_nobody_for_long_and_others_not_at_all(
    provider: Provider, keys: ProviderKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_keys, "TIMEOUT", 0.2)
    provider.silent = True
    async with asyncio.timeout(30):
        assert await reason(keys, "one") is Reason.IDENTITY_PROVIDER_UNAVAILABLE
        provider.silent = False
        # Not asked again at once: who comes now is answered without waiting.
        assert await reason(keys, "one") is Reason.IDENTITY_PROVIDER_UNAVAILABLE
    assert provider.fetches == 0


async def test_known_keys_outlive_an_outage_for_a_day(
    provider: Provider, keys: ProviderKeys, clock: ManualClock
) -> None:
    await keys.find(Header("ES256", "one"))
    provider.body = b""
    clock.advance(timedelta(hours=23))
    assert (await keys.find(Header("ES256", "one")))["kid"] == "one"
    clock.advance(timedelta(hours=1))
    assert await reason(keys, "one") is Reason.IDENTITY_PROVIDER_UNAVAILABLE
