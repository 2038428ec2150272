"""TLS 1.3 from node to node, inside whatever a relay forwards: both sides show their organization's certificate.

The standard library's TLS over memory instead of a socket. A relay, or the server, that changes, drops, repeats,
reorders or swaps what it forwards is noticed by the record layer; one that pairs two strangers by the certificates; one
that cuts the end off by the missing farewell of the link.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable
from pathlib import Path

from vantage.common.errors import Reason, VantageError, error
from vantage.node.tunnels.wire import Wire

HANDSHAKE_SECONDS = 15.0
_ALPN = "vantage-peers/1"
_READ = 16 * 1024
"""A record of TLS holds no more."""


def tls_context(
    certificate: Path, key: Path, roots: str, *, server_side: bool, passphrase: bytes | None = None
) -> ssl.SSLContext:
    """A context that shows this node's certificate and accepts what chains to the other organization's authorities.

    Args:
        certificate: PEM file, chain of this node.
        key: PEM file.
        roots: authorities of the other node's organization, PEM.
        server_side: which end of TLS this is.
        passphrase: of the key.

    Raises:
        VantageError: KEY_INVALID, or CERTIFICATE_UNTRUSTED without roots.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server_side else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3  # forward secrecy without exception
    context.check_hostname = False  # nodes have resource names, not host names: the caller compares them
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols([_ALPN])
    if server_side:
        context.num_tickets = 0  # no resumption of TLS: each connection proves anew who is there
    try:
        # Empty instead of None: the library would ask for the passphrase at the terminal, and wait.
        context.load_cert_chain(certificate, key, passphrase or b"")
    except (OSError, ssl.SSLError) as problem:
        raise error(Reason.KEY_INVALID, f"key or certificate of this node cannot be used: {problem}") from problem
    try:
        context.load_verify_locations(cadata=roots)
    except (ssl.SSLError, ValueError) as problem:
        raise error(
            Reason.CERTIFICATE_UNTRUSTED, "the organization of the other node has no usable authority certificate"
        ) from problem
    return context


class SecureWire:
    """Keeps ``Wire``: what is sent here is sealed for the other node alone. Only ``handshake`` builds it."""

    def __init__(self, wire: Wire, context: ssl.SSLContext, *, server_side: bool) -> None:
        self._wire = wire
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._closed = False

    @classmethod
    async def handshake(
        cls, wire: Wire, context: ssl.SSLContext, check: Callable[[bytes], None], *, server_side: bool
    ) -> SecureWire:
        """Find out who is there, and seal.

        Args:
            wire: to the other side; closed when this fails.
            context: of ``tls_context``.
            check: called with the other side's certificate (DER); raises when it is not the right one.
            server_side: which end of TLS this is.

        Raises:
            VantageError: CERTIFICATE_UNTRUSTED, RELAY_TAMPERED, or that of ``check`` or the wire.
        """
        made = cls(wire, context, server_side=server_side)
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await made._shake_hands()
            certificate = made._tls.getpeercert(binary_form=True)
            if certificate is None or made._tls.selected_alpn_protocol() != _ALPN:
                raise error(Reason.CERTIFICATE_UNTRUSTED, "the other side did not show who it is")
            check(certificate)
        except TimeoutError:
            await wire.close()
            raise error(Reason.RELAY_PEER_LOST, "the other node did not complete the TLS handshake in time") from None
        except BaseException:
            await wire.close()
            raise
        return made

    async def send(self, data: bytes) -> None:
        """See ``Wire``."""
        try:
            self._tls.write(data)
        except ssl.SSLError as problem:
            raise _translate(problem) from problem
        await self._flush()

    async def receive(self) -> bytes:
        """See ``Wire``; no bytes when the other node closed TLS.

        Raises:
            VantageError: RELAY_TAMPERED, RELAY_PEER_LOST when it ends without that, or that of the wire.
        """
        while True:
            if found := self._read():
                return found
            if self._closed:
                return b""
            data = await self._wire.receive()
            if not data:
                raise error(Reason.RELAY_PEER_LOST, "the connection ended in the middle")
            self._incoming.write(data)

    async def close(self) -> None:
        """See ``Wire``."""
        # The farewell that counts is the link's; whoever gets neither sees the connection end in the middle.
        await self._wire.close()

    def _read(self) -> bytes:
        """Everything that can be opened now, which may be nothing; notes the close of TLS, which nothing follows."""
        parts = []
        try:
            # One record is taken out of the buffer at a time: an empty one is not asked, only to hear that it is empty.
            while self._incoming.pending and not self._closed:
                part = self._tls.read(_READ)
                parts.append(part)
                self._closed = not part
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._closed = True
        except ssl.SSLError as problem:
            raise _translate(problem) from problem
        return b"".join(parts)

    async def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                data = await self._wire.receive()
                if not data:
                    raise error(Reason.RELAY_PEER_LOST, "the connection ended during the TLS handshake") from None
                self._incoming.write(data)
            except ssl.SSLError as problem:
                # The alert tells the other side why.
                with contextlib.suppress(VantageError):  # it is gone; what is raised says more
                    await self._flush()
                raise _translate(problem) from problem
            else:
                await self._flush()
                return

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await self._wire.send(self._outgoing.read())


def _translate(problem: ssl.SSLError) -> VantageError:
    what = problem.reason or type(problem).__name__
    if isinstance(problem, ssl.SSLCertVerificationError):
        return error(
            Reason.CERTIFICATE_UNTRUSTED,
            f"the other node's certificate is not trusted: {problem.verify_message}",
        )
    if "ALERT" in what and any(each in what for each in ("CERT", "CA", "ACCESS")):
        return error(Reason.CERTIFICATE_UNTRUSTED, f"the other node does not trust this node's certificate ({what})")
    return error(
        Reason.RELAY_TAMPERED,
        f"what the relay forwarded is not what the other node sent ({what}): the relay, or something before it, "
        "changes the data",
    )
