"""What differs between two images, for somebody who decides whether to sign the later one."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from vantage.client.image_files import MAX_TEXT, File

MAX_DIFF = 1024 * 1024
"""Characters of all text differences together."""
MAX_COMPARED = 4_000_000
"""Lines of one text times lines of the other that are compared: difflib takes minutes for hostile 64 KiB."""

Tree = Mapping[str, tuple[File, int]]


@dataclass(frozen=True)
class Change:
    """A path that differs.

    Attributes:
        path: in the image.
        what: "added", "changed" or "removed".
        before: what it was.
        after: what it is.
        diff: what differs in a small text file, in lines of the unified format.
        omitted: whether that is not told, since there is more of it in the image than ``MAX_DIFF``.
    """

    path: str
    what: str
    before: File | None
    after: File | None
    diff: tuple[str, ...] = ()
    omitted: bool = False


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
    """A change with what differs in its text, if it is text; without it when ``left`` characters do not suffice.

    What was no text before, or too long for one, is as if it had been empty: all that is there now is shown.
    """
    if new is None and (change.after is not None or old is None):
        return change
    if (old or "") == (new or ""):
        return change
    lines = unified(old or "", new or "") if left > 0 else ()
    if left <= 0 or sum(map(len, lines)) > left:
        return replace(change, omitted=True)
    return replace(change, diff=lines)


def setting_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[SettingChange]:
    """Settings that differ, in the order of their names."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old != new:
            yield SettingChange(name, old, new, unified(_shown(old), _shown(new)))


def unified(old: str, new: str) -> tuple[str, ...]:
    """Lines of the unified format, without its header; of texts with very many lines perhaps more than needed.

    Texts that differ have lines that differ: a line ends with a line feed and with nothing else that some reader may
    take for an end, and a last line without one is said to have none.
    """
    before, after = _split(old), _split(new)
    if len(before) * len(after) <= MAX_COMPARED:
        return tuple(_as_patch_writes(list(difflib.unified_diff(before, after, lineterm="", n=2))[2:]))
    begin = _common(before, after)
    before, after = before[begin:], after[begin:]
    if end := _common(before[::-1], after[::-1]):
        before, after = before[:-end], after[:-end]
    if not before and not after:
        return ()
    lines = (*(f"-{line}" for line in before), *(f"+{line}" for line in after))
    return tuple(_as_patch_writes((f"@@ -{_place(begin, before)} +{_place(begin, after)} @@", *lines)))


def _split(text: str) -> list[str]:
    """Lines with their line feeds."""
    lines = text.split("\n")
    return [*(f"{line}\n" for line in lines[:-1]), *filter(None, lines[-1:])]


def _as_patch_writes(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line.removesuffix("\n")
        if not line.endswith("\n") and not line.startswith("@@"):
            yield "\\ No newline at end of file"


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """How many lines they have in common at the beginning."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (left, right) in pairs if left != right), min(len(one), len(other)))


def _place(begin: int, lines: Sequence[str]) -> str:
    """Where lines are: an empty range is told by the line before it."""
    return f"{begin + bool(lines)},{len(lines)}"


def _shown(value: Any) -> str:
    if value is None:
        return ""
    return f"{value if isinstance(value, str) else json.dumps(value, indent=2, sort_keys=True)}\n"
