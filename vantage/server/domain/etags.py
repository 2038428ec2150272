"""Etags: a short text that changes with whatever an update can change."""

from __future__ import annotations

import hashlib

from vantage.common.errors import Reason, error


def etag_of(*parts: object) -> str:
    """Etag of an object's changeable parts; sets must be sorted by the caller."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def check_etag(given: str, current: str, name: str) -> None:
    """Refuse a change that was made over an older version; an empty etag asks for no check.

    Raises:
        ConflictError: ETAG_MISMATCH.
    """
    if given and given != current:
        raise error(
            Reason.ETAG_MISMATCH, f"{name} was changed meanwhile: read it again and repeat the change", name=name
        )
