"""The server's own TLS certificate, for operators who have none yet."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vantage.common import pki

CERTIFICATE_FILE = "tls.crt"
KEY_FILE = "tls.key"
_LIFETIME = timedelta(days=3_650)


def create_certificate(data: Path, hosts: Iterable[str]) -> None:
    """Write a self-signed certificate for this machine and further host names or addresses, and its key."""
    key = pki.create_key()
    names: list[x509.GeneralName] = []
    for host in dict.fromkeys(("localhost", "127.0.0.1", "::1", socket.gethostname(), *hosts)):
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "vantage server")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pki.write_key(data / KEY_FILE, key)
    (data / CERTIFICATE_FILE).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def fingerprint(data: Path) -> str:
    """``sha256:`` fingerprint of the server's certificate."""
    return pki.fingerprint(x509.load_pem_x509_certificate((data / CERTIFICATE_FILE).read_bytes()))
