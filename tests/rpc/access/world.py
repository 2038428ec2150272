"""The world of the permission matrix: organizations, collaborations, and things in five relations to a caller.

``own``: the caller made it. ``organization``: it belongs to the caller's organization. ``collaboration``: to a partner,
in a collaboration that both are members of. ``other``: in a collaboration of others, one of whom is that partner.
``outside``: to somebody with whom nothing is shared. Things are put into the database of a real server, next to it:
they are what the calls are about, and no call should be needed to make them.
"""

from __future__ import annotations

import hashlib
import itertools
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, select

from vantage.common import pki
from vantage.common.clock import SystemClock
from vantage.server.app import TOKEN_KEY_FILE
from vantage.server.domain.audit import Entry, Verdict
from vantage.server.domain.permissions import Reach
from vantage.server.domain.tasks import Target, TaskSpec
from vantage.server.domain.tokens import AccessTokens
from vantage.server.storage import audit_store, creation, credential_schema, schema, settings_store, task_schema
from vantage.server.storage.database import Connection
from vantage.server.storage.lifecycle import Changes
from vantage.testing.server import RunningServer

RELATIONS = ("own", "organization", "collaboration", "other", "outside")
USERS = ("root", "server-operator", "collaboration-admin", "organization-admin", "researcher", "viewer")
ROLES = (*USERS, "node", "algorithm", "nobody")
GLOBAL_ROLES = ("root", "server-operator")
"""Users of the server itself: of no organization."""

HOME, PARTNER, DISTANT, STRANGER = (f"organizations/{each}" for each in ("home", "partner", "distant", "stranger"))
OWNED_BY = {"own": HOME, "organization": HOME, "collaboration": PARTNER, "other": DISTANT, "outside": STRANGER}
IMAGE = "registry.example:5000/summary@sha256:" + "ab" * 32
_NOW = datetime.now(UTC)
_AUTHORITY = pki.self_signed(pki.create_key(), HOME, _NOW)
_SERIAL = "1f"
"""Serial number of the certificate that a node has shown."""


@dataclass(frozen=True)
class Caller:
    """Who calls; not there before ``World.admit``."""

    name: str
    role: str
    organization: str | None
    metadata: tuple[tuple[str, str], ...]


class World:
    """Makes callers and things, each new."""

    def __init__(self, server: RunningServer, tokens: AccessTokens) -> None:
        self.server = server
        self.channel = server.channel()
        self._tokens = tokens
        self._numbers = itertools.count(1)
        self._joined: list[str] = []

    @classmethod
    async def make(cls, server: RunningServer) -> World:
        """Put the organizations and collaborations into a new server."""
        database = server.server.database
        audience = await database.read(lambda connection: settings_store.get(connection, settings_store.AUDIENCE))
        assert audience is not None
        key = pki.read_key(server.server.data / TOKEN_KEY_FILE)
        world = cls(server, AccessTokens(key, audience, SystemClock()))

        def fill(connection: Connection) -> None:
            for name in (HOME, PARTNER, DISTANT, STRANGER):
                connection.execute(insert(schema.organization).values(name=name, display_name="", created=_NOW))
            certificate = {"organization": HOME, "position": 0, "pem": pki.to_pem(_AUTHORITY)}
            connection.execute(insert(schema.organization_certificate).values(certificate))

        await database.write(fill)
        return world

    def id(self, prefix: str = "thing") -> str:
        """A new id."""
        return f"{prefix}-{next(self._numbers)}"

    async def _write(self, table: Any, **values: Any) -> None:
        await self.server.server.database.write(lambda connection: connection.execute(insert(table).values(**values)))

    # Callers

    def caller(self, role: str) -> Caller:
        """A new caller of a role, who is admitted later: what they own is made before."""
        if role in ("algorithm", "nobody"):
            text = "Bearer a-token-of-a-run" if role == "algorithm" else ""
            return Caller(f"users/{self.id()}", role, HOME, (("authorization", text),) if text else ())
        organization = None if role in GLOBAL_ROLES else HOME
        name = f"{HOME}/nodes/{self.id('node')}" if role == "node" else f"users/{self.id('user')}"
        session = None if role == "node" else str(uuid.uuid4())
        token = self._tokens.issue(name, session, _SERIAL if role == "node" else "")
        return Caller(name, role, organization, (("authorization", f"Bearer {token}"), ("x-session", session or "-")))

    async def admit(self, caller: Caller) -> None:
        """Make the caller known to the server."""
        if caller.role in ("algorithm", "nobody"):
            return
        if caller.role == "node":
            await self._admit_node(caller.name)
            return
        session = dict(caller.metadata)["x-session"]

        def unit(connection: Connection) -> None:
            known = select(schema.user.c.name).where(schema.user.c.name == caller.name)
            if connection.execute(known).first() is None:
                _insert_user(connection, caller.name, caller.organization, caller.role)
            connection.execute(
                insert(schema.login_session).values(
                    id=session,
                    user=caller.name,
                    refresh_hash=b"",
                    generation=0,
                    created=_NOW,
                    expires=_NOW + timedelta(days=1),
                )
            )

        await self.server.server.database.write(unit)

    async def _admit_node(self, name: str) -> None:
        def unit(connection: Connection) -> None:
            connection.execute(insert(schema.node).values(name=name, organization=HOME, created=_NOW))
            shown = {"holder": name, "serial": _SERIAL, "authority": pki.key_id(_AUTHORITY)}
            connection.execute(insert(schema.used_certificate).values(**shown, not_before=_NOW, first_used=_NOW))
            for each in self._joined[-4:]:
                connection.execute(insert(schema.node_collaboration).values(node=name, collaboration=each))

        await self.server.server.database.write(unit)

    # Things, each in a relation to a caller

    async def collaboration(self, caller: Caller, relation: str) -> str:
        """A collaboration: of nobody but its maker, of home alone, with the partner, of others, of the stranger."""
        members = {
            "own": (),
            "organization": (HOME,),
            "collaboration": (HOME, PARTNER),
            "other": (PARTNER, DISTANT),
            "outside": (STRANGER,),
            "empty": (),
        }[relation]
        name = f"collaborations/{self.id()}"
        await self._write(
            schema.collaboration,
            name=name,
            display_name="",
            creator=caller.name if relation == "own" else "users/somebody",
            created=_NOW,
        )
        if HOME in members:
            self._joined.append(name)
        for each in members:
            await self._write(schema.member, collaboration=name, organization=each, state=2)
        return name

    async def working(self, caller: Caller, relation: str) -> str:
        """A collaboration to work in: the caller's own is that of home alone."""
        return await self.collaboration(caller, "organization" if relation == "own" else relation)

    async def invitation(self, caller: Caller, relation: str) -> tuple[str, str]:
        """An open invitation: (collaboration, organization)."""
        organization = OWNED_BY[relation]
        where = {"collaboration": "organization", "other": "outside", "outside": "other"}.get(relation, "empty")
        name = await self.collaboration(caller, where)
        await self._write(schema.member, collaboration=name, organization=organization, state=1)
        return name, organization

    async def organization(self, caller: Caller, relation: str) -> str:
        """An organization; the partner shares a collaboration with home."""
        await self.collaboration(caller, "collaboration")
        await self.collaboration(caller, "other")
        return OWNED_BY[relation]

    async def user(self, caller: Caller, relation: str) -> str:
        """A user: the caller, a colleague, or one of another organization, with no roles."""
        if relation == "own":
            return caller.name
        name = f"users/{self.id('user')}"
        organization = OWNED_BY[relation]
        await self.server.server.database.write(lambda connection: _insert_user(connection, name, organization, None))
        return name

    async def identity(self, user: str, caller: Caller) -> tuple[str, str]:
        """A user's link to somebody at an identity provider: issuer and subject."""
        issuer, subject = "https://id.example", self.id("subject")

        def unit(connection: Connection) -> None:
            known = select(schema.user.c.name).where(schema.user.c.name == user)
            if connection.execute(known).first() is None:
                _insert_user(connection, user, caller.organization, caller.role)
            link = {"issuer": issuer, "subject": subject, "user": user, "created": _NOW}
            connection.execute(insert(credential_schema.identity_link).values(link))

        await self.server.server.database.write(unit)
        return issuer, subject

    async def study(self, caller: Caller, relation: str) -> str:
        """A study; the caller's own is in a collaboration of others."""
        where = await self.collaboration(caller, "other" if relation == "own" else relation)
        name = f"{where}/studies/{self.id()}"
        creator = caller.name if relation == "own" else "users/somebody"
        await self._write(schema.study, name=name, collaboration=where, display_name="", creator=creator, created=_NOW)
        organization = {"own": PARTNER, "other": PARTNER}.get(relation, OWNED_BY[relation])
        await self._write(
            schema.study_organization, study=name, organization=HOME if relation == "collaboration" else organization
        )
        return name

    async def node(self, caller: Caller, relation: str) -> str:
        """A node; nobody makes one for themselves, so own is as organization."""
        where = await self.working(caller, relation)
        organization = PARTNER if relation == "other" else OWNED_BY[relation]
        name = f"{organization}/nodes/{self.id('node')}"
        await self._write(schema.node, name=name, organization=organization, created=_NOW)
        await self._write(schema.node_collaboration, node=name, collaboration=where)
        return name

    async def role(self, caller: Caller, relation: str) -> str:
        """A role without permissions; the caller's own is of an organization of others."""
        organization = DISTANT if relation == "own" else OWNED_BY[relation]
        name = f"{organization}/roles/{self.id('role')}"
        creator = caller.name if relation == "own" else "users/somebody"
        await self._write(
            schema.role, name=name, organization=organization, description="", creator=creator, created=_NOW
        )
        return name

    async def task(self, caller: Caller, relation: str) -> str:
        """A task: the caller's, a colleague's, or one that others ask each other."""
        where = await self.collaboration(
            caller, {"own": "collaboration", "organization": "collaboration"}.get(relation, relation)
        )
        asked = {"other": DISTANT, "outside": STRANGER}.get(relation, PARTNER)
        asking = {"other": PARTNER}.get(relation, OWNED_BY[relation])
        creator = caller.name if relation == "own" else f"users/{self.id('somebody')}"
        spec = TaskSpec(where, "", IMAGE, "summary", (Target(asked, "", None, ()),), timedelta(0), "", b"")
        asker = creation.Asker(creator, asking, Reach(everything=True))
        name = f"tasks/{uuid.uuid4()}"
        request = creation.Request(asker, str(uuid.uuid4()), b"", spec, name)
        changes = Changes()
        [made] = await self.server.server.database.write(
            lambda connection: creation.create_tasks(connection, changes, [request], _NOW)
        )
        assert not isinstance(made, Exception), made
        return name

    async def payload(self, caller: Caller, relation: str) -> str:
        """A complete upload."""
        content = b"content"
        name = f"payloads/{uuid.uuid4()}"
        directory = self.server.server.data / "payloads" / "payloads"
        await self._write(
            task_schema.payload,
            name=name,
            uploader=caller.name if relation == "own" else f"users/{self.id('somebody')}",
            request_id=str(uuid.uuid4()),
            size=len(content),
            digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
            complete=True,
            created=_NOW,
        )
        (directory / name.removeprefix("payloads/")).write_bytes(content)
        return name

    async def keys(self, caller: Caller, relation: str) -> str:
        """A published list of keys."""
        await self.organization(caller, relation)
        holder = f"{OWNED_BY[relation]}/users/{self.id('user')}"
        await self._write(schema.key_bundle, holder=holder, version=1, envelope=b"{}", published=_NOW)
        return holder

    async def entry(self, caller: Caller, relation: str) -> str:
        """An entry of the audit, known by its target."""
        target = f"tasks/{uuid.uuid4()}"
        principal = caller.name if relation == "own" else f"users/{self.id('somebody')}"
        organization = (caller.organization or "") if relation == "own" else OWNED_BY[relation]
        entry = Entry(_NOW, "Test.Entry", Verdict.ALLOWED, "", principal, organization, target, "", "")
        await self.server.server.database.write(lambda connection: audit_store.append(connection, [entry]))
        return target


def _insert_user(connection: Connection, name: str, organization: str | None, role: str | None) -> None:
    connection.execute(
        insert(schema.user).values(
            name=name, organization=organization, display_name="", password_hash="", created=_NOW
        )
    )
    if role is not None:
        connection.execute(insert(schema.user_role).values(user=name, role=f"roles/{role}"))
