"""Lets nothing pass before a TLS ClientHello for one server name."""

from __future__ import annotations

import ssl

from vantage.common.errors import Reason, VantageError, error
from vantage.node.door import ByteStream

MAX_HELLO = 64 * 1024


class NotTlsError(Exception):
    """The bytes are not the beginning of a TLS connection."""


def server_name(data: bytes) -> tuple[bool, str | None]:
    """Which server name a ClientHello asks for: read by OpenSSL, as the server would.

    What is inside an encrypted ClientHello is not seen: the outer name counts.

    Returns:
        Whether the ClientHello is complete, and the name in it, if it has one.

    Raises:
        NotTlsError: it is none.
    """
    names: list[str | None] = []

    def seen(_connection: object, name: str | None, _context: object) -> int:
        names.append(name)
        return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME  # the handshake ends here

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    # What the two sides agree on is theirs: nothing is refused here for being old.
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.sni_callback = seen
    incoming = ssl.MemoryBIO()
    incoming.write(data)
    connection = context.wrap_bio(incoming, ssl.MemoryBIO(), server_side=True)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return False, None
    except ssl.SSLError:
        if not names:
            raise NotTlsError from None
    return True, names[0] if names else None


class NamedTls:
    """Keeps ``ByteStream`` over another: what is sent is held back until it is a ClientHello for the expected name.

    Args:
        stream: to the host.
        name: that is expected.
    """

    def __init__(self, stream: ByteStream, name: str) -> None:
        self._stream = stream
        self._name = name
        self._held = b""
        self._checked = False

    async def read(self) -> bytes:
        """See ``ByteStream``."""
        return await self._stream.read()

    async def write(self, data: bytes) -> None:
        """See ``ByteStream``.

        Raises:
            VantageError: EGRESS_REFUSED.
        """
        if self._checked:
            await self._stream.write(data)
            return
        self._held += data
        try:
            complete, found = server_name(self._held)
        except NotTlsError:
            raise self._refusal("what is sent is not TLS") from None
        if not complete:
            if len(self._held) > MAX_HELLO:
                raise self._refusal("its first message is too long")
            return
        if (found or "").lower() != self._name:
            raise self._refusal("the connection asks for another server name, or for none")
        self._checked = True
        held, self._held = self._held, b""
        await self._stream.write(held)

    async def finish(self) -> None:
        """See ``ByteStream``.

        Raises:
            VantageError: EGRESS_REFUSED.
        """
        if not self._checked:
            raise self._refusal("it ended before a TLS connection began")
        await self._stream.finish()

    def close(self) -> None:
        """See ``ByteStream``."""
        self._stream.close()

    def _refusal(self, why: str) -> VantageError:
        return error(Reason.EGRESS_REFUSED, f"{why}: the policy allows TLS with {self._name} (policy.egress)")
