"""What differs between two images, for somebody who decides whether to sign the later one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vantage.client.image_files import MAX_TEXT, File

MAX_DIFF = 1024 * 1024
"""Characters of all text differences together."""

Tree = Mapping[str, tuple[File, int]]
Read = Callable[[str, int], str | None]
"""The text of a file, by its path and the number of its layer; None when it is none, or too long."""


@dataclass(frozen=True)
class Change:
    """A path that differs.

    Attributes:
        path: in the image.
        what: "added", "changed" or "removed".
        before: what it was.
        after: what it is.
        diff: what differs in a small text file, in lines of the unified format.
    """

    path: str
    what: str
    before: File | None
    after: File | None
    diff: tuple[str, ...] = ()


@dataclass(frozen=True)
class SettingChange:
    """A setting of the image's config, or its declaration, that differs."""

    name: str
    before: Any
    after: Any
    diff: tuple[str, ...] = field(default=())


def changes(before: Tree, after: Tree) -> Iterator[Change]:
    """Every path that differs, in the order of the paths; without texts."""
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None and new is not None:
            yield Change(path, "added", None, new[0])
        elif new is None and old is not None:
            yield Change(path, "removed", old[0], None)
        elif old is not None and new is not None and old[0] != new[0]:
            yield Change(path, "changed", old[0], new[0])


def is_small(file: File | None) -> bool:
    """Whether a file may be shown as text."""
    return file is None or (file.kind == "file" and file.size <= MAX_TEXT)


def with_text(change: Change, old: str | None, new: str | None, left: int) -> Change:
    """A change with what differs in its text, if both are text and ``left`` characters suffice."""
    if (change.before is not None and old is None) or (change.after is not None and new is None):
        return change
    lines = unified(old or "", new or "")
    return replace(change, diff=lines) if sum(map(len, lines)) <= left else change


def setting_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[SettingChange]:
    """Settings that differ, in the order of their names."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield SettingChange(name, old, new, unified(_shown(old), _shown(new)))


def unified(old: str, new: str) -> tuple[str, ...]:
    """Lines of the unified format, without its header."""
    found = difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2)
    return tuple(list(found)[2:])


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, indent=2, sort_keys=True)
