"""Patterns of repository names, as policies of nodes and the configuration of servers have them."""

from __future__ import annotations

import re

_WILDCARDS = {"**": ".*", "*": "[^/]*"}


def matches(pattern: str, repository: str) -> bool:
    """Whether a pattern is about a repository: the whole name, never a prefix.

    Args:
        pattern: with ``*`` for any characters within a segment of the path and ``**`` for any.
        repository: the name.
    """
    parts = re.split(r"(\*\*|\*)", pattern)
    return re.fullmatch("".join(_WILDCARDS.get(part, re.escape(part)) for part in parts), repository) is not None
