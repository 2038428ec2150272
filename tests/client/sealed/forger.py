"""What somebody can make who has no key of any organization."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from vantage.common import pki, sealing
from vantage.common.attestation import sign_keys
from vantage.common.statements import KeyBundle
from vantage.testing.sealed_network import SealedNetwork

CLARA = "organizations/clara/nodes/clara-1"


class Forger:
    """Has no key of any organization, and calls an authority of its own clara's."""

    def __init__(self, network: SealedNetwork) -> None:
        self.authority = pki.CertificateAuthority.create(network.directory / "forged", "organizations/clara")
        self.key = pki.create_key()
        self.chain = (self.authority.issue(CLARA, self.key.public_key()),)
        self.identity = sealing.create_identity()

    def keys(self, version: int = 9) -> bytes:
        """A list of clara's keys with the forger's key in it."""
        now = datetime.now(UTC)
        made = KeyBundle(
            holder=CLARA,
            version=version,
            recipients=(sealing.recipient_of(self.identity),),
            created=now,
            expires=now + timedelta(days=30),
        )
        return sign_keys(made, self.key, self.chain)
