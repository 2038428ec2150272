"""Who signs and opens the vectors: keys and certificates that anybody may have, for tests only."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import pki, sealing
from vantage.common.clock import ManualClock
from vantage.testing.signers import NOW

ALICE = "organizations/dora/users/alice"
BOB = "organizations/dora/users/bob"
NODE = "organizations/clara/nodes/clara-1"
OTHER_NODE = "organizations/clara/nodes/clara-2"
STRANGER = "organizations/mallory/users/mallory"
TRUSTED = ("organizations/dora", "organizations/clara")
IDENTITIES = ("researcher", "recovery", "somebody-else")


@dataclass(frozen=True)
class Holder:
    """A key and the certificate chain for it."""

    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]


class Cast:
    """The keys of tests/vectors/keys.json."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.holders = {name: _holder(entry) for name, entry in document["holders"].items()}
        self.identities: dict[str, str] = {name: entry["secret"] for name, entry in document["identities"].items()}
        self.recipients = {name: sealing.recipient_of(secret) for name, secret in self.identities.items()}
        self._roots = [pki.load_certificates(document["authorities"][name])[0] for name in TRUSTED]

    def certify(self, chain: Sequence[bytes], at: datetime) -> pki.CertifiedName:
        """See ``dsse.Certify``."""
        return pki.verify_chain(chain, self._roots, at)

    @classmethod
    def create(cls) -> Cast:
        """New keys. Whatever was signed or sealed with others has to be made again."""
        with tempfile.TemporaryDirectory() as directory:
            authorities = {
                name: pki.CertificateAuthority.create(
                    Path(directory) / name.replace("/", "-"), name, clock=ManualClock(NOW)
                )
                for name in (*TRUSTED, "organizations/mallory")
            }
        holders = {}
        for name in (ALICE, BOB, NODE, OTHER_NODE, STRANGER):
            key = pki.create_key()
            authority = authorities["/".join(name.split("/")[:2])]
            holders[name] = {
                "key": key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ).decode(),
                "certificate": pki.to_pem(authority.issue(name, key.public_key())),
            }
        identities = {}
        for name in IDENTITIES:
            secret = sealing.create_identity()
            identities[name] = {"secret": secret, "recipient": sealing.recipient_of(secret)}
        return cls(
            {
                "about": "For tests only: everybody has these keys. The authorities of dora and clara are trusted.",
                "trusted": list(TRUSTED),
                "authorities": {name: pki.to_pem(each.certificate) for name, each in authorities.items()},
                "holders": holders,
                "identities": identities,
            }
        )


def _holder(entry: dict[str, str]) -> Holder:
    key = serialization.load_pem_private_key(entry["key"].encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Holder(key, tuple(pki.load_certificates(entry["certificate"])))
