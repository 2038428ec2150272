"""Tickets: each admitted once, in time, at its relay, whatever the clocks say."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from vantage.common import pki
from vantage.common.clock import ManualClock
from vantage.common.errors import ConfigurationError, Reason, VantageError
from vantage.server.relay.tickets import LIFETIME, Side, TicketIssuer, TicketVerifier, read_key_set, thumbprint

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
KEY = pki.create_key()
KEYS = {thumbprint(KEY.public_key()): KEY.public_key()}
JOB = "tasks/0193b5a0-0000-7000-8000-000000000001"
NODE = "organizations/clara/nodes/clara-1"


class Time:
    """The server's clock, the relay's, and what passes for both."""

    def __init__(self, skew: timedelta = timedelta(0)) -> None:
        self.server = ManualClock(START)
        self.relay = ManualClock(START + skew)
        self.passed = 0.0

    def advance(self, seconds: float) -> None:
        self.server.advance(timedelta(seconds=seconds))
        self.relay.advance(timedelta(seconds=seconds))
        self.passed += seconds

    def verifier(self, relay: str = "relay-1") -> TicketVerifier:
        return TicketVerifier(relay, KEYS, self.relay, monotonic=lambda: self.passed)

    def ticket(self, relay: str = "relay-1") -> str:
        return TicketIssuer(KEY, self.server).issue(relay, "pair", Side.OPENS, JOB, NODE)


def reason_of(verifier: TicketVerifier, text: str) -> Reason:
    with pytest.raises(VantageError) as caught:
        verifier.admit(text)
    return caught.value.reason


def test_a_ticket_is_admitted_once() -> None:
    time = Time()
    verifier, text = time.verifier(), time.ticket()
    ticket = verifier.admit(text)
    assert (ticket.pair, ticket.side, ticket.job, ticket.node) == ("pair", Side.OPENS, JOB, NODE)
    for seconds in (0, 30, 29, 600, 900):
        time.advance(seconds)
        assert reason_of(verifier, text) in (Reason.RELAY_TICKET_INVALID, Reason.RELAY_TICKET_EXPIRED)


@pytest.mark.parametrize("skew", [timedelta(minutes=each) for each in (-14, -10, 0, 10, 14)])
def test_clocks_that_are_apart_neither_refuse_what_is_fresh_nor_admit_what_is_old(skew: timedelta) -> None:
    time = Time(skew)
    verifier = time.verifier()
    old = time.ticket()
    verifier.admit(time.ticket())
    time.advance(59)
    verifier.admit(time.ticket())
    also_old = time.ticket()
    time.advance(LIFETIME.total_seconds() - 59)
    # The first ticket told the time: expiry is kept to the second although this machine's clock is off.
    assert reason_of(verifier, old) is Reason.RELAY_TICKET_EXPIRED
    verifier.admit(also_old)
    verifier.admit(time.ticket())


@pytest.mark.parametrize("skew", [timedelta(minutes=-20), timedelta(minutes=20)])
def test_clocks_too_far_apart_are_named(skew: timedelta) -> None:
    time = Time(skew)
    assert reason_of(time.verifier(), time.ticket()) is Reason.RELAY_TICKET_EXPIRED


def test_another_relay_another_key_another_token_are_refused() -> None:
    time = Time()
    verifier = time.verifier()
    assert reason_of(verifier, time.ticket("relay-2")) is Reason.RELAY_TICKET_INVALID
    stranger = TicketIssuer(pki.create_key(), time.server).issue("relay-1", "pair", Side.OPENS, JOB, NODE)
    assert reason_of(verifier, stranger) is Reason.RELAY_TICKET_INVALID
    claims = jwt.decode(time.ticket(), options={"verify_signature": False})
    kid = thumbprint(KEY.public_key())
    access_token = jwt.encode(claims, KEY, algorithm="ES256", headers={"typ": "at+jwt", "kid": kid})
    assert reason_of(verifier, access_token) is Reason.RELAY_TICKET_INVALID
    unsigned = jwt.encode(claims, "", algorithm="none", headers={"typ": "relay-ticket+jwt", "kid": kid})
    assert reason_of(verifier, unsigned) is Reason.RELAY_TICKET_INVALID
    for name, value in (("iat", "soon"), ("exp", 1e30), ("side", "both"), ("aud", "vantage")):
        wrong = jwt.encode(
            {**claims, name: value}, KEY, algorithm="ES256", headers={"typ": "relay-ticket+jwt", "kid": kid}
        )
        assert reason_of(verifier, wrong) is Reason.RELAY_TICKET_INVALID
    for text in ("", "a.b.c", "x" * 5_000, time.ticket()[:-4]):
        assert reason_of(verifier, text) is Reason.RELAY_TICKET_INVALID


def test_the_key_set_has_the_public_half_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(TicketIssuer(KEY, ManualClock(START)).key_set())
    (key,) = json.loads(path.read_text())["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert {kid: each.public_numbers() for kid, each in read_key_set(path).items()} == {
        kid: each.public_numbers() for kid, each in KEYS.items()
    }
    for content in ("", "[]", "{}", '{"keys": []}', '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', '{"keys": [3]}'):
        path.write_text(content)
        with pytest.raises(ConfigurationError):
            read_key_set(path)
