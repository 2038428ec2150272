"""Who the node is: its key, and the certificate by which its organization says so."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import pki
from vantage.common.assertion import sign_assertion
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.node.config import IdentitySection

CREDENTIAL = "node-key-passphrase"
PASSPHRASE_VARIABLE = "VANTAGE_NODE_KEY_PASSPHRASE"  # noqa: S105  # a name


@dataclass(frozen=True)
class Identity:
    """A key and the certificate chain for it; only ``load`` builds it.

    Attributes:
        name: resource name of the node.
        organization: resource name of its organization.
        chain: certificates, the node's own first.
    """

    name: str
    organization: str
    chain: Sequence[x509.Certificate]
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def load(cls, section: IdentitySection, clock: Clock) -> Identity:
        """Read key and certificate and check that they belong together and to the configured name.

        Raises:
            VantageError: with what is wrong and which command mends it.
        """
        key = pki.read_key(section.key, read_passphrase(section))
        try:
            chain = pki.load_certificates(section.certificate.read_bytes())
        except OSError as problem:
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"cannot read the certificate {section.certificate}: {problem.strerror}: send the signing request next "
                "to it to the admin of your organization ('vantage node issue') and put the answer there",
                path=str(section.certificate),
            ) from problem
        leaf = chain[0]
        if _spki(leaf.public_key()) != _spki(key.public_key()):
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"the certificate {section.certificate} is for another key than {section.key}: ask for a new one with "
                "the signing request of this key",
                path=str(section.certificate),
            )
        uris = (
            leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
                x509.UniformResourceIdentifier
            )
            if any(extension.oid == x509.SubjectAlternativeName.oid for extension in leaf.extensions)
            else []
        )
        wanted = pki.URI_PREFIX + section.name
        if wanted not in uris:
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"the certificate {section.certificate} is for {', '.join(uris) or 'no vantage resource'}, the "
                f"configuration says {section.name}: correct identity.organization and identity.node, or ask for "
                "another certificate",
                path=str(section.certificate),
            )
        now = clock.now()
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise error(
                Reason.CERTIFICATE_INVALID,
                f"the certificate {section.certificate} is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} to "
                f"{leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: ask for a new one, or correct this machine's clock",
                path=str(section.certificate),
            )
        return cls(section.name, section.organization, tuple(chain), key)

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The private key, for signatures by the node."""
        return self._key

    def pair(self) -> tuple[bytes, bytes]:
        """Private key and certificate chain in PEM, for TLS; never to be written to a disk."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return key, "".join(map(pki.to_pem, self.chain)).encode()

    def assertion(self, audience: str, clock: Clock) -> str:
        """A fresh signed statement of who the node is, for one server."""
        return sign_assertion(self._key, self.chain, self.name, audience, clock)


def create(section: IdentitySection) -> Path:
    """Create a key (0600) and the signing request for it; returns the path of the request.

    Raises:
        ConflictError: the key exists: it is never overwritten.
    """
    key = pki.create_key()
    section.key.parent.mkdir(parents=True, exist_ok=True)
    pki.write_key(section.key, key, read_passphrase(section))
    request = section.certificate.with_suffix(".csr")
    request.write_bytes(pki.create_request(key, section.name).public_bytes(serialization.Encoding.PEM))
    return request


def read_passphrase(section: IdentitySection) -> bytes | None:
    """The passphrase of the node's key, if it has one.

    From the configured file, else from the systemd credential ``node-key-passphrase``, else from the environment.

    Raises:
        InvalidArgumentError: KEY_INVALID, the file cannot be read.
    """
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    path = section.passphrase_file
    if path is None and credentials and (Path(credentials) / CREDENTIAL).is_file():
        path = Path(credentials) / CREDENTIAL
    if path is None:
        given = os.environ.get(PASSPHRASE_VARIABLE)
        return given.encode() if given else None
    try:
        return path.read_bytes().rstrip(b"\r\n") or None
    except OSError as problem:
        raise error(
            Reason.KEY_INVALID, f"cannot read the passphrase of the node's key from {path}: {problem.strerror}"
        ) from problem


def _spki(key: object) -> bytes:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return b""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
