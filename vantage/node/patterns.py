"""Patterns of image repositories."""

from __future__ import annotations

import re


def matches(pattern: str, repository: str) -> bool:
    """Whether a pattern is about a repository: the whole name, never a prefix.

    Args:
        pattern: with ``*`` for any characters within a segment of the path and ``**`` for any.
        repository: ``REGISTRY/PATH``.
    """
    translated = {"**": ".*", "*": "[^/]*"}
    expression = "".join(translated.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*)", pattern))
    return re.fullmatch(expression, repository) is not None
