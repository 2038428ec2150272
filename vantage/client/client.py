"""The asynchronous client: one connection, one user."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from vantage.client import profiles
from vantage.client.admin import AsyncCollaborations, AsyncNodes, AsyncOrganizations, AsyncUsers
from vantage.client.auth import AsyncAuth
from vantage.client.caller import Caller
from vantage.client.codec import Codec, Identity
from vantage.client.connection import GrpcTransport, ServerAddress, Transport
from vantage.client.governance import AsyncAudit, AsyncRoles, AsyncStudies
from vantage.client.images import AsyncImages
from vantage.client.keyring import Passphrase
from vantage.client.keys import AsyncKeys, load_identity
from vantage.client.memberships import AsyncMemberships
from vantage.client.payloads import Payloads, Transfer
from vantage.client.tasks import AsyncTasks
from vantage.client.tokens import FileTokenStore, MemoryTokenStore, TokenStore
from vantage.client.trust import AsyncTrust
from vantage.common.clock import Clock, SystemClock


class AsyncClient:
    """Talks to a server for one user. Make one with ``connect`` or ``from_profile``; a context manager.

    Args:
        transport: carries the calls.
        token_store: keeps the tokens of the log-in.
        transfer: is told how far uploads and downloads are.
        identity: keys of the user and whom they trust, or what gives them when they are needed first; without, tasks
            are neither signed nor sealed, and nodes refuse them unless their admins allow it.
        clock: the time.

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

    def __init__(
        self,
        transport: Transport,
        token_store: TokenStore | None = None,
        *,
        transfer: Transfer | None = None,
        identity: Identity | Callable[[], Identity | None] | None = None,
        clock: Clock | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self._caller = Caller(transport, token_store or MemoryTokenStore(), clock)
        self.auth = AsyncAuth(self._caller)
        self.organizations = AsyncOrganizations(self._caller)
        self.users = AsyncUsers(self._caller)
        self.collaborations = AsyncCollaborations(self._caller)
        self.memberships = AsyncMemberships(self._caller)
        self.nodes = AsyncNodes(self._caller)
        self.roles = AsyncRoles(self._caller)
        self.studies = AsyncStudies(self._caller)
        self.audit = AsyncAudit(self._caller)
        self.images = AsyncImages(clock)
        provide = identity if callable(identity) else lambda: identity
        self.keys = AsyncKeys(self._caller)
        self.trust = AsyncTrust(self._caller)
        self.tasks = AsyncTasks(
            self._caller, Codec(self._caller, Payloads(self._caller, transfer), provide), self.images
        )

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
        """A client of a server; nobody is logged in, unless the token store has tokens.

        Without ``fingerprint`` and ``ca``, the authorities of the system say who the server is.

        Args:
            address: ``host:port``.
            fingerprint: of the server's certificate, as ``vantage server fingerprint`` prints it.
            ca: file with the certificate, or that of its authority, PEM.
            tls: False for a connection without TLS, on loopback only.
            token_store: keeps the tokens; in memory when None.
            transfer: is told how far uploads and downloads are.
            identity: keys of the user and whom they trust: see ``AsyncClient``.

        Raises:
            InvalidArgumentError: the address or the fingerprint is malformed.
            ConfigurationError: the arguments contradict each other.
        """
        server = ServerAddress(address, fingerprint, None if ca is None else Path(ca), tls)
        return cls(GrpcTransport(server), token_store, transfer=transfer, identity=identity)

    @classmethod
    def from_profile(
        cls,
        name: str | None = None,
        *,
        transfer: Transfer | None = None,
        passphrase: Passphrase | None = None,
    ) -> Self:
        """A client of a server that ``vantage login`` knows, with the session and the keys of that profile.

        Args:
            name: of the profile; the current one when None.
            transfer: is told how far uploads and downloads are.
            passphrase: of the key; from ``VANTAGE_KEY_PASSPHRASE`` or the system's keyring when None.

        Raises:
            ConfigurationError: there is no such profile.
        """
        chosen, profile = profiles.load().get(name)
        return cls.connect(
            profile.address,
            fingerprint=profile.fingerprint,
            ca=profile.ca,
            tls=profile.tls,
            token_store=FileTokenStore(profiles.token_path(chosen)),
            transfer=transfer,
            identity=lambda: load_identity(profiles.keys_path(chosen), passphrase),
        )

    async def close(self) -> None:
        """End all calls and the connection; the session goes on."""
        await self._caller.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
