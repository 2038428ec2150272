"""Where the bytes of payloads lie: what the server needs of such a place."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from vantage.common.errors import Reason, VantageError, error
from vantage.common.payload_frames import Chunk


class Incoming(Protocol):
    """An upload under way.

    Attributes:
        size: bytes so far, those of earlier attempts included.
    """

    size: int

    async def append(self, blocks: Sequence[Chunk]) -> None:
        """Take bytes; they are durable after ``keep`` or ``finish``.

        Raises:
            LimitExceededError: STORAGE_FULL.
            UnavailableError: PAYLOAD_STORE_UNAVAILABLE.
        """
        ...

    async def keep(self) -> None:
        """Make durable what is there, for a later continuation; harmless after ``finish``."""
        ...

    async def finish(self, digest: str) -> None:
        """Make the payload complete if its digest is right; durable afterwards.

        Raises:
            InvalidArgumentError: PAYLOAD_DIGEST_MISMATCH; nothing is left, the upload starts again at 0.
        """
        ...


class PayloadStore(Protocol):
    """A place for payloads, by their resource names. Every call may come again after a crash."""

    async def start(self) -> None:
        """Look whether the place can be used.

        Raises:
            ConfigurationError: it cannot.
        """
        ...

    async def offset(self, payload: str) -> int:
        """How many bytes of an upload are durable."""
        ...

    async def begin(self, payload: str, offset: int) -> Incoming:
        """Go on with an upload at an offset, which must be what is there.

        Raises:
            InvalidArgumentError: PAYLOAD_OFFSET_MISMATCH.
        """
        ...

    async def finished(self, payload: str) -> bool:
        """Whether ``finish`` came to its end, which a crash may have kept from whoever called it."""
        ...

    def read(self, payload: str, offset: int) -> AsyncGenerator[Chunk, None]:
        """The bytes of a complete payload from an offset, in chunks of at most ``CHUNK_SIZE``."""
        ...

    async def remove(self, payload: str) -> None:
        """Remove whatever there is of a payload, complete or not; harmless when there is nothing."""
        ...


def wrong_offset(stored: int) -> VantageError:
    """What ``begin`` raises."""
    return error(
        Reason.PAYLOAD_OFFSET_MISMATCH,
        f"{stored} bytes of this upload are stored: ask GetUpload and continue there",
        offset=str(stored),
    )


def wrong_digest(actual: str, digest: str) -> VantageError:
    """What ``finish`` raises."""
    return error(
        Reason.PAYLOAD_DIGEST_MISMATCH,
        f"what arrived has the digest {actual}, not {digest}: send it again from the start",
        actual=actual,
    )
