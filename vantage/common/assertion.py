"""JWT assertions: how a node proves that it holds the key of its certificate (RFC 7523, RFC 7515 header ``x5c``)."""

from __future__ import annotations

import base64
import binascii
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import names, pki
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error

LIFETIME = timedelta(minutes=2)
MAX_LIFETIME = timedelta(minutes=5)
LEEWAY = timedelta(seconds=60)
"""How far the clocks of the two sides may differ."""
MAX_LENGTH = 16_384
"""Characters; a chain of four P-256 certificates needs about 5,000."""


@dataclass(frozen=True)
class Assertion:
    """An assertion whose every check passed; only ``verify_assertion`` builds it.

    Attributes:
        principal: resource name of the signer.
        organization: organization that certified it.
        jti: id of the assertion; the server accepts each once.
        expires: until when the id must be remembered.
        certificate: leaf certificate of the signer.
        authority: certificate of the authority that vouches for it.
    """

    principal: str
    organization: str
    jti: str
    expires: datetime
    certificate: x509.Certificate
    authority: x509.Certificate


def sign_assertion(
    key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate], principal: str, audience: str, clock: Clock
) -> str:
    """Sign an assertion that the holder of ``key`` is ``principal``.

    Args:
        key: private key of the leaf certificate.
        chain: leaf first; the organization's root may be left out.
        principal: resource name in the leaf certificate.
        audience: what the server calls itself (GetServerInfo).
        clock: source of the time.
    """
    now = clock.now()
    claims = {
        "iss": principal,
        "sub": principal,
        "aud": audience,
        "iat": now,
        "nbf": now,
        "exp": now + LIFETIME,
        "jti": str(uuid.uuid4()),
    }
    x5c = [base64.b64encode(each.public_bytes(serialization.Encoding.DER)).decode() for each in chain]
    return jwt.encode(claims, key, algorithm="ES256", headers={"x5c": x5c})


def verify_assertion(
    text: str, audience: str, roots_of: Callable[[str], Sequence[x509.Certificate]], clock: Clock
) -> Assertion:
    """Verify an assertion.

    The checks, in order: (1) form and size, (2) the certificate chain leads to an authority of the organization that
    the leaf's name belongs to, (3) the signature is ES256 with the leaf's key, (4) audience, (5) the times, with a
    message that names the clock, (6) issuer and subject are the name in the certificate. That the id is new is for the
    caller to check, who can remember it.

    Args:
        text: the JWT.
        audience: what the server calls itself.
        roots_of: authorities of an organization by resource name; empty when unknown.
        clock: source of the time.

    Raises:
        VantageError: ASSERTION_INVALID, CLOCK_SKEWED or CERTIFICATE_UNTRUSTED.
    """
    # (1)
    if len(text) > MAX_LENGTH:
        raise _invalid("it is too long")
    try:
        x5c = jwt.get_unverified_header(text).get("x5c")
        unverified = jwt.decode(text, options={"verify_signature": False})
        chain = [base64.b64decode(each, validate=True) for each in x5c] if isinstance(x5c, list) else []
    except (jwt.PyJWTError, binascii.Error, ValueError, TypeError):
        raise _invalid("it is not a JWT with an x5c header") from None
    subject = unverified.get("sub")
    if not isinstance(subject, str) or not chain:
        raise _invalid("subject or x5c header is missing")
    # (2) the subject only tells which authorities to load; (6) ties it to the certificate.
    organization = "/".join(subject.split("/")[:2])
    roots = roots_of(organization) if names.is_valid(organization, "organizations") else []
    now = clock.now()
    certified = pki.verify_chain(chain, roots, now)
    # (3) and (4); the times are checked below against the injected clock.
    try:
        public_key: object = certified.certificate.public_key()
    except pki.MALFORMED:
        public_key = None
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise _invalid("the certificate's key is not ECDSA P-256")
    try:
        claims = jwt.decode(
            text,
            public_key,
            algorithms=["ES256"],
            audience=audience,
            options={
                "require": ["iss", "sub", "aud", "iat", "exp", "jti"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
            },
        )
    except jwt.InvalidAudienceError:
        raise _invalid("it is meant for another server: compare the audience in the node's configuration") from None
    except jwt.InvalidSignatureError:
        raise _invalid("it is not signed with the key of its certificate") from None
    except (jwt.PyJWTError, ValueError, TypeError):
        raise _invalid("a required claim is missing or malformed") from None
    # (5)
    issued, expires = _time(claims["iat"]), _time(claims["exp"])
    if expires - issued > MAX_LIFETIME:
        raise _invalid("it is valid for more than five minutes")
    if issued > now + LEEWAY:
        raise _skewed(issued, now, "ahead of")
    if expires < now - LEEWAY:
        raise _skewed(issued, now, "behind")
    # (6)
    if claims["iss"] != certified.name or claims["sub"] != certified.name:
        raise _invalid(f"it speaks for {claims['sub']!r} but the certificate belongs to {certified.name!r}")
    jti = claims["jti"]
    if not isinstance(jti, str) or not 8 <= len(jti) <= 100:
        raise _invalid("jti must have 8 to 100 characters")
    return Assertion(
        certified.name, certified.organization, jti, expires + LEEWAY, certified.certificate, certified.authority
    )


def _time(value: object) -> datetime:
    # bool is an int; NaN and numbers beyond the calendar are a stranger's input, not a fault.
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _invalid("a time claim is not a number")
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        raise _invalid("a time claim is out of range") from None


def _invalid(why: str) -> VantageError:
    return error(Reason.ASSERTION_INVALID, f"the assertion is not accepted: {why}")


def _skewed(issued: datetime, now: datetime, direction: str) -> VantageError:
    seconds = abs((issued - now).total_seconds())
    return error(
        Reason.CLOCK_SKEWED,
        f"the node's clock is {seconds:.0f} s {direction} the server's: synchronise it "
        f"(the server says {now:%H:%M:%S} UTC)",
        seconds=f"{seconds:.0f}",
    )
