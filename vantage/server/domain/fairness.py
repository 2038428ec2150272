"""Whose runs a node gets when more wait than it has room for."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")


def choose(waiting: Mapping[str, Sequence[T]], held: Mapping[str, int], free: int, age: Callable[[T], str]) -> list[T]:
    """The next ones: always of whoever has the fewest, those taken here included; the older first of equals.

    Args:
        waiting: by owner, oldest first.
        held: by owner, how many the node has already.
        free: how many are wanted.
        age: sorts the older before the younger, across owners.
    """
    heap = [(held.get(owner, 0), age(each[0]), owner, 0) for owner, each in waiting.items() if each]
    heapq.heapify(heap)
    chosen: list[T] = []
    while heap and len(chosen) < free:
        has, _age, owner, position = heapq.heappop(heap)
        chosen.append(waiting[owner][position])
        if position + 1 < len(waiting[owner]):
            heapq.heappush(heap, (has + 1, age(waiting[owner][position + 1]), owner, position + 1))
    return chosen
