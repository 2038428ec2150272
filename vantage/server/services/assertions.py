"""Log-in with a certified key: nodes, service accounts, and people who have one."""

from __future__ import annotations

from vantage.common import names, pki
from vantage.common.assertion import Assertion, verify_assertion
from vantage.common.clock import Clock
from vantage.common.errors import Reason, error
from vantage.server.domain.tokens import AccessTokens
from vantage.server.services.logins import Logins, Tokens
from vantage.server.storage import certificate_store, organization_store, user_store
from vantage.server.storage.database import Connection, Database


class Assertions:
    """Exchanges JWT assertions (RFC 7523) for access tokens."""

    def __init__(self, database: Database, tokens: AccessTokens, logins: Logins, audience: str, clock: Clock) -> None:
        self._database = database
        self._tokens = tokens
        self._logins = logins
        self._audience = audience
        self._clock = clock

    async def exchange(self, text: str, peer: str) -> Tokens:
        """Give a node or a user an access token for a signed assertion.

        The checks, in order: those of ``verify_assertion``; the name in the certificate is that of a node, or of a user
        who belongs to the organization that certified it; the certificate is not revoked and none newer was used; the
        assertion is new.

        Raises:
            VantageError: see ``verify_assertion``; PRINCIPAL_UNKNOWN, CERTIFICATE_REVOKED, CERTIFICATE_SUPERSEDED,
                ASSERTION_REPLAYED.
        """
        # The signatures are checked by a reader first: the only writer is not for work that strangers can cause.
        await self._database.read(lambda connection: self._verify(connection, text))
        return await self._database.write(lambda connection: self._open(connection, text, peer))

    def _verify(self, connection: Connection, text: str) -> Assertion:
        return verify_assertion(
            text,
            self._audience,
            lambda organization: certificate_store.authorities(connection, organization),
            self._clock,
        )

    def _open(self, connection: Connection, text: str, peer: str) -> Tokens:
        assertion = self._verify(connection, text)  # again: the authorities may have changed meanwhile
        principal = _principal(connection, assertion)
        certificate_store.use(
            connection, assertion.principal, assertion.certificate, assertion.authority, self._clock.now()
        )
        used = user_store.use_assertion(
            connection, assertion.principal, assertion.jti, assertion.expires, self._clock.now()
        )
        if not used:
            raise error(Reason.ASSERTION_REPLAYED, "the assertion was used before: sign a new one for each exchange")
        serial = pki.serial_text(assertion.certificate)
        if principal.startswith("users/"):
            return self._logins.open_for_key(connection, principal, serial, peer)
        return Tokens(principal, self._tokens.issue(principal, None, serial))


def _principal(connection: Connection, assertion: Assertion) -> str:
    certified = assertion.principal
    if names.is_valid(certified, "organizations/users"):
        # User names are unique on the server: only the organization that the user belongs to vouches for them.
        name = f"users/{names.parse(certified, 'organizations/users').id}"
        user = user_store.get(connection, name)
        if user is not None and user.organization == assertion.organization:
            return name
    elif organization_store.get_node(connection, certified) is not None:
        return certified
    raise error(
        Reason.PRINCIPAL_UNKNOWN,
        f"{certified} is not known here: an admin of its organization creates the node or user first",
    )
