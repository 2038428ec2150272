"""The key that signs tokens for registries, and the certificate by which a registry knows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vantage.common import pki
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.pull_tokens import PullTokens

KEY_FILE = "registry.key"
CERTIFICATE_FILE = "registry.crt"
_LIFETIME = timedelta(days=3_650)


def pull_tokens(data: Path, clock: Clock) -> PullTokens:
    """The issuer of a data directory; its key and certificate are made when there are none.

    Raises:
        InvalidArgumentError: KEY_INVALID, CERTIFICATE_INVALID, a file is damaged.
        ConfigurationError: the two files do not belong together.
    """
    path = data / KEY_FILE
    if not path.exists():
        try:
            pki.write_key(path, pki.create_key())
        except VantageError as problem:
            if problem.reason is not Reason.ALREADY_EXISTS:  # made by another command in this moment
                raise
    key = pki.read_key(path)
    certificate = data / CERTIFICATE_FILE
    if not certificate.exists():
        partial = certificate.with_name(f"{CERTIFICATE_FILE}.partial")
        partial.write_text(pki.to_pem(_certify(key)))
        partial.replace(certificate)
    found = pki.load_certificates(certificate.read_text())[0]
    if found.public_key() != key.public_key():
        raise error(
            Reason.CONFIGURATION_INVALID,
            f"{certificate} is not that of {path}: remove both, start again, and give registries the new certificate",
        )
    return PullTokens(key, found, clock)


def _certify(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vantage server, tokens for registries")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
