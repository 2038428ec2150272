"""Which authorities vouch for the nodes of another organization."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import grpc
from cryptography import x509

from vantage.api.admin.v1 import organization_service_pb2 as pb
from vantage.api.admin.v1 import organization_service_pb2_grpc
from vantage.common import pki
from vantage.common.errors import Reason, error
from vantage.common.pki import CertifiedName
from vantage.common.rpc import error_from_rpc
from vantage.common.trust import TrustStore
from vantage.node.connection import Connection


class PeerTrust(Protocol):
    """Knows the authorities of organizations."""

    async def authorities(self, organization: str) -> Sequence[x509.Certificate]:
        """Those that this node's owner accepts for an organization.

        Raises:
            VantageError: CERTIFICATE_UNTRUSTED, there is none; or they cannot be asked for now.
        """
        ...

    def check(self, certified: CertifiedName) -> None:
        """Look at a certificate that one of those authorities vouches for.

        Raises:
            PermissionDeniedError: CERTIFICATE_REVOKED.
        """
        ...


class PinnedTrust:
    """Keeps ``PeerTrust``: what the node's admin put there, what the node trusts otherwise, or what was told first.

    Args:
        store: whom the node trusts, with revocation lists.
        files: organization -> PEM file, instead of the store.
        pins: directory of what was told first; None when that was not chosen.
        connection: the way to the server.
    """

    def __init__(self, store: TrustStore, files: Mapping[str, Path], pins: Path | None, connection: Connection) -> None:
        self._store = store
        self._files = files
        self._pins = pins
        self._connection = connection

    async def authorities(self, organization: str) -> Sequence[x509.Certificate]:
        """See ``PeerTrust``."""
        if (file := self._files.get(organization)) is not None:
            return await asyncio.to_thread(_read, file)
        if roots := self._store.record(organization).roots:
            return roots
        if self._pins is None:
            raise error(
                Reason.CERTIFICATE_UNTRUSTED,
                f"this node trusts no authority of {organization}: its admin confirms one ('vantage node trust'), puts "
                "it below policy.peer_authorities, or sets policy.pin_peer_authorities: true",
                organization=organization,
            )
        pin = self._pins / f"{organization.rpartition('/')[2]}.pem"
        if not pin.exists():
            told = await self._ask(organization)
            await asyncio.to_thread(_pin, pin, told)
        return await asyncio.to_thread(_read, pin)

    def check(self, certified: CertifiedName) -> None:
        """See ``PeerTrust``."""
        revocations = self._store.record(certified.organization).revocations
        if revocations is not None and revocations.revokes(certified.certificate):
            raise error(
                Reason.CERTIFICATE_REVOKED, f"the certificate of {certified.name} was revoked by its organization"
            )

    async def _ask(self, organization: str) -> str:
        stub = organization_service_pb2_grpc.OrganizationServiceStub(await self._connection.channel())
        try:
            answer = await stub.GetOrganization(
                pb.GetOrganizationRequest(name=organization), metadata=await self._connection.metadata(), timeout=20
            )
        except grpc.aio.AioRpcError as problem:
            raise error_from_rpc(problem) from problem
        certificates = list(answer.organization.ca_certificates)
        if not certificates:
            raise error(Reason.CERTIFICATE_UNTRUSTED, f"{organization} has told the server no authority certificate")
        for each in certificates:
            for certificate in pki.load_certificates(each):
                pki.check_authority(certificate, organization)
        return "\n".join(certificates)


def _pin(path: Path, content: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(content)
    partial.replace(path)


def _read(path: Path) -> list[x509.Certificate]:
    try:
        return pki.load_certificates(path.read_bytes())
    except OSError as problem:
        raise error(Reason.CERTIFICATE_UNTRUSTED, f"{path} cannot be read: {problem.strerror}") from problem
