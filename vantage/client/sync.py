"""The client for programs that are not asynchronous: the same names, without ``await``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from vantage.client.client import AsyncClient
from vantage.client.codec import Identity
from vantage.client.facade import (
    Audit,
    Auth,
    Collaborations,
    Images,
    Keys,
    Memberships,
    Nodes,
    Organizations,
    Roles,
    Studies,
    Tasks,
    Trust,
    Users,
)
from vantage.client.keyring import Passphrase
from vantage.client.loop import LoopThread
from vantage.client.payloads import Transfer
from vantage.client.tokens import TokenStore


class Client:
    """Talks to a server for one user. Make one with ``connect`` or ``from_profile``; a context manager.

    Args:
        client: the asynchronous client that does the work.

    Attributes:
        auth: log-in and log-out.
        organizations: organizations.
        users: users.
        collaborations: collaborations.
        memberships: what your organization answers to collaborations.
        nodes: nodes.
        roles: roles.
        studies: named subsets of collaborations.
        audit: what the server decided.
        images: what algorithm images say of themselves.
        keys: lists of keys that payloads are sealed to.
        trust: authorities of organizations, and what they revoked.
        tasks: questions and answers.
    """

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._loop = loop = LoopThread()
        self.auth = Auth(client.auth, loop)
        self.organizations = Organizations(client.organizations, loop)
        self.users = Users(client.users, loop)
        self.collaborations = Collaborations(client.collaborations, loop)
        self.memberships = Memberships(client.memberships, loop)
        self.nodes = Nodes(client.nodes, loop)
        self.roles = Roles(client.roles, loop)
        self.studies = Studies(client.studies, loop)
        self.audit = Audit(client.audit, loop)
        self.images = Images(client.images, loop)
        self.keys = Keys(client.keys, loop)
        self.trust = Trust(client.trust, loop)
        self.tasks = Tasks(client.tasks, loop)

    @classmethod
    def connect(
        cls,
        address: str,
        *,
        fingerprint: str | None = None,
        ca: Path | str | None = None,
        tls: bool = True,
        token_store: TokenStore | None = None,
        transfer: Transfer | None = None,
        identity: Identity | Callable[[], Identity | None] | None = None,
    ) -> Self:
        """A client of a server; see ``AsyncClient.connect``."""
        return cls(
            AsyncClient.connect(
                address,
                fingerprint=fingerprint,
                ca=ca,
                tls=tls,
                token_store=token_store,
                transfer=transfer,
                identity=identity,
            )
        )

    @classmethod
    def from_profile(
        cls,
        name: str | None = None,
        *,
        transfer: Transfer | None = None,
        passphrase: Passphrase | None = None,
    ) -> Self:
        """A client of a server that ``vantage login`` knows; see ``AsyncClient.from_profile``."""
        return cls(AsyncClient.from_profile(name, transfer=transfer, passphrase=passphrase))

    def close(self) -> None:
        """End all calls and the connection; the session goes on."""
        try:
            self._loop.run(self._client.close())
        finally:
            self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
