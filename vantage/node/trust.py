"""What the server tells of authorities and revocations, brought to the node's own store of whom it trusts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

import grpc

from vantage.api.admin.v1 import trust_service_pb2 as pb
from vantage.api.admin.v1 import trust_service_pb2_grpc as trust_grpc
from vantage.common.clock import Clock
from vantage.common.errors import Reason, VantageError, error
from vantage.common.rpc import error_from_rpc
from vantage.common.trust import TrustStore
from vantage.common.trust_record import Change, What
from vantage.node.connection import Connection, FatalError
from vantage.node.identity import Identity

log = logging.getLogger(__name__)

DIRECTORY = "trust"
"""Below the data directory."""
COMMAND = "vantage node trust"
_CALL_TIMEOUT = 20.0
MAX_BUNDLE_BYTES = 128 * 1024 * 1024
"""Of all pages of a bundle: they are in memory together, and how many there are is the server's word."""


def open_store(data_dir: Path, identity: Identity, clock: Clock, *, first_use: bool) -> TrustStore:
    """The node's store; the authority of its own organization is trusted, because it certified the node.

    Raises:
        ConfigurationError: the file is not usable.
    """
    return TrustStore(data_dir / DIRECTORY, clock=clock, first_use=first_use, own=identity.chain, command=COMMAND)


class BundleKeeper:
    """Fetches the bundle when the server says that there is another one; the session never waits for it.

    Args:
        store: where it goes.
        connection: the way to the server.
        changed: told what came of a bundle.
    """

    def __init__(self, store: TrustStore, connection: Connection, changed: Callable[[Change], None]) -> None:
        self._store = store
        self._connection = connection
        self._changed = changed
        self._have: int | None = None
        self._wanted = asyncio.Event()
        self._outdated: list[str] = []

    def welcomed(self) -> None:
        """A session began: whatever was missed meanwhile is fetched."""
        self._wanted.set()

    def told(self, version: int) -> None:
        """The server has said which version there is; called with each heartbeat, so that a failed try is repeated."""
        if version != self._have:
            self._wanted.set()

    async def run(self) -> None:
        """Fetch whenever asked; never returns."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._fetch()
            except FatalError as problem:
                log.warning("trust bundle not fetched", extra={"reason": problem.cause.reason.name})
            except VantageError as problem:
                if problem.reason is not Reason.UNIMPLEMENTED:  # an older server has none
                    log.warning("trust bundle not fetched", extra={"reason": problem.reason.name})

    async def _fetch(self) -> None:
        stub = trust_grpc.TrustServiceStub(await self._connection.channel())
        told: list[pb.OrganizationTrust] = []
        request = pb.GetTrustBundleRequest()
        version: int | None = None
        size = 0
        while version is None or request.page_token:
            metadata = await self._connection.metadata()
            try:
                page = await stub.GetTrustBundle(request, metadata=metadata, timeout=_CALL_TIMEOUT)
            except grpc.aio.AioRpcError as problem:
                raise error_from_rpc(problem) from problem
            told += page.organizations
            size += page.ByteSize()
            if size > MAX_BUNDLE_BYTES:
                raise error(
                    Reason.PAYLOAD_TOO_LARGE, f"the server's trust bundle has more than {MAX_BUNDLE_BYTES} bytes"
                )
            request.page_token = page.next_page_token
            if version is None:
                version = page.version  # what changes from here on is fetched again
        for change in await asyncio.to_thread(self._store.offer, told):
            self._changed(change)
        self._have = version
        outdated = await asyncio.to_thread(self._store.outdated)
        for organization in outdated:
            if organization not in self._outdated:
                log.warning("revocation list is no longer current", extra={"organization": organization})
        self._outdated = outdated


def describe(change: Change) -> str:
    """A change, for the console."""
    short = change.organization.rpartition("/")[2]
    match change.what:
        case What.PINNED:
            return f"trusts the authority {change.detail} of {change.organization} from now on"
        case What.OFFERED:
            return (
                f"the server names {change.detail} as an authority of {change.organization}: it is not trusted until "
                f"you compared that with its admin and ran: {COMMAND} add {short} --fingerprint {change.detail}"
            )
        case What.WITHDRAWN:
            return f"{change.organization} has given up its authority {change.detail}: it does not count any longer"
        case What.RESTORED:
            return f"{change.organization} has its authority {change.detail} again"
        case What.REVOCATIONS:
            return f"revocation list {change.detail} of {change.organization} is in force"
        case What.REFUSED:
            return f"what the server says of {change.organization} is not accepted: {change.detail}"
