"""Access tokens (JWT ES256, 15 minutes) and refresh tokens (random, only hashes kept)."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common.clock import Clock
from vantage.common.errors import Reason, error

ACCESS_LIFETIME = timedelta(minutes=15)
REFRESH_LIFETIME = timedelta(days=14)
MAX_TOKEN_LENGTH = 4_096
_CACHED = 10_000


@dataclass(frozen=True)
class Claims:
    """What a verified access token says; only ``AccessTokens.verify`` builds it.

    Attributes:
        subject: resource name of the principal.
        session_id: the log-in of a user; None for a node.
        expires: end of the token.
        certificate: serial number of the certificate that the principal authenticated with; empty without one.
    """

    subject: str
    session_id: str | None
    expires: datetime
    certificate: str = ""


class AccessTokens:
    """Issues and verifies access tokens with the server's own key.

    A signature costs 0.2 ms to check, which would be a third of a small call; what was checked once is remembered by
    the token's hash. Whether the session still exists is asked each time, elsewhere.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey, audience: str, clock: Clock) -> None:
        self._key = key
        self._public = key.public_key()
        self._audience = audience
        self._clock = clock
        self._verified: OrderedDict[bytes, Claims] = OrderedDict()

    def issue(self, subject: str, session_id: str | None, certificate: str = "") -> str:
        """A token for a principal; it works no longer than the certificate counts that it was given for."""
        now = self._clock.now()
        claims: dict[str, object] = {
            "sub": subject,
            "aud": self._audience,
            "iat": now,
            "exp": now + ACCESS_LIFETIME,
            "jti": secrets.token_hex(8),
        }
        if session_id is not None:
            claims["sid"] = session_id
        if certificate:
            claims["crt"] = certificate
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"typ": "at+jwt"})

    def verify(self, token: str) -> Claims:
        """Check a token.

        Raises:
            UnauthenticatedError: TOKEN_INVALID or TOKEN_EXPIRED.
        """
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        claims = self._verified.get(digest)
        if claims is None:
            claims = self._check(token)
            self._verified[digest] = claims
            if len(self._verified) > _CACHED:
                self._verified.popitem(last=False)
        if claims.expires <= self._clock.now():
            self._verified.pop(digest, None)
            raise error(Reason.TOKEN_EXPIRED, "the access token has expired: refresh it, or log in again")
        return claims

    def _check(self, token: str) -> Claims:
        invalid = error(Reason.TOKEN_INVALID, "the access token is not one of this server: log in again")
        if len(token) > MAX_TOKEN_LENGTH:
            raise invalid
        try:
            # Times are checked against the injected clock by the caller.
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["ES256"],
                audience=self._audience,
                options={"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False},
            )
            expires = datetime.fromtimestamp(claims["exp"], UTC)
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, OSError):
            raise invalid from None
        session = claims.get("sid")
        return Claims(
            str(claims["sub"]),
            session if isinstance(session, str) else None,
            expires,
            str(claims.get("crt", "")),
        )


def new_secret() -> str:
    """A random secret of 256 bits."""
    return secrets.token_urlsafe(32)


def secret_hash(secret: str) -> bytes:
    """Hash under which a random secret is kept: it has enough entropy to need no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
