"""Whether what people read hangs together: links lead somewhere, and README.md leads to every page of docs/."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

_LINK = re.compile(r"\]\((?!https?://|mailto:|#)([^)#\s]+)[^)]*\)")
_MENTION = re.compile(r"\bdocs/[\w/-]+\.md\b")


def pages(root: Path) -> list[Path]:
    """Pages for people, in a repository at ``root``."""
    return [
        *sorted(root.glob("*.md")),
        *(page for name in ("docs", "examples") for page in _below(root / name, "*.md")),
    ]


def problems(root: Path) -> Iterator[str]:
    """What is wrong, one sentence each."""
    for page in pages(root):
        for target in _LINK.findall(page.read_text("utf-8")):
            if not (page.parent / target).exists():
                yield f"{page.relative_to(root)} links to {target}, which does not exist"
    for source in (*_below(root / "protos", "*.proto"), *_below(root / "vantage", "*.py")):
        if "_pb2" in source.name:
            continue  # repeats the protos
        for target in sorted(set(_MENTION.findall(source.read_text("utf-8")))):
            if not (root / target).exists():
                yield f"{source.relative_to(root)} speaks of {target}, which does not exist"
    named = set(_LINK.findall((root / "README.md").read_text("utf-8")))
    for page in sorted((root / "docs").glob("*.md")):
        if f"docs/{page.name}" not in named:
            yield f"README.md does not name docs/{page.name}: add it to the table 'Read on'"


def _below(directory: Path, pattern: str) -> list[Path]:
    return sorted(each for each in directory.rglob(pattern) if "node_modules" not in each.parts)
