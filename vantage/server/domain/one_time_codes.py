"""One-time codes (TOTP, RFC 6238) and the recovery codes that replace them."""

from __future__ import annotations

import hmac
import re
import secrets
from base64 import b32encode
from datetime import datetime

import pyotp

from vantage.server.domain.tokens import secret_hash

PERIOD = 30
"""Seconds that a code counts."""
_WINDOW = 1
"""Steps before and after the present one that are accepted, for clocks that differ and people who type slowly."""
RECOVERY_CODES = 10
MAX_LENGTH = 64
_RECOVERY = re.compile(r"[A-Z2-7]{16}")


def new_totp_secret() -> str:
    """A secret of 160 bits in base32, as RFC 4226 recommends."""
    return b32encode(secrets.token_bytes(20)).decode()


def enrolment_uri(secret: str, username: str, server: str) -> str:
    """The ``otpauth://`` URI that apps read as a QR code."""
    return pyotp.TOTP(secret, interval=PERIOD).provisioning_uri(name=username, issuer_name=server)


def accepted_step(secret: str, code: str, now: datetime, last_step: int) -> int | None:
    """The time step whose code this is, or None.

    A step that was used, or lies before one that was, is not accepted again: whoever looks over a shoulder has nothing.
    """
    if not (len(code) == 6 and code.isascii() and code.isdigit()):
        return None
    present = int(now.timestamp()) // PERIOD
    totp = pyotp.TOTP(secret, interval=PERIOD)
    found = None
    for step in range(present - _WINDOW, present + _WINDOW + 1):
        # No early end: the time must not tell how close a guess was.
        if hmac.compare_digest(totp.generate_otp(step), code) and step > last_step:
            found = step
    return found


def new_recovery_codes() -> list[str]:
    """Codes of 80 bits, grouped for people."""
    return [_grouped(b32encode(secrets.token_bytes(10)).decode()) for _ in range(RECOVERY_CODES)]


def recovery_hash(code: str) -> bytes | None:
    """Hash under which a recovery code is kept; None when the text is no recovery code.

    80 random bits need no slow hash.
    """
    plain = re.sub(r"[\s-]", "", code[:MAX_LENGTH]).upper()
    return secret_hash(plain) if _RECOVERY.fullmatch(plain) else None


def tidy(code: str) -> str:
    """A one-time code as people type it, without the spaces that apps show."""
    return code[:MAX_LENGTH].replace(" ", "")


def _grouped(text: str) -> str:
    return "-".join(text[start : start + 4] for start in range(0, len(text), 4)).lower()
