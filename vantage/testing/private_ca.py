"""A private authority and a certificate of it for loopback, for services under test that speak TLS."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from vantage.common import pki


@dataclass(frozen=True)
class TlsFiles:
    """Where they are, in PEM."""

    ca: Path
    certificate: Path
    key: Path


def create_tls(directory: Path) -> TlsFiles:
    """Make an authority, whose key is forgotten, and a certificate for 127.0.0.1 and localhost."""
    files = TlsFiles(directory / "ca.pem", directory / "tls.pem", directory / "tls-key.pem")
    authority_key, key, now = pki.create_key(), pki.create_key(), datetime.now(UTC)
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "private authority")])
    builder = (
        x509.CertificateBuilder()
        .issuer_name(authority)
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
    )
    ca = (
        builder.subject_name(authority)
        .public_key(authority_key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(authority_key, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    leaf = (
        builder.subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .add_extension(names, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    files.ca.write_text(pki.to_pem(ca))
    files.certificate.write_text(pki.to_pem(leaf))
    pki.write_key(files.key, key)
    return files
