"""Mutual TLS on a port of its own: whoever connects there shows a certificate of an organization that is known here.

The token of a call remains what admits it; on this port it must also be that of the holder of the connection's
certificate, so that a token that was stolen is worth nothing without the key.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import TimeoutError as WaitTimeoutError
from typing import Any

import grpc

from vantage.common import pki
from vantage.common.errors import Reason, error
from vantage.server.domain.principals import Principal, UserPrincipal
from vantage.server.services.directory import Directory
from vantage.server.storage import organization_store
from vantage.server.storage.database import Database

log = logging.getLogger(__name__)

_PATIENCE = 5.0
"""Seconds that a handshake waits for the authorities to be read."""


class MutualTls:
    """Credentials of the port, which follow the authorities that organizations add and remove.

    Args:
        database: knows the authorities.
        directory: says when something may have changed.
        pair: private key and certificate of the server, PEM.
    """

    def __init__(self, database: Database, directory: Directory, pair: tuple[bytes, bytes]) -> None:
        self._database = database
        self._directory = directory
        self._pair = pair
        self._version = -1
        self._loop: asyncio.AbstractEventLoop | None = None

    async def credentials(self) -> grpc.ServerCredentials:
        """For ``add_secure_port``."""
        self._loop = asyncio.get_running_loop()
        return grpc.dynamic_ssl_server_credentials(
            await self._configuration(),
            self._fetch,  # type: ignore[arg-type]  # None is documented to mean that nothing changed
            require_client_authentication=True,
        )

    async def _configuration(self) -> grpc.ServerCertificateConfiguration:
        version = self._directory.version
        pems = await self._database.read(organization_store.all_certificates)
        self._version = version
        # Without any, the library would take everybody's: then only the server itself could connect.
        roots = "".join(pems).encode() or self._pair[1]
        return grpc.ssl_server_certificate_configuration([self._pair], root_certificates=roots)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called at each handshake, on a thread of the library; None when nothing changed."""
        if self._loop is None or self._version == self._directory.version:
            return None
        found = asyncio.run_coroutine_threadsafe(self._configuration(), self._loop)
        try:
            return found.result(_PATIENCE)
        except WaitTimeoutError:
            # What is removed meanwhile is still turned away by its token.
            log.warning("authorities not read in time for a handshake")
            found.cancel()
            return None


def check_holder(principal: Principal, context: Any) -> None:
    """Check that a call on the port of mutual TLS comes from the holder of the connection's certificate.

    Raises:
        PermissionDeniedError: CERTIFICATE_UNTRUSTED.
    """
    shown = context.auth_context().get("x509_subject_alternative_name")
    if shown is None:
        return  # came in by the other port, which asks for no certificate
    name = principal.name
    if isinstance(principal, UserPrincipal):
        name = f"{principal.organization}/{principal.name}"
    if [each.decode(errors="replace") for each in shown] != [pki.URI_PREFIX + name]:
        raise error(
            Reason.CERTIFICATE_UNTRUSTED,
            f"the connection was opened with another certificate than that of {principal.name}: use the key and the "
            "certificate that the token was got with",
        )
