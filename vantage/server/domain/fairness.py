"""Whose runs a node gets when more wait than it has room for."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence


def choose(waiting: Mapping[str, Sequence[str]], held: Mapping[str, int], free: int) -> list[str]:
    """The next ones: always of whoever has the fewest, those taken here included; the older first of equals.

    Args:
        waiting: names of runs by owner, oldest first; names sort by age, across owners.
        held: by owner, how many the node has already.
        free: how many are wanted.
    """
    heap = [(held.get(owner, 0), each[0], owner, 0) for owner, each in waiting.items() if each]
    heapq.heapify(heap)
    chosen: list[str] = []
    while heap and len(chosen) < free:
        has, name, owner, position = heapq.heappop(heap)
        chosen.append(name)
        if position + 1 < len(waiting[owner]):
            heapq.heappush(heap, (has + 1, waiting[owner][position + 1], owner, position + 1))
    return chosen


def is_settled(
    waiting: Mapping[str, Sequence[str]], held: Mapping[str, int], chosen: Sequence[str], free: int, depth: int
) -> bool:
    """Whether ``choose`` would choose the same if it knew more than the oldest ``depth`` runs of each owner."""
    taken = set(chosen)
    turns = (
        held.get(owner, 0) + turn for owner, each in waiting.items() for turn, name in enumerate(each) if name in taken
    )
    last = max(turns, default=0)
    return all(
        len(names) < depth or (len(chosen) == free and held.get(owner, 0) + depth > last)
        for owner, names in waiting.items()
    )
