from __future__ import annotations

import base64
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from vantage.common import pki
from vantage.common.assertion import sign_assertion, verify_assertion
from vantage.common.clock import ManualClock
from vantage.common.errors import Reason, VantageError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NODE = "organizations/clara/nodes/clara-1"
AUDIENCE = "server-1"


class Party:
    def __init__(self, directory: Path) -> None:
        self.authority = pki.CertificateAuthority.create(directory, "organizations/clara", clock=ManualClock(NOW))
        self.key = pki.create_key()
        self.leaf = self.authority.issue(NODE, self.key.public_key())

    def roots(self, organization: str) -> Sequence[x509.Certificate]:
        return [self.authority.certificate] if organization == "organizations/clara" else []

    def forge(self, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        seconds = int(NOW.timestamp())
        body = {
            "iss": NODE,
            "sub": NODE,
            "aud": AUDIENCE,
            "iat": seconds,
            "exp": seconds + 60,
            "jti": "0123456789",
        } | claims
        x5c = [base64.b64encode(self.leaf.public_bytes(Encoding.DER)).decode()]
        return jwt.encode(body, self.key, algorithm="ES256", headers={"x5c": x5c} | (headers or {}))


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Party:
    return Party(tmp_path_factory.mktemp("ca"))


def refused(party: Party, text: str, at: datetime = NOW) -> VantageError:
    with pytest.raises(VantageError) as caught:
        verify_assertion(text, AUDIENCE, party.roots, ManualClock(at))
    return caught.value


def test_what_a_node_signs_is_accepted(party: Party) -> None:
    text = sign_assertion(party.key, [party.leaf], NODE, AUDIENCE, ManualClock(NOW))
    assertion = verify_assertion(text, AUDIENCE, party.roots, ManualClock(NOW + timedelta(seconds=5)))
    assert assertion.principal == NODE
    assert assertion.organization == "organizations/clara"
    assert assertion.expires > NOW


def test_another_audience(party: Party) -> None:
    text = sign_assertion(party.key, [party.leaf], NODE, "server-2", ManualClock(NOW))
    problem = refused(party, text)
    assert problem.reason is Reason.ASSERTION_INVALID
    assert "another server" in problem.message


def test_another_key(party: Party) -> None:
    text = sign_assertion(pki.create_key(), [party.leaf], NODE, AUDIENCE, ManualClock(NOW))
    assert "key of its certificate" in refused(party, text).message


def test_another_name_than_the_certificate(party: Party) -> None:
    other = "organizations/clara/nodes/clara-2"
    text = sign_assertion(party.key, [party.leaf], other, AUDIENCE, ManualClock(NOW))
    assert refused(party, text).reason is Reason.ASSERTION_INVALID


def test_an_unknown_organization(party: Party) -> None:
    with pytest.raises(VantageError) as caught:
        verify_assertion(party.forge(), AUDIENCE, lambda _: [], ManualClock(NOW))
    assert caught.value.reason is Reason.CERTIFICATE_UNTRUSTED


@pytest.mark.parametrize("minutes", [-30, 30])
def test_a_skewed_clock_is_named(party: Party, minutes: int) -> None:
    text = sign_assertion(party.key, [party.leaf], NODE, AUDIENCE, ManualClock(NOW + timedelta(minutes=minutes)))
    problem = refused(party, text)
    assert problem.reason is Reason.CLOCK_SKEWED
    assert "clock" in problem.message


def test_symmetric_algorithms_are_refused(party: Party) -> None:
    x5c = [base64.b64encode(party.leaf.public_bytes(Encoding.DER)).decode()]
    claims = {"iss": NODE, "sub": NODE, "aud": AUDIENCE, "iat": 1, "exp": 2, "jti": "0123456789"}
    for algorithm, key in (("HS256", "k" * 32), ("none", "")):
        text = jwt.encode(claims, key, algorithm=algorithm, headers={"x5c": x5c})
        assert refused(party, text).reason is Reason.ASSERTION_INVALID


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(NOW.timestamp()) + 3600},
        {"iat": "soon"},
        {"iat": True},
        {"iat": 1e300},
        {"exp": float("nan")},
        {"jti": "short"},
        {"jti": 5},
        {"sub": ["x"]},
        {"iss": "organizations/hilda/nodes/h-1"},
    ],
)
def test_odd_claims_are_refused(party: Party, claims: dict[str, Any]) -> None:
    try:
        text = party.forge(**claims)
    except TypeError:
        pytest.fail("the test must be able to sign what it forges")
    assert refused(party, text).reason in {Reason.ASSERTION_INVALID, Reason.CERTIFICATE_UNTRUSTED}


@pytest.mark.parametrize("x5c", [None, [], "x", ["!!"], [1], ["AAAA"], ["AAAA"] * 9])
def test_odd_headers_are_refused(party: Party, x5c: Any) -> None:
    text = party.forge(headers={"x5c": x5c})
    assert refused(party, text).reason in {Reason.ASSERTION_INVALID, Reason.CERTIFICATE_UNTRUSTED}


@given(st.text(max_size=200) | st.from_regex(r"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}"))
def test_any_text_is_refused_with_a_reason(text: str) -> None:
    with pytest.raises(VantageError) as caught:
        verify_assertion(text, AUDIENCE, lambda _: [], ManualClock(NOW))
    assert caught.value.reason is Reason.ASSERTION_INVALID
