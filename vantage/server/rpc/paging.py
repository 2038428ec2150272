"""Pages of lists as answers: as many rows as a message holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from vantage.server.storage.pages import MAX_BYTES, Page

T = TypeVar("T")
MessageT = TypeVar("MessageT", bound=Message)


def fitting(page: Page[T], convert: Callable[[T], MessageT], max_bytes: int = MAX_BYTES) -> tuple[list[MessageT], str]:
    """The rows of a page as messages, of at most ``max_bytes`` together or one alone, and ``next_page_token``."""
    shown: list[MessageT] = []
    size = 0
    for row in page.rows:
        message = convert(row)
        size += message.ByteSize()
        if shown and size > max_bytes:
            break
        shown.append(message)
    return shown, page.token(len(shown))
