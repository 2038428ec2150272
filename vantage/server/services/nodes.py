"""Nodes: who is admitted, and what is known of them."""

from __future__ import annotations

from collections.abc import Sequence

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain import audit
from vantage.server.domain.etags import check_etag
from vantage.server.domain.permissions import Operation, Owner, Resource, reach
from vantage.server.domain.principals import Principal, UserPrincipal
from vantage.server.services.access import missing, require, require_new
from vantage.server.services.directory import Directory
from vantage.server.services.sessions import Sessions
from vantage.server.storage import key_store, pages
from vantage.server.storage import organization_store as store
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.organization_store import Node
from vantage.server.storage.pages import Page
from vantage.server.storage.presence_store import Presence

Known = tuple[Node, Presence]


class Nodes:
    """Use cases of nodes."""

    def __init__(self, database: Database, directory: Directory, clock: Clock, sessions: Sessions) -> None:
        self._database = database
        self._directory = directory
        self._clock = clock
        self._sessions = sessions

    async def create(
        self, user: UserPrincipal, organization: str, node_id: str, collaborations: Sequence[str]
    ) -> Known:
        """Admit a node."""
        names.parse(organization, "organizations", field="organization")
        name = str(names.parse(f"{organization}/nodes/{node_id}", "organizations/nodes", field="node_id"))
        serves = _parse(collaborations)
        audit.note(name, collaborations=" ".join(serves))
        require_new(user, Resource.NODE, Owner(organization=organization))
        node = Node(name, organization, tuple(serves), self._clock.now())

        def unit(connection: Connection) -> Node:
            if store.get_organization(connection, organization) is None:
                raise error(Reason.NOT_FOUND, f"{organization} does not exist: create it first")
            store.create_node(connection, node)
            return store.get_node(connection, name) or node

        made = await self._database.write(unit)
        self._directory.forget()
        return made, self._sessions.presence(name)

    async def get(self, principal: Principal, name: str) -> Known:
        """One node."""
        names.parse(name, "organizations/nodes")
        node = await self._database.read(lambda connection: _get(connection, principal, Operation.VIEW, name))
        return node, self._sessions.presence(name)

    async def list_page(
        self, user: UserPrincipal, page_size: int, token: str, organization: str, collaboration: str
    ) -> Page[Known]:
        """One page of the nodes in reach."""
        query = f"nodes {organization} {collaboration}"
        size, after = pages.page_size(page_size), pages.decode(token, query)
        reached = reach(user, Resource.NODE, Operation.VIEW)
        rows = await self._database.read(
            lambda connection: store.list_nodes(
                connection, reached, organization or None, collaboration or None, after, size + 1
            )
        )
        known = [(each, self._sessions.presence(each.name)) for each in rows]
        return pages.cut(known, size, query, lambda each: each[0].name)

    async def update(self, user: UserPrincipal, name: str, collaborations: Sequence[str] | None, etag: str) -> Known:
        """Change which collaborations a node serves; None leaves them."""
        names.parse(name, "organizations/nodes")
        serves = None if collaborations is None else _parse(collaborations)
        audit.note(name, collaborations=" ".join(serves or ()))

        def unit(connection: Connection) -> Node:
            node = _get(connection, user, Operation.EDIT, name)
            check_etag(etag, node.etag, name)
            if serves is not None:
                store.set_collaborations(connection, node, serves)
            return _get(connection, user, Operation.EDIT, name)

        changed = await self._database.write(unit)
        self._directory.forget()
        # It comes back at once and learns what it serves now.
        self._sessions.refresh([name])
        return changed, self._sessions.presence(name)

    async def delete(self, user: UserPrincipal, name: str) -> None:
        """Delete a node and end its session."""
        names.parse(name, "organizations/nodes")
        audit.note(name)

        def unit(connection: Connection) -> None:
            _get(connection, user, Operation.DELETE, name)
            store.delete_node(connection, name)
            key_store.remove(connection, name)

        await self._database.write(unit)
        self._directory.forget()
        self._sessions.dismiss(name)


def _parse(collaborations: Sequence[str]) -> list[str]:
    return sorted({str(names.parse(each, "collaborations", field="collaborations")) for each in collaborations})


def _get(connection: Connection, principal: Principal, operation: Operation, name: str) -> Node:
    found = store.get_node(connection, name)
    require(principal, Resource.NODE, operation, name, None if found is None else found.owner)
    if found is None:
        raise missing(name)
    return found
