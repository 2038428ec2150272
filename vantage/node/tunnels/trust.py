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
from vantage.common.rpc import error_from_rpc
from vantage.node.connection import Connection


class PeerTrust(Protocol):
    """Knows the authorities of organizations."""

    async def authorities(self, organization: str) -> Sequence[x509.Certificate]:
        """Those that this node's owner accepts for an organization.

        Raises:
            VantageError: CERTIFICATE_UNTRUSTED, there is none; or they cannot be asked for now.
        """
        ...


class PinnedTrust:
    """Keeps ``PeerTrust``: what the node's admin put there or, where that was chosen, what was told first.

    Args:
        files: organization -> PEM file.
        pins: directory of what was told first; None when that was not chosen.
        connection: the way to the server.
    """

    def __init__(self, files: Mapping[str, Path], pins: Path | None, connection: Connection) -> None:
        self._files = files
        self._pins = pins
        self._connection = connection

    async def authorities(self, organization: str) -> Sequence[x509.Certificate]:
        """See ``PeerTrust``."""
        if (file := self._files.get(organization)) is not None:
            return await asyncio.to_thread(_read, file)
        if self._pins is None:
            raise error(
                Reason.CERTIFICATE_UNTRUSTED,
                f"this node has no authority certificate of {organization}: its admin puts it below "
                "policy.peer_authorities, or sets policy.pin_peer_authorities: true",
                organization=organization,
            )
        pin = self._pins / f"{organization.rpartition('/')[2]}.pem"
        if not pin.exists():
            told = await self._ask(organization)
            await asyncio.to_thread(_pin, pin, told)
        return await asyncio.to_thread(_read, pin)

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
