"""People and nodes with certificates, for tests of signed statements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from vantage.common import pki
from vantage.common.clock import ManualClock
from vantage.common.statements import Content, Delegation, Order, OrderTarget

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
RECIPIENT = "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p"
IMAGE = "registry.example/summary@sha256:" + "ab" * 32
DIGEST = "sha256:" + "cd" * 32


@dataclass(frozen=True)
class Signer:
    """A holder of a key and its certificate chain."""

    name: str
    key: ec.EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]


class World:
    """Two organizations that trust each other, and one that nobody trusts."""

    def __init__(self, directory: Path) -> None:
        self.clock = ManualClock(NOW)
        self._directory = directory
        self._authorities = {name: self._authority(name) for name in ("dora", "clara", "mallory")}
        self.roots = [self._authorities[name].certificate for name in ("dora", "clara")]
        self.alice = self.signer("organizations/dora/users/alice")
        self.node = self.signer("organizations/clara/nodes/clara-1")
        self.stranger = self.signer("organizations/mallory/users/mallory")

    def signer(self, name: str) -> Signer:
        """Certify a new key."""
        key = pki.create_key()
        return Signer(name, key, (self._authorities[name.split("/")[1]].issue(name, key.public_key()),))

    def certify(self, chain: Sequence[bytes], at: datetime) -> pki.CertifiedName:
        """See ``dsse.Certify``."""
        return pki.verify_chain(chain, self.roots, at)

    def _authority(self, name: str) -> pki.CertificateAuthority:
        return pki.CertificateAuthority.create(self._directory / name, f"organizations/{name}", clock=self.clock)


def order(requester: str, **changes: object) -> Order:
    """An order that asks clara."""
    fields: dict[str, object] = {
        "id": "0190d6a0-0000-7000-8000-000000000001",
        "requester": requester,
        "collaboration": "collaborations/trial",
        "image": IMAGE,
        "function": "summary",
        "targets": (
            OrderTarget(
                organization="organizations/clara",
                arguments=Content(digest=DIGEST, size=3, media_type="application/json"),
            ),
        ),
        "recipients": (RECIPIENT,),
        "created": NOW,
        "expires": NOW + timedelta(hours=1),
        "delegation": Delegation(
            organizations=("organizations/clara", "organizations/dora"),
            functions=("partial",),
            datasets=("lung",),
            max_tasks=10,
            max_depth=2,
        ),
    }
    return Order.model_validate(fields | changes)
