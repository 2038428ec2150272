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
        children = _children(value)
        if children:
            waiting.extend(((*path, step), each) for step, each in reversed(children))
        else:
            yield path, value


def uncounted(document: object, pattern: Path) -> list[Path]:
    """Paths of what should have a number where a pattern says, and has nothing there, or something that holds others.

    What is null or empty tells nothing, and needs no number. What follows ``**`` may be anywhere, so nothing misses it.
    """
    found: list[Path] = []
    reached: list[tuple[Path, object]] = [((), document)]
    for step in pattern:
        if step == "**":
            return found
        following: list[tuple[Path, object]] = []
        for path, value in reached:
            children = [(key, each) for key, each in _children(value) if step in ("*", key)]
            following += [((*path, key), each) for key, each in children]
            if not children and value not in (None, {}, []):
                found.append(path)
        reached = following
    return found + [path if pattern[-1:] == ("*",) else path[:-1] for path, value in reached if _children(value)]


def _children(value: object) -> Sequence[tuple[str, object]]:
    if isinstance(value, dict):
        return [(str(key), each) for key, each in value.items()]
    if isinstance(value, list):
        return [(str(index), each) for index, each in enumerate(value)]
    return ()
