"""The way to the server: channel, access token, and whether a failure is final."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import datetime, timedelta

import grpc

from vantage.api.identity.v1 import auth_service_pb2 as auth_pb
from vantage.api.identity.v1 import auth_service_pb2_grpc as auth_grpc
from vantage.common.backoff import Backoff
from vantage.common.clock import Clock
from vantage.common.errors import (
    InternalError,
    PermissionDeniedError,
    Reason,
    UnauthenticatedError,
    VantageError,
)
from vantage.common.rpc import ServerTrust, bearer, error_from_rpc, open_channel
from vantage.node.config import ServerSection
from vantage.node.identity import Identity
from vantage.node.renewal import Renewal

log = logging.getLogger(__name__)

_CALL_TIMEOUT = 20.0
_PROBE_TIMEOUT = 5.0
_OPTIONS = (("grpc.use_local_subchannel_pool", 1),)
"""Otherwise a channel that is opened anew would share the dead connection of the one before."""
_LINGER = 60.0
"""Seconds that calls have on a channel that is given up: keep-alive finds out before that the connection is dead."""
_REFRESH_SHARE = 0.25
"""A token is replaced when less than this share of its life is left."""
_MENDS_ITSELF = frozenset(
    {Reason.CLOCK_SKEWED, Reason.ASSERTION_REPLAYED, Reason.UNAUTHENTICATED, Reason.TOKEN_EXPIRED}
)
"""Failures of authentication that another attempt with a fresh assertion can mend."""


class FatalError(Exception):
    """The server does not admit this node: trying again cannot help, a person must act.

    Args:
        cause: what the server said.
    """

    def __init__(self, cause: VantageError) -> None:
        super().__init__(cause.message)
        self.cause = cause


def is_fatal(problem: VantageError) -> bool:
    """Whether a failure after a fresh assertion ends the agent: not admitted, not allowed, or not spoken here."""
    if problem.reason in _MENDS_ITSELF:
        return False
    if isinstance(problem, UnauthenticatedError | PermissionDeniedError):
        return True
    return problem.reason is Reason.SESSION_FENCED or (
        isinstance(problem, InternalError) and problem.reason is Reason.UNIMPLEMENTED
    )


class Connection:
    """The way to the server: a channel for the session and for calls, and one for what is large.

    On a slow line megabytes wait in the buffers of their connection, and whatever is sent after them waits as long: a
    heartbeat, for a payload of 3 MiB at 4 Mbit/s, six seconds. Connections of their own share the line.

    Args:
        server: where it is.
        identity: who asks.
        clock: the time.
        renewal: looks for newer certificates; None to leave it at this one.
    """

    def __init__(self, server: ServerSection, identity: Identity, clock: Clock, renewal: Renewal | None = None) -> None:
        self.identity = identity
        self._renewal = renewal
        self._server = server
        self._clock = clock
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._pinned: ServerTrust | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()
        self._token = ""
        self._refresh_at: datetime | None = None
        self._refusals = 0
        self._back = asyncio.Event()

    @property
    def address(self) -> str:
        """Where the server is."""
        return self._server.address

    async def channel(self) -> grpc.aio.Channel:
        """The channel, opened on first use.

        Raises:
            VantageError: the server cannot be reached, or shows another certificate than the pinned one.
        """
        return await self._open("session")

    async def bulk_channel(self) -> grpc.aio.Channel:
        """The channel for payloads, opened on first use.

        Raises:
            VantageError: as for ``channel``.
        """
        return await self._open("bulk")

    async def _open(self, purpose: str) -> grpc.aio.Channel:
        if purpose not in self._channels:
            trust = await self.trust()
            if purpose not in self._channels:  # another call may have opened it meanwhile: two would never be closed
                self._channels[purpose] = open_channel(self._server.address, trust, options=_OPTIONS)
        return self._channels[purpose]

    async def reopen(self, problem: VantageError) -> None:
        """Forget the channels: the next use makes new ones.

        Calls that are under way end by themselves: a channel that is closed under them would cancel whoever waits.
        """
        if "handshake" in problem.message.lower():
            self._pinned = None  # the server may have another certificate: the next use looks, and says so
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            closing = asyncio.create_task(channel.close(_LINGER), name="old channel")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """End the connection, and calls that are under way."""
        for each in self._closing:
            each.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()

    @property
    def refused(self) -> bool:
        """Whether the latest attempt to connect has failed: then no call was made at all."""
        channel = self._channels.get("session")
        return channel is not None and channel.get_state() is grpc.ChannelConnectivity.TRANSIENT_FAILURE

    async def answers(self) -> bool:
        """Whether the server answers a unary call now."""
        try:
            stub = auth_grpc.AuthServiceStub(await self.channel())
            await stub.GetServerInfo(auth_pb.GetServerInfoRequest(), timeout=_PROBE_TIMEOUT)
        except (grpc.aio.AioRpcError, VantageError):
            return False
        return True

    async def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata for a call: a token that is good for a while.

        Raises:
            FatalError: the server does not admit the node.
            VantageError: it cannot be asked now.
        """
        async with self._lock:
            if self._refresh_at is None or self._clock.now() >= self._refresh_at:
                await self._authenticate()
            return (bearer(self._token),)

    async def look_for_renewal(self) -> None:
        """Show a new certificate, if one came, and warn when the present one ends soon.

        Raises:
            VantageError: the server cannot be asked now.
        """
        if self._renewal is None:
            return
        self._renewal.warn()
        if not await asyncio.to_thread(self._renewal.changed):
            return
        async with self._lock:
            candidate = await asyncio.to_thread(self._renewal.candidate)
            if candidate is not None:
                await self._renew(auth_grpc.AuthServiceStub(await self.channel()), self._renewal, candidate)

    def token_refused(self) -> bool:
        """The server did not accept the token: get a new one for the next call. Says whether that was tried already."""
        self._refresh_at = None
        self._refusals += 1
        return self._refusals > 1

    def welcomed(self) -> None:
        """The server has taken a session: the token is good, and whoever waits for the server tries now."""
        self._refusals = 0
        waiting, self._back = self._back, asyncio.Event()
        waiting.set()

    async def pause(self, backoff: Backoff) -> None:
        """Wait before the next attempt, but not longer than until the server takes a session of this node."""
        try:
            async with asyncio.timeout(backoff.next_delay()):
                await self._back.wait()
        except TimeoutError:
            return
        backoff.reset()

    async def trust(self) -> ServerTrust | None:
        """How the server is recognised, and how the node shows itself to it; None without TLS."""
        if not self._server.tls:
            return None
        trust = await self._recognised()
        return replace(trust, client=self.identity.pair()) if self._server.mtls else trust

    async def _recognised(self) -> ServerTrust:
        if self._server.fingerprint is not None:
            if self._pinned is None:
                self._pinned = await ServerTrust.from_fingerprint(self._server.address, self._server.fingerprint)
            return self._pinned
        if self._server.ca is not None:
            return ServerTrust.from_pem(await asyncio.to_thread(self._server.ca.read_bytes))
        return ServerTrust.system()

    async def _authenticate(self) -> None:
        auth = auth_grpc.AuthServiceStub(await self.channel())
        if self._renewal is not None:
            candidate = await asyncio.to_thread(self._renewal.candidate)
            if candidate is not None and await self._renew(auth, self._renewal, candidate):
                return
            self._renewal.warn()
        await self._exchange(auth, self.identity)

    async def _renew(self, auth: auth_grpc.AuthServiceStub, renewal: Renewal, candidate: Identity) -> bool:
        """Show a new certificate; whether the server took it. When it does not, the present one goes on."""
        try:
            await self._exchange(auth, candidate)
        except FatalError as problem:
            renewal.refused(problem.cause)
            return False
        self.identity = candidate
        await asyncio.to_thread(renewal.accepted, candidate)
        return True

    async def _exchange(self, auth: auth_grpc.AuthServiceStub, identity: Identity) -> None:
        try:
            info = await auth.GetServerInfo(auth_pb.GetServerInfoRequest(), timeout=_CALL_TIMEOUT)
            answer = await auth.ExchangeAssertion(
                auth_pb.ExchangeAssertionRequest(assertion=identity.assertion(info.audience, self._clock)),
                timeout=_CALL_TIMEOUT,
            )
        except grpc.aio.AioRpcError as problem:
            cause = error_from_rpc(problem)
            if is_fatal(cause):
                raise FatalError(cause) from problem
            raise cause from problem
        lifetime = answer.tokens.access_expires_in.ToTimedelta()
        self._token = answer.tokens.access_token
        # Counted from now on this machine's clock: that of the server does not matter.
        self._refresh_at = self._clock.now() + lifetime * (1 - _REFRESH_SHARE)
        log.info("authenticated", extra={"principal": answer.principal, "lifetime": lifetime / timedelta(seconds=1)})
