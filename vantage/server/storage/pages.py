"""Pages of lists: opaque tokens that carry a position, never authority."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TypeVar

from vantage.common.errors import Reason, error

DEFAULT_SIZE = 50
MAX_SIZE = 500

T = TypeVar("T")


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


def cut(rows: Sequence[T], size: int, query: str, key: Callable[[T], str]) -> tuple[Sequence[T], str]:
    """Cut a page out of ``size + 1`` rows and make the token of the next one, empty at the end."""
    if len(rows) <= size:
        return rows, ""
    page = rows[:size]
    text = json.dumps([_fingerprint(query), key(page[-1])])
    return page, base64.urlsafe_b64encode(text.encode()).decode()


def _fingerprint(query: str) -> str:
    return hashlib.sha256(query.encode()).hexdigest()[:12]
