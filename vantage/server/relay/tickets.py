"""Tickets: what the broker gives to each side of a pair, and what a relay checks without asking anybody.

JWT ES256, one use, one minute, for one relay. The key is not that of the access tokens: a relay that is handed the
public half learns nothing about log-ins, and a ticket is never an access token.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error

LIFETIME = timedelta(seconds=60)
CLOCK_TOLERANCE = timedelta(minutes=15)
"""How far the clocks of relay and server may be apart."""
MAX_LENGTH = 4_096
MAX_REMEMBERED = 200_000
"""Tickets that a relay remembers as used: some 200 a second with the tolerance above."""
_AUDIENCE = "vantage-relay"
_TYPE = "relay-ticket+jwt"


class Side(Enum):
    """Who shows a ticket."""

    OPENS = "opens"
    ANSWERS = "answers"
    WATCHES = "watches"


@dataclass(frozen=True)
class Ticket:
    """A ticket whose every check passed; only ``TicketVerifier.admit`` builds it.

    Attributes:
        pair: which two belong together; new for each attempt.
        side: which of the two this is.
        job: ``tasks/{task}`` at the root.
        node: to whom it was issued.
    """

    pair: str
    side: Side
    job: str
    node: str


class TicketIssuer:
    """Signs tickets.

    Args:
        key: of the server, for tickets only.
        clock: the server's time.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, clock: Clock) -> None:
        self._key = key
        self._clock = clock
        self._kid = thumbprint(key.public_key())

    def issue(self, relay: str, pair: str, side: Side, job: str, node: str) -> str:
        """A ticket for one relay."""
        now = self._clock.now()
        claims = {
            "aud": _AUDIENCE,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": str(uuid.uuid4()),
            "sub": node,
            "relay": relay,
            "pair": pair,
            "side": side.value,
            "job": job,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"typ": _TYPE, "kid": self._kid})

    def watch(self, relay: str) -> str:
        """A ticket to watch the load of a relay."""
        return self.issue(relay, "", Side.WATCHES, "", "")

    def key_set(self) -> str:
        """The public half as a JSON Web Key Set (RFC 7517), for relays."""
        jwk = ECAlgorithm.to_jwk(self._key.public_key(), as_dict=True)
        return json.dumps({"keys": [{**jwk, "kid": self._kid, "use": "sig", "alg": "ES256"}]}, indent=2) + "\n"


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """Key id: the JWK thumbprint (RFC 7638)."""
    jwk = ECAlgorithm.to_jwk(key, as_dict=True)
    canonical = json.dumps({name: jwk[name] for name in ("crv", "kty", "x", "y")}, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_key_set(path: Path) -> dict[str, ec.EllipticCurvePublicKey]:
    """Public keys by id, from a JSON Web Key Set.

    Raises:
        ConfigurationError: not readable, or holds no P-256 key.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        found = [ECAlgorithm.from_jwk(each) for each in document["keys"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError) as problem:
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"{path} is not a JSON Web Key Set ({type(problem).__name__}): write it with 'vantage server relay-keys'",
        ) from problem
    keys = {thumbprint(key): key for key in found if isinstance(key, ec.EllipticCurvePublicKey)}
    if not keys:
        raise error(Reason.CONFIGURATION_INVALID, f"{path} holds no P-256 key")
    return keys


class _ServerTime:
    """What time it is at the server, as far as tickets tell.

    Each ticket was issued a moment before it was shown, so the latest issue time plus what has passed since is a lower
    bound of the server's time that does not depend on this machine's clock: expiry is kept to the second although the
    two clocks may be minutes apart. Before the first ticket only this machine's clock is known.
    """

    def __init__(self, clock: Clock, monotonic: Callable[[], float], tolerance: timedelta) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._tolerance = tolerance
        self._latest: datetime | None = None
        self._at = 0.0

    def now(self) -> datetime:
        """The least that it can be."""
        earliest = self._clock.now() - self._tolerance
        if self._latest is None:
            return earliest
        return max(earliest, self._latest + timedelta(seconds=self._monotonic() - self._at))

    def plausible(self, issued: datetime) -> bool:
        """Whether a ticket can have been issued by now."""
        return issued <= self._clock.now() + self._tolerance

    def observe(self, issued: datetime) -> None:
        """A genuine ticket was issued at this time."""
        if issued > self.now():
            self._latest, self._at = issued, self._monotonic()


class TicketVerifier:
    """Admits tickets, each once.

    Args:
        relay: name of the relay that asks.
        keys: public keys of the server by id.
        clock: this machine's time.
        tolerance: how far it may be from the server's.
        monotonic: seconds that only grow.
    """

    def __init__(
        self,
        relay: str,
        keys: Mapping[str, ec.EllipticCurvePublicKey],
        clock: Clock,
        *,
        tolerance: timedelta = CLOCK_TOLERANCE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._relay = relay
        self._keys = keys
        self._time = _ServerTime(clock, monotonic, tolerance)
        self._monotonic = monotonic
        # Until its signature is too old in any case: the clocks may be apart in either direction.
        self._remember = (LIFETIME + 2 * tolerance).total_seconds()
        self._used: dict[str, float] = {}

    def admit(self, text: str) -> Ticket:
        """Check a ticket and use it up.

        The checks, in order: (1) form and size, (2) an ES256 signature of the server, (3) audience, type and relay,
        (4) claims, (5) not expired, (6) not used before.

        Raises:
            UnauthenticatedError: RELAY_TICKET_INVALID or RELAY_TICKET_EXPIRED.
            LimitExceededError: RATE_LIMITED, more tickets than can be remembered.
        """
        # (1)
        if len(text) > MAX_LENGTH:
            raise _invalid("it is too long")
        try:
            header = jwt.get_unverified_header(text)
            key = self._keys.get(str(header.get("kid")))
            if key is None:
                raise _invalid("it is signed with a key that this relay does not know: give it the server's relay keys")
            # (2) and the audience of (3); the times are checked below.
            claims = jwt.decode(
                text,
                key,
                algorithms=["ES256"],
                audience=_AUDIENCE,
                options={
                    "require": ["iat", "exp", "jti", "relay", "pair", "side", "job", "sub"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
        except (jwt.PyJWTError, ValueError, TypeError):
            raise _invalid("it is not signed by the server") from None
        # (3)
        if header.get("typ") != _TYPE or claims["relay"] != self._relay:
            raise _invalid("it is for another relay")
        # (4)
        ticket, issued, expires = _read(claims)
        # (5)
        if not self._time.plausible(issued) or expires <= self._time.now():
            raise error(
                Reason.RELAY_TICKET_EXPIRED,
                "the ticket has expired, or the clocks of relay and server are more than 15 minutes apart",
            )
        self._time.observe(issued)
        # (6)
        self._use(str(claims["jti"]))
        return ticket

    def _use(self, jti: str) -> None:
        now = self._monotonic()
        while self._used and next(iter(self._used.values())) <= now:
            del self._used[next(iter(self._used))]
        if jti in self._used:
            raise _invalid("it was used before")
        if len(self._used) >= MAX_REMEMBERED:
            raise error(Reason.RATE_LIMITED, "too many connections are opened: try again", retry_after_seconds="5")
        self._used[jti] = now + self._remember


def _read(claims: Mapping[str, Any]) -> tuple[Ticket, datetime, datetime]:
    try:
        ticket = Ticket(str(claims["pair"]), Side(claims["side"]), str(claims["job"]), str(claims["sub"]))
        return ticket, datetime.fromtimestamp(claims["iat"], UTC), datetime.fromtimestamp(claims["exp"], UTC)
    except (ValueError, TypeError, OverflowError, OSError):
        raise _invalid("a claim is malformed") from None


def _invalid(why: str) -> VantageError:
    return error(Reason.RELAY_TICKET_INVALID, f"the relay does not take the ticket: {why}")
