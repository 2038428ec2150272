"""What organizations say about their certificates: authorities, revocations, and what others are told of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vantage.common import names, pki
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.revocation import RevocationList, check_current, check_succession, verify_revocation_list
from vantage.common.rpc import normalize_fingerprint
from vantage.server.domain.permissions import Operation, Resource, reach
from vantage.server.domain.principals import NodePrincipal, Principal, UserPrincipal
from vantage.server.domain.session import Goodbye
from vantage.server.services.access import missing, require
from vantage.server.services.directory import Directory
from vantage.server.services.sessions import Sessions
from vantage.server.storage import certificate_store, collaboration_store, organization_store, pages, settings_store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.organization_store import Organization
from vantage.server.storage.pages import Page

MAX_AUTHORITIES = 5
MAX_BUNDLE_BYTES = 1024 * 1024
"""Of a page of a bundle, unless one organization alone has more: nodes fetch it on slow lines, beside heartbeats."""
_BUNDLE = "trust bundle"


@dataclass(frozen=True)
class OrganizationTrust:
    """What is known of the certificates of one organization."""

    organization: str
    authorities: tuple[str, ...]
    revocations: bytes


class Trust:
    """Use cases of authorities and revocation lists."""

    def __init__(self, database: Database, directory: Directory, sessions: Sessions, clock: Clock) -> None:
        self._database = database
        self._directory = directory
        self._sessions = sessions
        self._clock = clock

    async def add_authority(self, user: UserPrincipal, organization: str, pem: str) -> tuple[str, ...]:
        """Add a certificate of an authority; returns all of the organization."""
        names.parse(organization, "organizations", field="organization")

        def unit(connection: Connection) -> tuple[str, ...]:
            known = _editable(connection, user, organization)
            found = pki.load_certificates(pem)
            if len(found) != 1:
                raise error(Reason.CERTIFICATE_INVALID, "give one certificate at a time", field="ca_certificate")
            pki.check_authority(found[0], organization)
            added = pki.to_pem(found[0])
            if added in known:
                return known
            if len(known) >= MAX_AUTHORITIES:
                raise error(
                    Reason.CERTIFICATE_INVALID,
                    f"{organization} has {MAX_AUTHORITIES} authority certificates: remove one that is no longer used",
                )
            organization_store.set_certificates(connection, organization, (*known, added))
            return (*known, added)

        pems = await self._database.write(unit)
        self._directory.forget()
        return pems

    async def remove_authority(
        self, user: UserPrincipal, organization: str, fingerprint: str
    ) -> tuple[tuple[str, ...], int]:
        """Remove a certificate of an authority; returns what remains, and how many sessions ended."""
        names.parse(organization, "organizations", field="organization")
        wanted = normalize_fingerprint(fingerprint)

        def unit(connection: Connection) -> tuple[str, ...]:
            known = _editable(connection, user, organization)
            left = tuple(pem for pem in known if pki.fingerprint(pki.load_certificates(pem)[0]) != wanted)
            if left != known:
                organization_store.set_certificates(connection, organization, left)
            return left

        pems = await self._database.write(unit)
        return pems, await self.changed(organization)

    async def set_revocations(
        self, user: UserPrincipal, organization: str, content: bytes
    ) -> tuple[RevocationList, int]:
        """Replace the revocation list; returns it, and how many sessions ended.

        Checks: (1) form, signature by one of the organization's authorities, time, (2) it is current, (3) its number is
        higher than that of the list in use.
        """
        names.parse(organization, "organizations", field="organization")
        now = self._clock.now()

        def unit(connection: Connection) -> RevocationList:
            _editable(connection, user, organization)
            authorities = certificate_store.authorities(connection, organization)
            # (1)
            found = verify_revocation_list(content, authorities, now)
            # (2)
            check_current(found, now)
            # (3)
            used = certificate_store.revocations(connection, organization)
            if used is None or check_succession(found, used.number, used.signer, used.content, authorities):
                certificate_store.set_revocations(connection, organization, found)
                settings_store.trust_changed(connection)
            return found

        found = await self._database.write(unit)
        return found, await self.changed(organization)

    async def changed(self, organization: str) -> int:
        """End what no longer counts after authorities or revocations changed; returns how many sessions ended."""
        self._directory.forget()
        connected = self._sessions.of_organization(organization)

        def fallen(connection: Connection) -> dict[str, VantageError]:
            found = {
                each.name: certificate_store.standing(connection, each.name, each.certificate) for each in connected
            }
            return {name: problem for name, problem in found.items() if problem is not None}

        problems = await self._database.read(fallen)
        for node, problem in problems.items():
            self._sessions.dismiss(node, Goodbye(problem.reason, problem.message))
        return len(problems)

    async def bundle(self, principal: Principal, page_size: int, token: str) -> tuple[int, Page[OrganizationTrust]]:
        """Version, and one page of authorities and revocation lists of the organizations that concern a principal."""
        size, after = pages.page_size(page_size or pages.MAX_SIZE), pages.decode(token, _BUNDLE)
        version, rows, more = await self._database.read(lambda connection: _bundle(connection, principal, after, size))
        return version, Page(rows, more, _BUNDLE, lambda each: each.organization)


class TrustVersion:
    """The version of the trust bundle, read again only when something may have changed it."""

    def __init__(self, database: Database, directory: Directory) -> None:
        self._database = database
        self._directory = directory
        self._known: tuple[int, int] | None = None

    async def __call__(self) -> int:
        """The version now."""
        at = self._directory.version
        if self._known is None or self._known[0] != at:
            self._known = (at, await self._database.read(settings_store.trust_version))
        return self._known[1]


def _editable(connection: Connection, user: UserPrincipal, organization: str) -> tuple[str, ...]:
    """Certificates of an organization that the user may edit."""
    found = organization_store.get_organization(connection, organization)
    owner = None if found is None else organization_store.organization_owner(connection, organization)
    require(user, Resource.ORGANIZATION, Operation.EDIT, organization, owner)
    if found is None:
        raise missing(organization)
    return found.ca_certificates


def _bundle(
    connection: Connection, principal: Principal, after: str | None, size: int
) -> tuple[int, list[OrganizationTrust], bool]:
    if isinstance(principal, NodePrincipal):
        concerned = {principal.organization}
        for collaboration in principal.collaborations:
            found = collaboration_store.get(connection, collaboration)
            concerned.update(() if found is None else found.organizations)
        wanted = sorted(name for name in concerned if after is None or name > after)[: size + 1]
        organizations = [each for name in wanted if (each := organization_store.get_organization(connection, name))]
    else:
        seen = reach(principal, Resource.ORGANIZATION, Operation.VIEW)
        organizations = organization_store.list_organizations(connection, seen, after, size + 1)
    page = _bounded(connection, organizations[:size])
    lists = certificate_store.lists(connection, [each.name for each in page])
    return (
        settings_store.trust_version(connection),
        [OrganizationTrust(each.name, each.ca_certificates, lists.get(each.name, b"")) for each in page],
        len(page) < len(organizations),
    )


def _bounded(connection: Connection, organizations: Sequence[Organization]) -> Sequence[Organization]:
    """As many as one page holds, at least one: no more revocation lists are read than are sent."""
    sizes = certificate_store.list_sizes(connection, [each.name for each in organizations])
    together = 0
    for index, each in enumerate(organizations):
        together += sizes.get(each.name, 0)
        if index and together > MAX_BUNDLE_BYTES:
            return organizations[:index]
    return organizations
