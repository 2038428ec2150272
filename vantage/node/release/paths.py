"""Places in a result, as an admin writes them: ``groups.*.n``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Path = tuple[str, ...]
"""Keys, and positions in lists as numbers, from the root to a value."""

WHOLE = "$"
"""The pattern of a result that is a single value."""


def steps(pattern: str) -> Path:
    """A pattern in its parts; of the whole result it has none."""
    return () if pattern == WHOLE else tuple(pattern.split("."))


def fits(pattern: Path, path: Path) -> bool:
    """Whether a path is meant: ``*`` is any one step, ``**`` any number of them."""
    reached = {0}
    for step in path:
        # "**" may stand for nothing: then what follows it is reached as well.
        reached = _skipped(pattern, reached)
        following = set()
        for at in reached:
            if at < len(pattern):
                if pattern[at] == "**":
                    following.add(at)
                elif pattern[at] in ("*", step):
                    following.add(at + 1)
        reached = following
    return len(pattern) in _skipped(pattern, reached)


def _skipped(pattern: Path, reached: set[int]) -> set[int]:
    result = set(reached)
    for at in reached:
        while at < len(pattern) and pattern[at] == "**":
            at += 1
            result.add(at)
    return result


def leaves(document: object, path: Path = ()) -> Iterator[tuple[Path, object]]:
    """Every value of a JSON document that holds no others, with its path. Empty objects and lists are values, too."""
    waiting: list[tuple[Path, object]] = [(path, document)]
    while waiting:
        path, value = waiting.pop()
        children: Sequence[tuple[str, object]] = ()
        if isinstance(value, dict):
            children = [(str(key), each) for key, each in value.items()]
        elif isinstance(value, list):
            children = [(str(index), each) for index, each in enumerate(value)]
        if children:
            waiting.extend(((*path, step), each) for step, each in reversed(children))
        else:
            yield path, value
