"""Whom a user trusts, kept up to date with what the server tells of authorities and revocations."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from vantage.client.caller import Caller
from vantage.client.trust import bundle
from vantage.common.errors import PermissionDeniedError
from vantage.common.pki import CertifiedName
from vantage.common.trust import TrustStore

log = logging.getLogger(__name__)

CURRENT = timedelta(minutes=10)
"""How long what the server told is not asked for again."""


class Authorities:
    """Says who vouches for whom.

    Args:
        caller: asks the server.
        store: what the user trusts; the server only offers.
    """

    def __init__(self, caller: Caller, store: TrustStore) -> None:
        self._caller = caller
        self._store = store
        self._asked: datetime | None = None
        self._lock = asyncio.Lock()

    def certify(self, chain: Sequence[bytes], at: datetime) -> CertifiedName:
        """See ``dsse.Certify``; ``refresh`` first."""
        return self._store.certify(chain, at)

    async def refresh(self) -> None:
        """Learn what the server tells of authorities and revocations, unless that was done just now.

        Raises:
            VantageError: the server does not tell, or the file of the store is not usable.
        """
        async with self._lock:
            now = self._caller.clock.now()
            if self._asked is not None and now - self._asked < CURRENT:
                return
            try:
                told = await bundle(self._caller)
            except PermissionDeniedError:
                log.info("the server does not tell this user of authorities: what is pinned here counts")
            else:
                for change in await asyncio.to_thread(self._store.offer, told):
                    log.info("trust: %s", change)
                for organization in await asyncio.to_thread(self._store.outdated):
                    log.warning("what %s revoked lately is not known: its revocation list is out of date", organization)
            self._asked = now
