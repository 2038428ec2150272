"""Pages of lists: opaque tokens that carry a position, never authority."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from vantage.common.errors import Reason, error

DEFAULT_SIZE = 50
MAX_SIZE = 500
MAX_BYTES = 8 * 1024 * 1024
"""Of what a page shows, unless one row alone has more: an answer is one message."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Rows of one page; whoever shows fewer of them, because they are large, lets the next page begin there.

    Attributes:
        rows: in the order of the list.
        more: whether the list goes on after them.
        query: text of everything that selects rows.
        key: what the token says of the last row that was shown.
    """

    rows: Sequence[T]
    more: bool
    query: str
    key: Callable[[T], str]

    def token(self, shown: int) -> str:
        """``next_page_token`` when so many of the rows are shown, the first ones; empty at the end of the list."""
        if not shown or (shown == len(self.rows) and not self.more):
            return ""
        text = json.dumps([_fingerprint(self.query), self.key(self.rows[shown - 1])])
        return base64.urlsafe_b64encode(text.encode()).decode()


def page_size(requested: int) -> int:
    """The size to use for a requested one: 0 means the default, more than the maximum the maximum.

    Raises:
        InvalidArgumentError: when negative.
    """
    if requested < 0:
        raise error(Reason.INVALID_ARGUMENT, "page_size must not be negative", field="page_size")
    return min(requested or DEFAULT_SIZE, MAX_SIZE)


def decode(token: str, query: str) -> str | None:
    """The key after which the page starts, or None for the first page.

    Args:
        token: ``page_token`` of the request.
        query: text of everything else in the request that selects rows; must be that of the first page.

    Raises:
        InvalidArgumentError: PAGE_TOKEN_INVALID.
    """
    if not token:
        return None
    try:
        fingerprint, key = json.loads(base64.urlsafe_b64decode(token.encode("ascii")))
        key.encode()  # half a surrogate is no text for a database
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        fingerprint, key = None, None
    if fingerprint != _fingerprint(query) or not isinstance(key, str):
        raise error(
            Reason.PAGE_TOKEN_INVALID,
            "page_token must be the next_page_token of the page before, with the same filter: start again without it",
        )
    return key


def cut(rows: Sequence[T], size: int, query: str, key: Callable[[T], str]) -> Page[T]:
    """Cut a page out of ``size + 1`` rows."""
    return Page(rows[:size], len(rows) > size, query, key)


def _fingerprint(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()[:12]
