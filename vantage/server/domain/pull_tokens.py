"""Tokens with which a node may pull from one repository of a registry that trusts the server.

JWT as Docker registries take it (https://distribution.github.io/distribution/spec/auth/jwt/): ES256, with the
certificate in ``x5c``, the registry's name for itself as audience, and a list of what may be done.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from datetime import timedelta

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common.clock import Clock

LIFETIME = timedelta(minutes=5)


@dataclass(frozen=True)
class PullTokens:
    """Issues tokens. The key signs nothing else: a registry that trusts it learns nothing about log-ins.

    Attributes:
        key: the server's, for this alone.
        certificate: of that key; registries are given it.
        clock: the time.
    """

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    clock: Clock

    def issue(self, subject: str, issuer: str, service: str, repository: str) -> str:
        """A token to pull from one repository.

        Args:
            subject: who pulls, for the registry's log.
            issuer: what the registry knows the server as.
            service: what the registry calls itself.
            repository: path within the registry.
        """
        now = self.clock.now()
        claims = {
            "iss": issuer,
            "sub": subject,
            "aud": service,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
            "jti": secrets.token_hex(16),
            "access": [{"type": "repository", "name": repository, "actions": ["pull"]}],
        }
        chain = [base64.b64encode(self.certificate.public_bytes(serialization.Encoding.DER)).decode()]
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"x5c": chain})
