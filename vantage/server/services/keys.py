"""Lists of keys that payloads are sealed to: signed by their holders, passed on by the server."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509

from vantage.common import names, pki
from vantage.common.attestation import verify_keys
from vantage.common.clock import Clock
from vantage.common.dsse import Certify
from vantage.common.errors import Reason, error
from vantage.server.domain.principals import NodePrincipal, Principal
from vantage.server.services.access import missing
from vantage.server.storage import key_store, organization_store, pages
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.key_store import PublishedKeys
from vantage.server.storage.pages import Page

MAX_ENVELOPE_BYTES = 64 * 1024
MAX_ORGANIZATIONS = 1_000


class Keys:
    """Use cases of lists of keys."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def publish(self, principal: Principal, envelope: bytes) -> PublishedKeys:
        """Publish the caller's list.

        The server verifies it like everybody else: what no reader would accept is not worth passing on.

        Raises:
            VantageError: KEYS_INVALID, KEYS_STALE, CERTIFICATE_UNTRUSTED, ORDER_INVALID.
        """
        if len(envelope) > MAX_ENVELOPE_BYTES:
            raise error(Reason.KEYS_INVALID, f"the list has more than {MAX_ENVELOPE_BYTES} bytes")
        holder = holder_of(principal)
        organization = principal.organization or ""
        certify = certifier(
            await self._database.read(lambda connection: organization_store.certificates(connection, organization))
        )
        now = self._clock.now()
        verified = verify_keys(envelope, certify, holder, now)
        made = PublishedKeys(holder, verified.version, envelope)
        return await self._database.write(lambda connection: key_store.put(connection, made, now))

    async def get(self, principal: Principal, holder: str) -> PublishedKeys:
        """The list of one holder.

        Raises:
            NotFoundError: there is none, or the caller may not see it.
        """
        kind = "organizations/users" if "/users/" in holder else "organizations/nodes"
        organization = str(names.parse(holder, kind, field="holder").parent)

        def unit(connection: Connection) -> PublishedKeys:
            found = key_store.get(connection, holder)
            joined = set(organization_store.memberships(connection, organization))
            seen = organization == principal.organization or not joined.isdisjoint(principal.collaborations)
            if found is None or not seen:
                raise missing(f"the keys of {holder}")
            return found

        return await self._database.read(unit)

    async def list_of_nodes(
        self, principal: Principal, collaboration: str, organizations: Sequence[str], page_size: int, token: str
    ) -> Page[PublishedKeys]:
        """One page of the keys of the nodes that serve a collaboration.

        Raises:
            NotFoundError: the caller is not part of the collaboration.
            InvalidArgumentError: PAGE_TOKEN_INVALID, or too many organizations.
        """
        names.parse(collaboration, "collaborations", field="collaboration")
        if len(organizations) > MAX_ORGANIZATIONS:
            raise error(Reason.INVALID_ARGUMENT, f"at most {MAX_ORGANIZATIONS} organizations", field="organizations")
        for each in organizations:
            names.parse(each, "organizations", field="organizations")
        if collaboration not in principal.collaborations:
            raise missing(collaboration)
        query = f"keys {collaboration} {sorted(set(organizations))}"
        size, after = pages.page_size(page_size), pages.decode(token, query)
        rows = await self._database.read(
            lambda connection: key_store.list_of_nodes(connection, collaboration, organizations, after, size + 1)
        )
        return pages.cut(rows, size, query, lambda each: each.holder)


def holder_of(principal: Principal) -> str:
    """The name in the caller's certificate.

    Raises:
        RefusedError: KEYS_INVALID, a user without organization has nobody to certify a key.
    """
    if isinstance(principal, NodePrincipal):
        return principal.name
    if principal.organization is None:
        raise error(Reason.KEYS_INVALID, "you belong to no organization: nobody can certify a key of yours")
    return f"{principal.organization}/{principal.name}"


def certifier(pems: Sequence[str]) -> Certify:
    """Believes the authorities of one organization."""
    roots: list[x509.Certificate] = [each for pem in pems for each in pki.load_certificates(pem)]
    return lambda chain, at: pki.verify_chain(chain, roots, at)
