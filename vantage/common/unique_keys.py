"""JSON in which no object has a key twice: readers differ in which of the two counts."""

from __future__ import annotations

from typing import Any


class RepeatedKeyError(ValueError):
    """An object has a key twice."""


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The ``object_pairs_hook`` of a strict reader.

    Raises:
        RepeatedKeyError: a key is there twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise RepeatedKeyError("a key twice: give each once")
    return found
