"""Lets nothing pass before a TLS ClientHello for one server name."""

from __future__ import annotations

import ssl

from vantage.common.errors import Reason, VantageError, error
from vantage.node.door import ByteStream

MAX_HELLO = 64 * 1024


class NotTlsError(Exception):
    """The bytes are not the beginning of a TLS connection."""


class ClientHello:
    """The first message of a TLS connection, taken as it arrives: read by OpenSSL, as the server would.

    What is inside an encrypted ClientHello is not seen: the outer name counts.

    Attributes:
        complete: whether all of it was taken.
        name: of the server that it asks for, if it has one.
    """

    def __init__(self) -> None:
        self.complete = False
        self.name: str | None = None
        self._other = False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # What the two sides agree on is theirs: nothing is refused here for being old.
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.sni_callback = self._seen
        self._incoming = ssl.MemoryBIO()
        self._connection = context.wrap_bio(self._incoming, ssl.MemoryBIO(), server_side=True)

    def take(self, data: bytes) -> None:
        """Take what follows.

        Raises:
            NotTlsError: it is none.
        """
        if self._other:  # whatever OpenSSL thinks of what comes later
            raise NotTlsError
        self._incoming.write(data)
        try:
            self._connection.do_handshake()
        except ssl.SSLWantReadError:
            return
        except ssl.SSLError:
            if not self.complete:
                self._other = True
                raise NotTlsError from None

    def _seen(self, _connection: object, name: str | None, _context: object) -> int:
        self.complete, self.name = True, name
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME  # the handshake ends here


class NamedTls:
    """Keeps ``ByteStream`` over another: what is sent is held back until it is a ClientHello for the expected name.

    Args:
        stream: to the host.
        name: that is expected.
    """

    def __init__(self, stream: ByteStream, name: str) -> None:
        self._stream = stream
        self._name = name
        self._held = bytearray()
        self._hello: ClientHello | None = ClientHello()

    async def read(self) -> bytes:
        """See ``ByteStream``."""
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        """See ``ByteStream``.

        Raises:
            VantageError: EGRESS_REFUSED.
        """
        if self._hello is None:
            await self._stream.write(data)
            return
        self._held += data
        try:
            self._hello.take(data)
        except NotTlsError:
            raise self._refusal("what is sent is not TLS") from None
        if not self._hello.complete:
            if len(self._held) > MAX_HELLO:
                raise self._refusal("its first message is too long")
            return
        if (self._hello.name or "").lower() != self._name:
            raise self._refusal("the connection asks for another server name, or for none")
        self._hello = None
        held, self._held = bytes(self._held), bytearray()
        await self._stream.write(held)

    async def finish(self) -> None:
        """See ``ByteStream``.

        Raises:
            VantageError: EGRESS_REFUSED.
        """
        if self._hello is not None:
            raise self._refusal("it ended before a TLS connection began")
        await self._stream.finish()

    def close(self) -> None:
        """See ``ByteStream``."""
        self._stream.close()

    def _refusal(self, why: str) -> VantageError:
        return error(Reason.EGRESS_REFUSED, f"{why}: the policy allows TLS with {self._name} (policy.egress)")
