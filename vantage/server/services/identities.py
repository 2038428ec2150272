"""Log-in at an identity provider (OpenID Connect), and who there is which user here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from vantage.common import names
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.server.domain.identity_tokens import Expected, IdentityToken, Nonce, Nonces, read_header, verify
from vantage.server.domain.principals import LoginMethod, UserKind, UserPrincipal
from vantage.server.services.access import missing
from vantage.server.services.credentials import overview
from vantage.server.services.directory import Directory
from vantage.server.services.logins import Logins, Tokens
from vantage.server.services.proofs import Proofs
from vantage.server.storage import credential_store, user_store
from vantage.server.storage.credential_store import Identity
from vantage.server.storage.database import Connection, Database
from vantage.server.storage.user_store import User

if TYPE_CHECKING:
    from vantage.server.services.provider_keys import ProviderKeys


@dataclass(frozen=True)
class Provider:
    """The server's identity provider.

    Attributes:
        expected: what its ID tokens must say.
        keys: where its keys are found.
        claim: claim whose values are mapped to users at their first log-in; empty for none.
        claim_users: value of the claim -> ``users/{user}``; values that are not in it are not mapped.
    """

    expected: Expected
    keys: ProviderKeys
    claim: str
    claim_users: Mapping[str, str]


class Identities:
    """Use cases of identities at a provider. Without a provider every call says so."""

    def __init__(
        self,
        database: Database,
        directory: Directory,
        logins: Logins,
        proofs: Proofs,
        nonces: Nonces,
        provider: Provider | None,
        clock: Clock,
    ) -> None:
        self._database = database
        self._directory = directory
        self._logins = logins
        self._proofs = proofs
        self._nonces = nonces
        self._provider = provider
        self._clock = clock

    def begin(self) -> tuple[str, datetime]:
        """A nonce for a log-in, and when it expires.

        Raises:
            InvalidArgumentError: IDENTITY_PROVIDER_MISSING.
        """
        self._configured()
        return self._nonces.create(self._clock.now())

    async def exchange(self, nonce_text: str, id_token: str, peer: str) -> Tokens:
        """Log in the user whom an ID token is linked to, or is mapped to by the configuration.

        Raises:
            VantageError: IDENTITY_TOKEN_INVALID, IDENTITY_TOKEN_REPLAYED, IDENTITY_UNKNOWN, IDENTITY_PROVIDER_MISSING,
                IDENTITY_PROVIDER_UNAVAILABLE.
        """
        provider = self._configured()
        token, nonce = await self._verify(provider, nonce_text, id_token)

        def unit(connection: Connection) -> Tokens:
            self._use(connection, token, nonce)
            link = credential_store.get_identity(connection, token.issuer, token.subject)
            user = link.user if link is not None else self._mapped(connection, provider, token)
            if user is None:
                raise error(
                    Reason.IDENTITY_UNKNOWN,
                    f"no user is linked to this identity: log in with a password and link it, or ask an admin to link "
                    f"the subject {token.subject!r}",
                )
            return self._logins.open(connection, user, LoginMethod.IDENTITY, peer)

        return await self._database.write(unit)

    async def link(self, user: UserPrincipal, nonce_text: str, id_token: str, password: str, code: str) -> Identity:
        """Link the identity of an ID token to the caller, who proves the password again when they have one.

        Raises:
            VantageError: those of ``exchange`` but IDENTITY_UNKNOWN; CREDENTIALS_INVALID, ONE_TIME_CODE_REQUIRED,
                LOCKED_OUT; ALREADY_EXISTS; ENROLMENT_STATE for service accounts.
        """
        token, nonce = await self._verify(self._configured(), nonce_text, id_token)
        known = await self._database.read(lambda connection: user_store.get(connection, user.name))

        def then(connection: Connection, _known: User | None = None) -> Identity | VantageError:
            self._use(connection, token, nonce)
            current = user_store.get(connection, user.name)
            if current is None or current.kind is not UserKind.PERSON:
                return error(Reason.ENROLMENT_STATE, "a service account logs in with its certified key only")
            wanted = Identity(token.issuer, token.subject, user.name, self._clock.now())
            linked = credential_store.link_identity(connection, wanted)
            return linked if linked.user == user.name else taken()

        if known is not None and known.password_hash:
            linked = await self._proofs.verify(user.name, password, code, then)
        else:
            linked = await self._database.write(then)
        if isinstance(linked, VantageError):
            raise linked
        return linked

    async def unlink(self, user: UserPrincipal, issuer: str, subject: str) -> int:
        """Remove a link of the caller and end their other sessions that began with an identity.

        Returns how many ended.

        Raises:
            NotFoundError: there is no such link.
            ConflictError: ENROLMENT_STATE: the caller could not log in any more.
        """

        def unit(connection: Connection) -> int:
            if not credential_store.unlink_identity(connection, user.name, issuer, subject):
                raise missing("this identity of yours")
            left = overview(connection, user.name)
            if not left.has_password and not left.identities:
                raise error(
                    Reason.ENROLMENT_STATE,
                    "you could not log in any more: link another identity or get a password first",
                )
            return user_store.end_sessions(connection, user.name, keep=user.session_id, method=LoginMethod.IDENTITY)

        ended = await self._database.write(unit)
        self._directory.forget()
        return ended

    def _configured(self) -> Provider:
        if self._provider is None:
            raise error(
                Reason.IDENTITY_PROVIDER_MISSING,
                "the server has no identity provider: log in with a password, or ask its operator to configure one",
            )
        return self._provider

    async def _verify(self, provider: Provider, nonce_text: str, id_token: str) -> tuple[IdentityToken, Nonce]:
        now = self._clock.now()
        # The nonce first: without one of ours nothing is fetched and no signature is checked.
        nonce = self._nonces.check(nonce_text, now)
        key = await provider.keys.find(read_header(id_token, provider.expected))
        return verify(id_token, key, provider.expected, nonce, now), nonce

    def _use(self, connection: Connection, token: IdentityToken, nonce: Nonce) -> None:
        now = self._clock.now()
        for kind, id_, expires in (("nonce", nonce.id, nonce.expires), ("token", token.id, token.expires)):
            if not user_store.use_assertion(connection, f"identity {kind}", id_, expires, now):
                raise error(Reason.IDENTITY_TOKEN_REPLAYED, f"the {kind} was used before: log in at the provider again")

    def _mapped(self, connection: Connection, provider: Provider, token: IdentityToken) -> str | None:
        value = token.claims.get(provider.claim) if provider.claim else None
        if not isinstance(value, str):
            return None
        if provider.claim == "email" and token.claims.get("email_verified") is not True:
            return None  # anybody can say any address
        user = provider.claim_users.get(value)
        known = user_store.get(connection, user) if user is not None and names.is_valid(user, "users") else None
        if user is None or known is None or known.kind is not UserKind.PERSON:
            return None
        # From now on the subject counts: claims change owners. So a user who was mapped once is not mapped again.
        if any(each.issuer == token.issuer for each in credential_store.identities_of(connection, user)):
            return None
        identity = Identity(token.issuer, token.subject, user, self._clock.now())
        return credential_store.link_identity(connection, identity).user


def taken() -> VantageError:
    """The identity belongs to somebody; to whom is not said, for the caller may not see that user."""
    return error(Reason.ALREADY_EXISTS, "this identity is linked to another user: unlink it there first")
