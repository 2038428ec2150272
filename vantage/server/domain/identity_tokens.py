"""ID tokens of an OpenID Connect provider, and the nonces that tie each to one log-in."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.secrets import Secrets

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""What can be allowed: signatures that only the provider can make. Never "none", never a shared secret."""
NONCE_LIFETIME = timedelta(minutes=15)
LEEWAY = timedelta(seconds=60)
MAX_LENGTH = 16_384
MAX_SUBJECT = 255


@dataclass(frozen=True)
class Expected:
    """What an ID token must say.

    Attributes:
        issuer: identifier of the provider.
        audiences: client ids that the token may be meant for.
        algorithms: of ``ALGORITHMS``, those that are allowed.
        nonce_required: whether a token without nonce is refused.
    """

    issuer: str
    audiences: tuple[str, ...]
    algorithms: tuple[str, ...]
    nonce_required: bool


@dataclass(frozen=True)
class Nonce:
    """A nonce that this server made and that has not expired; only ``Nonces.check`` builds it."""

    text: str
    begun: datetime
    expires: datetime

    @property
    def id(self) -> str:
        """Short id, to remember that it was used."""
        return hashlib.sha256(self.text.encode()).hexdigest()


class Nonces:
    """Makes and recognises nonces without keeping them: a stranger who asks for many fills nothing."""

    def __init__(self, key: Secrets) -> None:
        self._key = key

    def create(self, now: datetime) -> tuple[str, datetime]:
        """A new nonce and when it expires."""
        expires = datetime.fromtimestamp(int((now + NONCE_LIFETIME).timestamp()), UTC)
        stem = f"{int(expires.timestamp())}.{secrets.token_urlsafe(16)}"
        return f"{stem}.{self._key.derive('nonce', stem.encode())}", expires

    def check(self, text: str, now: datetime) -> Nonce:
        """Recognise a nonce.

        Raises:
            UnauthenticatedError: IDENTITY_TOKEN_INVALID.
        """
        stem, _, mac = text[:200].rpartition(".")
        made_here = self._key.derive("nonce", stem.encode())
        if not hmac.compare_digest(made_here.encode(), mac.encode()):
            raise _invalid("the nonce is not from GetLoginNonce of this server")
        expires = datetime.fromtimestamp(int(stem.partition(".")[0]), UTC)  # we wrote it, the mac says
        if expires <= now:
            raise _invalid("the log-in took too long: begin again")
        return Nonce(text, expires - NONCE_LIFETIME, expires)


@dataclass(frozen=True)
class IdentityToken:
    """An ID token whose every check passed; only ``verify`` builds it."""

    issuer: str
    subject: str
    expires: datetime
    id: str
    claims: Mapping[str, Any]


@dataclass(frozen=True)
class Header:
    """What an ID token says about its signature, before anything is checked."""

    algorithm: str
    key_id: str | None


def read_header(text: str, expected: Expected) -> Header:
    """Check form, size and algorithm of an ID token: steps (1) and (2) of ``verify``.

    Raises:
        UnauthenticatedError: IDENTITY_TOKEN_INVALID.
    """
    # (1)
    if len(text) > MAX_LENGTH:
        raise _invalid("it is too long")
    try:
        header = jwt.get_unverified_header(text)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        raise _invalid("it is not a JWT") from None
    # (2)
    algorithm, key_id = header.get("alg"), header.get("kid")
    if algorithm not in expected.algorithms:
        raise _invalid(f"it is signed with {str(algorithm)[:20]!r}, which is not allowed here")
    if key_id is not None and not isinstance(key_id, str):
        raise _invalid("its key id is malformed")
    return Header(algorithm, key_id)


def verify(text: str, key: Mapping[str, Any], expected: Expected, nonce: Nonce, now: datetime) -> IdentityToken:
    """Verify an ID token (OpenID Connect Core 1.0, section 3.1.3.7).

    The checks, in order: (1) form and size, (2) the algorithm is allowed, (3) the signature is by the provider's key,
    (4) issuer, (5) audience, and the authorized party when there are several or it is named, (6) the times: not
    expired, not from the future, not from before this log-in began, (7) the nonce, (8) the subject. That neither token
    nor nonce were used is for the caller to check, who can remember them.

    Args:
        text: the JWT.
        key: the JWK that its header names.
        expected: what it must say.
        nonce: of the log-in that it is for.
        now: moment of the check.

    Raises:
        UnauthenticatedError: IDENTITY_TOKEN_INVALID.
    """
    header = read_header(text, expected)  # (1), (2)
    # (3) to (5); the times are checked below against the injected clock.
    try:
        claims = jwt.decode(
            text,
            jwt.PyJWK(dict(key), header.algorithm),
            algorithms=[header.algorithm],
            issuer=expected.issuer,
            audience=expected.audiences,
            options={
                "require": ["iss", "sub", "aud", "exp", "iat"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except jwt.InvalidIssuerError:
        raise _invalid("it comes from another issuer") from None
    except jwt.InvalidAudienceError:
        raise _invalid("it is meant for another client") from None
    except jwt.InvalidSignatureError:
        raise _invalid("its signature is wrong") from None
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, RecursionError):
        raise _invalid("a required claim or its key is missing or malformed") from None
    party = claims.get("azp")
    several = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
    if (party is not None or several) and party not in expected.audiences:
        raise _invalid("it was issued to another client")
    # (6)
    expires, issued = _time(claims["exp"]), _time(claims["iat"])
    if expires <= now - LEEWAY:
        raise _invalid("it has expired: log in at the provider again")
    if issued > now + LEEWAY or ("nbf" in claims and _time(claims["nbf"]) > now + LEEWAY):
        raise _invalid(f"it is from the future: compare the provider's clock (the server says {now:%H:%M:%S} UTC)")
    if issued < nonce.begun - LEEWAY:
        raise _invalid("it is older than this log-in")
    # (7)
    said = claims.get("nonce")
    if said is None and expected.nonce_required:
        raise _invalid(
            "it carries no nonce: the client sends the one of GetLoginNonce to the provider; for one that leaves it "
            "out in the device flow the server's operator sets require_nonce: false"
        )
    if said is not None and not (isinstance(said, str) and hmac.compare_digest(said.encode(), nonce.text.encode())):
        raise _invalid("it was issued for another log-in")
    # (8)
    subject = claims["sub"]
    if not isinstance(subject, str) or not 1 <= len(subject) <= MAX_SUBJECT:
        raise _invalid(f"its subject must have 1 to {MAX_SUBJECT} characters")
    # Over what is signed: the signature itself can be written in many ways, and each would be a token of its own.
    digest = hashlib.sha256(text.rpartition(".")[0].encode("utf-8", "surrogatepass")).hexdigest()
    return IdentityToken(expected.issuer, subject, expires + LEEWAY, digest, claims)


def _time(value: object) -> datetime:
    # bool is an int; NaN and numbers beyond the calendar are a stranger's input, not a fault.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid("a time claim is not a number")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise _invalid("a time claim is out of range") from None


def _invalid(why: str) -> VantageError:
    return error(Reason.IDENTITY_TOKEN_INVALID, f"the ID token is not accepted: {why}")
