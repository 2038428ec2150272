"""Organizations and their certificate authorities."""

from __future__ import annotations

from collections.abc import Sequence

from vantage.common import names, pki
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain import audit, display_names
from vantage.server.domain.etags import check_etag
from vantage.server.domain.permissions import Operation, Owner, Resource, reach
from vantage.server.domain.principals import Principal, UserPrincipal
from vantage.server.services.access import missing, require, require_new
from vantage.server.services.directory import Directory
from vantage.server.services.trust import Trust
from vantage.server.storage import organization_store as store
from vantage.server.storage import pages
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.organization_store import Organization
from vantage.server.storage.pages import Page

MAX_CERTIFICATES = 5


class Organizations:
    """Use cases of organizations."""

    def __init__(self, database: Database, directory: Directory, clock: Clock, trust: Trust) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock
        self._trust = trust

    async def create(
        self, user: UserPrincipal, organization_id: str, display_name: str, pems: Sequence[str]
    ) -> Organization:
        """Create an organization."""
        name = str(names.parse(f"organizations/{organization_id}", "organizations", field="organization_id"))
        audit.note(name)
        require_new(user, Resource.ORGANIZATION, Owner())
        organization = Organization(
            name, display_names.checked(display_name) or organization_id, _checked(pems, name), self._clock.now()
        )
        await self._database.write(lambda connection: store.create_organization(connection, organization))
        self._directory.forget()  # its authorities count from now on
        return organization

    async def get(self, principal: Principal, name: str) -> Organization:
        """One organization."""
        names.parse(name, "organizations")
        return await self._database.read(lambda connection: _get(connection, principal, Operation.VIEW, name))

    async def list_page(self, user: UserPrincipal, page_size: int, token: str) -> Page[Organization]:
        """One page of the organizations in reach."""
        size, after = pages.page_size(page_size), pages.decode(token, "organizations")
        reached = reach(user, Resource.ORGANIZATION, Operation.VIEW)
        rows = await self._database.read(
            lambda connection: store.list_organizations(connection, reached, after, size + 1)
        )
        return pages.cut(rows, size, "organizations", lambda each: each.name)

    async def update(self, user: UserPrincipal, name: str, display_name: str | None, etag: str) -> Organization:
        """Change the display name; None leaves it."""
        names.parse(name, "organizations")
        audit.note(name, change="" if display_name is None else "display_name")

        def unit(connection: Connection) -> Organization:
            found = _get(connection, user, Operation.EDIT, name)
            check_etag(etag, found.etag, name)
            if display_name is not None:
                store.set_display_name(connection, name, display_names.checked(display_name))
            return _get(connection, user, Operation.EDIT, name)

        return await self._database.write(unit)

    async def delete(self, user: UserPrincipal, name: str) -> None:
        """Delete an organization that nothing refers to."""
        names.parse(name, "organizations")
        audit.note(name)

        def unit(connection: Connection) -> None:
            _get(connection, user, Operation.DELETE, name)
            store.delete_organization(connection, name)

        await self._database.write(unit)
        self._directory.forget()

    async def set_certificates(self, user: UserPrincipal, name: str, pems: Sequence[str]) -> Organization:
        """Replace the certificates of an organization's authorities."""
        names.parse(name, "organizations")
        audit.note(name)

        def unit(connection: Connection) -> Organization:
            _get(connection, user, Operation.EDIT, name)
            store.set_certificates(connection, name, _checked(pems, name))
            return _get(connection, user, Operation.EDIT, name)

        changed = await self._database.write(unit)
        await self._trust.changed(name)
        return changed


def _get(connection: Connection, principal: Principal, operation: Operation, name: str) -> Organization:
    found = store.get_organization(connection, name)
    owner = None if found is None else store.organization_owner(connection, name)
    require(principal, Resource.ORGANIZATION, operation, name, owner)
    if found is None:
        raise missing(name)
    return found


def _checked(pems: Sequence[str], organization: str) -> tuple[str, ...]:
    checked = []
    for pem in pems[: MAX_CERTIFICATES + 1]:
        certificates = pki.load_certificates(pem)
        for each in certificates:
            pki.check_authority(each, organization)
            checked.append(pki.to_pem(each))
    if len(checked) > MAX_CERTIFICATES:  # a text may hold many
        raise error(Reason.CERTIFICATE_INVALID, f"an organization has at most {MAX_CERTIFICATES} authorities at a time")
    return tuple(checked)
