"""What organizations say at the server about their certificates."""

from __future__ import annotations

from datetime import UTC

from vantage.api.admin.v1 import trust_service_pb2 as pb
from vantage.client.admin import pages
from vantage.client.caller import Caller
from vantage.client.models import AuthoritiesChanged, OrganizationTrust, RevocationsChanged
from vantage.client.short_names import full


class AsyncTrust:
    """Authorities of organizations and their revocation lists, as the server passes them on."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    async def add_authority(self, organization: str, certificate: str) -> AuthoritiesChanged:
        """Add a certificate of an organization's authority; harmless when it is there.

        Args:
            organization: whose.
            certificate: PEM.

        Raises:
            NotFoundError: there is no such organization, or you may not see it.
            InvalidArgumentError: CERTIFICATE_INVALID, it is none of this organization, or there are five.
        """
        request = pb.AddCaCertificateRequest(
            organization=full("organizations", organization), ca_certificate=certificate
        )
        answer = await self._caller.unary(lambda stubs: stubs.trust.AddCaCertificate, request, repeatable=True)
        return AuthoritiesChanged(tuple(answer.ca_certificates), 0)

    async def remove_authority(self, organization: str, fingerprint: str) -> AuthoritiesChanged:
        """Remove one; what it vouched for ends at once.

        Args:
            organization: whose.
            fingerprint: of the certificate.

        Raises:
            NotFoundError: there is no such organization, or you may not see it.
        """
        request = pb.RemoveCaCertificateRequest(
            organization=full("organizations", organization), fingerprint=fingerprint
        )
        answer = await self._caller.unary(lambda stubs: stubs.trust.RemoveCaCertificate, request, repeatable=True)
        return AuthoritiesChanged(tuple(answer.ca_certificates), answer.ended_sessions)

    async def set_revocations(self, organization: str, revocation_list: bytes) -> RevocationsChanged:
        """Replace the revocation list of an organization; what is on it ends at once.

        Args:
            organization: whose.
            revocation_list: PEM or DER.

        Raises:
            NotFoundError: there is no such organization, or you may not see it.
            InvalidArgumentError: REVOCATION_LIST_INVALID.
            ConflictError: REVOCATION_LIST_OUTDATED, a newer one is in use.
        """
        request = pb.SetRevocationListRequest(
            organization=full("organizations", organization), revocation_list=revocation_list
        )
        answer = await self._caller.unary(lambda stubs: stubs.trust.SetRevocationList, request, repeatable=True)
        return RevocationsChanged(
            int(answer.number),
            answer.revoked_certificates,
            answer.next_update_time.ToDatetime(UTC),
            answer.ended_sessions,
        )

    async def bundle(self) -> list[OrganizationTrust]:
        """Authorities and revocation lists of your organization and of those that you work with. Nothing of it is
        proven: give it to a ``TrustStore``.

        Raises:
            PermissionDeniedError: you may not view organizations.
        """
        return [
            OrganizationTrust(each.organization, tuple(each.ca_certificates), each.revocation_list)
            for each in await bundle(self._caller)
        ]


async def bundle(caller: Caller) -> list[pb.OrganizationTrust]:
    """Everything that the server tells of organizations' certificates.

    Raises:
        PermissionDeniedError: the user may not view organizations.
    """

    async def fetch(token: str) -> pb.GetTrustBundleResponse:
        request = pb.GetTrustBundleRequest(page_token=token)
        return await caller.unary(lambda stubs: stubs.trust.GetTrustBundle, request, repeatable=True)

    return [each async for page in pages(fetch) for each in page.organizations]
