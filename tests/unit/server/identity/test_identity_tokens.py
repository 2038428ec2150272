"""ID tokens and nonces: each check refuses alone, and nothing but our error comes out."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from vantage.common.errors import Reason, VantageError
from vantage.server.domain.identity_tokens import Expected, Nonce, Nonces, read_header, verify
from vantage.server.domain.secrets import Secrets

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
EXPECTED = Expected("https://login.example", ("vantage", "vantage-web"), ("ES256", "RS256"), True)
KEY = ec.generate_private_key(ec.SECP256R1())
JWK = {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEY.public_key())), "kid": "one"}
NONCES = Nonces(Secrets(bytes(32)))
NONCE = NONCES.check(NONCES.create(NOW)[0], NOW)


def token(key: Any = KEY, algorithm: str = "ES256", **changed: Any) -> str:
    claims = {
        "iss": EXPECTED.issuer,
        "sub": "rosa",
        "aud": "vantage",
        "iat": NOW,
        "exp": NOW + timedelta(minutes=5),
        "nonce": NONCE.text,
        **changed,
    }
    return jwt.encode({name: value for name, value in claims.items() if value is not None}, key, algorithm)


def refused(text: str, match: str, *, jwk: dict[str, Any] = JWK, expected: Expected = EXPECTED) -> None:
    with pytest.raises(VantageError, match=match) as caught:
        verify(text, jwk, expected, NONCE, NOW)
    assert caught.value.reason is Reason.IDENTITY_TOKEN_INVALID


def test_a_good_token_is_accepted() -> None:
    for audience, party in (("vantage", None), (["vantage"], None), (["other", "vantage"], "vantage-web")):
        found = verify(token(aud=audience, azp=party), JWK, EXPECTED, NONCE, NOW)
        assert (found.issuer, found.subject) == (EXPECTED.issuer, "rosa")


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"iss": "https://login.example/"}, "another issuer"),
        ({"iss": None}, "missing or malformed"),
        ({"aud": "other"}, "another client"),
        ({"aud": ["other", "vantage"]}, "another client"),
        ({"azp": "other"}, "another client"),
        ({"exp": NOW - timedelta(seconds=61)}, "expired"),
        ({"iat": NOW + timedelta(seconds=61)}, "future"),
        ({"nbf": NOW + timedelta(seconds=61)}, "future"),
        ({"iat": NOW - timedelta(seconds=61)}, "older than this log-in"),
        ({"iat": None}, "missing or malformed"),
        ({"iat": True}, "not a number"),
        ({"exp": 1e300}, "out of range"),
        ({"nonce": None}, "carries no nonce"),
        ({"nonce": "other"}, "another log-in"),
        ({"nonce": 7}, "another log-in"),
        ({"sub": ""}, "subject"),
        ({"sub": "x" * 256}, "subject"),
    ],
)
def test_each_check_refuses(changed: dict[str, Any], match: str) -> None:
    refused(token(**changed), match)


def test_only_the_providers_signature_counts() -> None:
    refused(token(ec.generate_private_key(ec.SECP256R1())), "signature is wrong")
    refused(token(b"x" * 32, "HS256"), "not allowed")
    refused(token(None, "none"), "not allowed")
    refused(token(rsa.generate_private_key(65537, 2048), "RS256"), "key is missing or malformed")
    refused("x" * 20_000, "too long")


def test_the_public_key_is_no_shared_secret() -> None:
    """The classic confusion: HS256 with the public key as secret."""
    confused = Expected(EXPECTED.issuer, EXPECTED.audiences, ("HS256", "ES256"), True)
    encode = jwt.utils.base64url_encode
    signed = encode(b'{"alg": "HS256"}') + b"." + token().split(".")[1].encode()
    mac = hmac.new(json.dumps(JWK).encode(), signed, hashlib.sha256).digest()
    refused((signed + b"." + encode(mac)).decode(), "malformed", expected=confused)


def test_a_nonce_is_ours_whole_and_young() -> None:
    text, expires = NONCES.create(NOW)
    assert NONCES.check(text, expires - timedelta(seconds=1)).begun == expires - timedelta(minutes=15)
    later = f"{int(expires.timestamp()) + 999}.{text.partition('.')[2]}"
    for wrong, at in ((text, expires), (text[:-1], NOW), (later, NOW), ("", NOW), ("..", NOW), ("é.é", NOW)):
        with pytest.raises(VantageError) as caught:
            NONCES.check(wrong, at)
        assert caught.value.reason is Reason.IDENTITY_TOKEN_INVALID
    with pytest.raises(VantageError):
        Nonces(Secrets(bytes([1]) * 32)).check(text, NOW)


def _reason(call: Callable[[], object]) -> Reason | None:
    try:
        call()
    except VantageError as problem:
        return problem.reason
    return None


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_=-]{0,60}\.[A-Za-z0-9_=-]{0,60}\.[A-Za-z0-9_=-]{0,60}"))
def test_any_text_is_refused_and_nothing_worse(text: str) -> None:
    with pytest.raises(VantageError):
        verify(text, JWK, EXPECTED, NONCE, NOW)
    with pytest.raises(VantageError):
        NONCES.check(text, NOW)


@given(st.dictionaries(st.sampled_from(["iss", "sub", "aud", "azp", "iat", "exp", "nbf", "nonce", "jti"]), _json))
def test_any_signed_claims_are_refused_or_accepted_and_nothing_worse(claims: dict[str, Any]) -> None:
    head = jwt.utils.base64url_encode(json.dumps({"alg": "ES256", "kid": "one"}).encode())
    good = jwt.decode(token(), options={"verify_signature": False})
    body = jwt.utils.base64url_encode(json.dumps({**good, **claims}).encode())
    signed = head + b"." + body
    signature = jwt.algorithms.ECAlgorithm(jwt.algorithms.ECAlgorithm.SHA256).sign(signed, KEY)
    text = (signed + b"." + jwt.utils.base64url_encode(signature)).decode()
    assert _reason(lambda: verify(text, JWK, EXPECTED, NONCE, NOW)) in (None, Reason.IDENTITY_TOKEN_INVALID)


@given(st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "n", "e", "alg", "use", "kid"]), _json))
def test_any_key_is_refused_and_nothing_worse(key: dict[str, Any]) -> None:
    with pytest.raises(VantageError):
        verify(token(), key, EXPECTED, NONCE, NOW)


@given(_json)
def test_any_header_is_read_or_refused(header: Any) -> None:
    text = jwt.utils.base64url_encode(json.dumps(header).encode()).decode() + ".e30.AA"
    assert _reason(lambda: read_header(text, EXPECTED)) in (None, Reason.IDENTITY_TOKEN_INVALID)


def test_only_verified_nonces_are_built() -> None:
    assert isinstance(NONCE, Nonce)


def test_a_token_has_one_id_however_its_signature_is_written() -> None:
    """Otherwise each spelling would be a token that was not used yet."""
    text = token()
    last = text[-1]
    spelled = [text + "*", text + "==", text[:-1] + next(each for each in "AQgw" if each != last)]
    found = {verify(text, JWK, EXPECTED, NONCE, NOW).id}
    accepted = 0
    for each in spelled:
        try:
            found.add(verify(each, JWK, EXPECTED, NONCE, NOW).id)
        except VantageError:
            continue
        accepted += 1
    assert accepted
    assert len(found) == 1
