"""What travels inside tasks and answers: bytes with a media type, and reasons for their absence."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from vantage.common import names
from vantage.common.errors import Reason, error

DEFAULT_INLINE_LIMIT = 1024 * 1024
"""Largest payload that travels inside a message, unless the configuration says otherwise."""
MAX_MEDIA_TYPE = 200
MAX_FAILURE_TEXT = 4_000


@dataclass(frozen=True, slots=True)
class Payload:
    """Arguments or a result, inline or by reference.

    Attributes:
        media_type: media type of the opened bytes.
        sealing: how the bytes are protected, by the contract's number.
        inline: the bytes, or None when they are stored as ``reference``.
        reference: ``payloads/{payload}``; the run whose result it is, when many together are too large; or None.
        size: number of bytes as transported.
        digest: ``sha256:`` and 64 hexadecimal digits of the bytes as transported.
    """

    media_type: str
    sealing: int
    inline: bytes | None
    reference: str | None
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Quota:
    """What all uploaded payloads of an organization may be together.

    Attributes:
        size: bytes; None for any number.
        count: how many: also empty ones take a row and a file.
    """

    size: int | None = None
    count: int = 100_000


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no result."""

    reason: str
    message: str
    metadata: dict[str, str] = field(default_factory=dict)


def inline_payload(content: bytes, media_type: str, sealing: int, limit: int, where: str) -> Payload:
    """Build a payload from bytes that arrived inside a message.

    Raises:
        LimitExceededError: PAYLOAD_TOO_LARGE.
        InvalidArgumentError: the media type is unreasonable.
    """
    if len(content) > limit:
        raise error(
            Reason.PAYLOAD_TOO_LARGE,
            f"{where} has {len(content)} bytes; at most {limit} travel inline: upload it and send its reference",
            field=where,
        )
    _check_media_type(media_type, where)
    return Payload(media_type, sealing, content, None, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}")


def referenced_payload(reference: str, media_type: str, sealing: int, where: str) -> Payload:
    """Build a payload that refers to an upload; size and digest are those of the stored one, filled in later."""
    names.parse(reference, "payloads", field=f"{where}.reference")
    _check_media_type(media_type, where)
    return Payload(media_type, sealing, None, reference, 0, "")


def bounded_failure(reason: str, message: str, metadata: dict[str, str]) -> Failure:
    """A failure as a node reported it, cut to what is kept."""
    return Failure(
        reason[:80] or Reason.ALGORITHM_FAILED.name,
        message[:MAX_FAILURE_TEXT],
        {key[:80]: value[:MAX_FAILURE_TEXT] for key, value in list(metadata.items())[:32]},
    )


def _check_media_type(media_type: str, where: str) -> None:
    if not 0 < len(media_type) <= MAX_MEDIA_TYPE:
        raise error(
            Reason.INVALID_ARGUMENT,
            f"{where}.media_type must have 1 to {MAX_MEDIA_TYPE} characters, e.g. application/json",
            field=f"{where}.media_type",
        )
